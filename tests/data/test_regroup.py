"""Groups of near-duplicates end on one side of a store's split, and nothing is lost."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet.data.prepare import prepare
from alexnet.data.regroup import Photos, recover, regrouped, sides
from alexnet.data.store import Store, sha256
from alexnet.errors import StoreError


def photos(labels: list[int], held: list[int], keys: str) -> Photos:
    return Photos(np.array(labels), np.array(held, bool), tuple(keys))


def moved(of: Photos, group: list[int]) -> tuple[list[int], list[int]]:
    held, single = sides(of, np.array(group))
    return held.astype(int).tolist(), single


def test_a_group_goes_where_the_smallest_key_is() -> None:
    labels = [0, 0, 0, 1, 1, 1]
    drawn = [0, 0, 1, 0, 0, 1]
    assert moved(photos(labels, drawn, "bcaxyz"), [0, 1, 0, 3, 4, 5]) == ([1, 0, 1, 0, 0, 1], [])
    assert moved(photos(labels, drawn, "acbxyz"), [0, 1, 0, 3, 4, 5]) == (
        [0, 1, 0, 0, 0, 1],
        [],
    )  # and 1 is held out in its place


def test_each_class_keeps_both_sides() -> None:
    """The class's other group goes to the empty side; a class of one group stays as it was."""
    assert moved(photos([0, 0, 0], [0, 1, 0], "abc"), [0, 0, 2]) == ([0, 0, 1], [])
    assert moved(photos([0, 0, 0], [0, 1, 0], "bac"), [0, 0, 2]) == ([1, 1, 0], [])
    assert moved(photos([0, 0, 0], [0, 1, 0], "abc"), [0, 0, 0]) == ([0, 1, 0], [0])
    assert moved(photos([0, 0], [0, 0], "ab"), [0, 0]) == ([0, 0], [])  # a class of which none was held out


def test_a_group_of_two_classes_moves_as_one() -> None:
    assert moved(photos([0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 1], "bcdaef"), [0, 1, 0, 3, 4, 0]) == ([0, 1, 0, 1, 0, 0], [])


def test_whoever_draws_a_group_is_held_out_as_often() -> None:
    """A tenth of the groups of three, as of the photos."""
    rng = np.random.default_rng(0)
    count = 3000
    drawn = rng.random(count) < 0.1
    keys = tuple(f"{key:09}" for key in rng.permutation(count))
    held, _ = sides(Photos(np.zeros(count, np.int64), drawn, keys), np.arange(count) // 3 * 3)
    assert 0.08 < held.mean() < 0.12
    assert (held.reshape(-1, 3).min(1) == held.reshape(-1, 3).max(1)).all()


def test_the_store_is_written_anew(photos: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With all records, names and skipped files, and true statistics; once is enough."""
    folder = photos(12)
    (folder / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    store = prepare(folder, tmp_path / "store", size=40, hold_out=0.3)
    count = len(store.train)
    before = {
        name: sha256(record) for split in store.splits.values() for name, record in zip(split.files, split.records, strict=True)
    }
    group = np.arange(count + len(store.held_out))
    pairs = [(0, count), (1, count + 1), (2, count + 2)]
    for one, other in pairs:
        group[other] = one
    names = [[split.files[number] for number in range(3)] for split in (store.train, store.held_out)]
    capsys.readouterr()
    new = regrouped(store, group)
    assert "6 photos are near-duplicates (bursts, copies), in 3 groups." in capsys.readouterr().err
    after = {
        name: sha256(record) for split in new.splits.values() for name, record in zip(split.files, split.records, strict=True)
    }
    assert after == before and new.verify() == [] and new.classes == store.classes
    assert [entry.file for entry in new.skipped] == ["red/broken.jpg"]
    sides_of = {name: split.name for split in new.splits.values() for name in split.files}
    assert all(sides_of[one] == sides_of[other] for one, other in zip(*names, strict=True))
    assert [entry.name for entry in tmp_path.iterdir()].count("store") == 1 and not list(tmp_path.glob(".*"))
    place = {name: number for number, name in enumerate([*new.train.files, *new.held_out.files])}
    group = np.arange(len(place))
    for one, other in zip(*names, strict=True):
        group[max(place[one], place[other])] = min(place[one], place[other])
    assert regrouped(new, group) is new


def test_a_store_between_two_names_gets_its_own_back(photos: Callable[..., Path], tmp_path: Path) -> None:
    """A killed process may leave it so."""
    store = prepare(photos(12), tmp_path / "store", size=40, hold_out=0.3)
    store.folder.rename(tmp_path / ".store.old.tmp")
    for _ in range(2):
        recover(store.folder)
        assert Store(tmp_path / "store").fingerprint == store.fingerprint
    assert not list(tmp_path.glob(".*"))


def test_what_is_in_the_way_leaves_the_store(photos: Callable[..., Path], tmp_path: Path) -> None:
    """A file where the old store is to be put meanwhile."""
    store = prepare(photos(12), tmp_path / "store", size=40, hold_out=0.3)
    group = np.arange(36)
    group[len(store.train)] = 0
    (tmp_path / ".store.old.tmp").write_text("")
    with pytest.raises(
        StoreError, match=r"cannot be written or renamed \(Not a directory\): remove what is in the way and run"
    ):
        regrouped(store, group)
    assert Store(tmp_path / "store").fingerprint == store.fingerprint
    (tmp_path / ".store.old.tmp").unlink()
    assert regrouped(store, group).fingerprint != store.fingerprint


def test_a_full_disk_leaves_the_store(photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = prepare(photos(12), tmp_path / "store", size=40, hold_out=0.3)
    group = np.arange(36)
    group[len(store.train)] = 0

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alexnet.data.regroup._write", full)
    with pytest.raises(StoreError, match=r"no space left for .*: free some"):
        regrouped(store, group)
    assert Store(tmp_path / "store").fingerprint == store.fingerprint
