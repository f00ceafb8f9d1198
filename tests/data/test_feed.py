"""Where the pictures lie, and that they and what chance decides are the loader's, wherever that
is.
"""

import numpy as np
import pytest
import torch

from alexnet.data.augment import Augmentation
from alexnet.data.chance import Chance
from alexnet.data.feed import GIB, ChoiceTable, Storage, choose_storage, host_memory, open_feed
from alexnet.data.loader import Loader
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.errors import RecipeError
from alexnet.train.steps.fused import step_bytes
from alexnet.variants import get_variant

CPU = torch.device("cpu")
PLACES: tuple[Storage, ...] = ("resident", "pinned", "disk")


@pytest.mark.parametrize(
    ("wanted", "free", "host", "expected"),
    [
        ("auto", 12, 0, "resident"),
        ("auto", 9, 64, "pinned"),
        ("auto", 9, 19, "disk"),
        ("auto", -3, 0, "disk"),
        ("disk", 99, 99, "disk"),
        ("pinned", 99, 0, "pinned"),
        ("resident", 1, 0, "resident"),
    ],
)
def test_the_first_place_that_fits(wanted: str, free: int, host: int, expected: str) -> None:
    place, sentence = choose_storage(wanted, 10 * GIB, free * GIB, host * GIB)
    assert place == expected
    assert "10.00 GiB" in sentence and sentence.endswith(".") and "\n" not in sentence


@pytest.mark.parametrize(
    ("batch", "memory", "expected"), [(128, 139, "resident"), (1024, 139, "resident"), (128, 78, "pinned")]
)
def test_imagenet_fits_one_large_gpu(batch: int, memory: int, expected: str) -> None:
    """117.3 GiB of 256 x 256 pictures on a GPU of 139 GiB at every usual
    batch, and not on one of 78.
    """
    needed = step_bytes(get_variant("paper").layers(), batch, torch.bfloat16)
    assert needed < 20 * GIB
    assert choose_storage("auto", 1_281_167 * 98_304, memory * GIB - needed, 256 * GIB)[0] == expected


def test_a_host_too_small_for_what_was_asked() -> None:
    with pytest.raises(RecipeError, match=r"feed \(=pinned\) needs 10.00 GiB .* 9.00 GiB are free: use disk or auto"):
        choose_storage("pinned", 10 * GIB, 0, 9 * GIB)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rows", [1, 4, 256])
def test_every_step_from_any_start(store: Store, place: Storage, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records, labels, crops, mirrors, colours and dropout's keys of each step, over
    two epochs and after a jump back.
    """
    monkeypatch.setattr("alexnet.data.feed.PIECE", 5 * 7776)  # pieces of five records
    loader = Loader(store.train, 9, seed=3)
    augmentation = Augmentation.of(Preprocessing.of(get_variant("paper", input_size=64), store), store, True, True, 0.1)
    feed = open_feed(place, loader, CPU)
    choices = ChoiceTable(feed, augmentation, 2, CPU, rows)
    steps = [(0, 4), (0, 5), (1, 0), (1, 1), (1, 2), (0, 2), (0, 3), (0, 2)]
    for epoch, step in steps:
        choices.ready(epoch, step)
        feed.ready(epoch, step)
        row = choices.row()
        choices.counter += 1
        feed.used(step)
        pictures, chance = loader.indices(epoch, step), Chance(3, epoch)
        batch, drawn = loader.batch(epoch, step), augmentation.draw(pictures, chance)
        assert torch.equal(feed.records[row.which], batch.records) and torch.equal(row.labels, batch.labels)
        for found, expected in zip((row.top, row.left, row.mirror, row.colour), drawn, strict=True):
            assert np.array_equal(found.numpy(), expected)
        assert np.array_equal(row.keys.numpy(), chance.dropout_keys(pictures, 2))
        assert torch.equal(choices.row(1).which, row.which)
    choices.close()


def test_an_abandoned_epoch_leaves_no_thread_behind(store: Store) -> None:
    """The disk's readers stop when another epoch begins."""
    import threading

    loader = Loader(store.train, 9, seed=3, workers=2)
    feed = open_feed("disk", loader, CPU)
    before = threading.active_count()
    for epoch in range(4):
        feed.ready(epoch, 0)
    assert threading.active_count() - before <= 2


def test_the_host_says_what_is_free() -> None:
    assert host_memory() >= 0
