"""Photos to a store: what is written, what is refused, and that no interruption changes a byte.

Most sources here are IDX arrays of 28 x 28 grey levels, hundreds of which take a tenth of a
second, in blocks of 16 pictures instead of 256. Everything runs in this process but for the
tests that say otherwise.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from alexnet.data import sources, writer
from alexnet.data.image import encode, planes, record_bytes
from alexnet.data.prepare import encode_block, prepare
from alexnet.data.statistics import Sums
from alexnet.data.store import Store
from alexnet.data.workers import WorkerDied, Workers
from alexnet.errors import SourceError, StoreError

Photos = Callable[..., Path]
FILES = {"manifest.json", "mean.npy", "skipped.jsonl"} | {
    f"{split}.{ending}" for split in ("train", "val") for ending in ("records", "labels", "files")
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def write_digits(folder: Path, train: int, test: int) -> Path:
    """An IDX source of two splits: noise, of which no two pictures are alike."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(train)
    for prefix, count in (("train", train), ("t10k", test)):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx((np.arange(count) % 5).astype(np.uint8)))
    return folder


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.data.prepare.BLOCK", 16)


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 and 100 pictures: two blocks to test, then seven to train on, the last of 4."""
    monkeypatch.setattr("alexnet.data.prepare.BLOCK", 16)
    return write_digits(tmp_path / "digits", 100, 20)


def run(source: Path, store: Path, size: int = 8, **options: Any) -> Store:
    return prepare([source], store, **{"workers": 1, "size": size, **options})


# --- what is written ------------------------------------------------------------------------------


def test_manifest_and_files_of_a_finished_store(photos: Photos, tmp_path: Path) -> None:
    photos(10, "photos/train")
    photos(2, "photos/val")
    store = run(tmp_path / "photos", tmp_path / "store", 32)
    assert set(contents(store.folder)) == FILES, "nothing but the documented files is left"
    manifest = json.loads((store.folder / "manifest.json").read_text())
    expected = {"format": 1, "size": 32, "resize": "short-side", "source": "folder", "skipped": 0}
    assert {key: manifest[key] for key in expected} == expected
    assert manifest["classes"] == ["blue", "green", "red"]
    assert {name: (split["count"], split["per_class"]) for name, split in manifest["splits"].items()} == {
        "train": (30, [10, 10, 10]),
        "val": (6, [2, 2, 2]),
    }
    assert [count for count, _ in manifest["splits"]["train"]["blocks"]] == [30]


@pytest.mark.usefixtures("short_blocks")
def test_every_record_is_its_files_picture(photos: Photos, tmp_path: Path) -> None:
    """Over several blocks: record, label and name i belong together."""
    folder = photos(12)
    store = run(folder, tmp_path / "store", 32)
    seen = []
    for split in store.splits.values():
        for record, label, name in zip(split.records, split.labels, split.files, strict=True):
            assert np.array_equal(record, encode((folder / name).read_bytes(), 32))
            assert store.classes[label] == Path(name).parent.name
            seen.append(name)
    assert sorted(seen) == sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))


def test_grey_arrays_become_records(digits: Path, tmp_path: Path) -> None:
    store = run(digits, tmp_path / "store", 28)
    items = sources.find([digits]).splits
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 100, "test": 20}
    for name, split in store.splits.items():
        assert split.labels.tolist() == [item.label for item in items[name]]
        assert np.array_equal(split.records, [encode(sources.read(item), 28) for item in items[name]])


def test_resize_is_kept_in_the_manifest_and_used(tmp_path: Path) -> None:
    """Pictures whose middle is white and whose sides are black."""
    for name in ("a", "b"):
        (tmp_path / "wide" / name).mkdir(parents=True)
        for number in range(3):
            image = Image.new("L", (60, 20), 0)
            image.paste(255, (20, 0, 40, 20))
            image.putpixel((number, 0), 100 if name == "a" else 50)  # no two are alike
            image.save(tmp_path / "wide" / name / f"{number}.png")
    cut = run(tmp_path / "wide", tmp_path / "cut", resize="short-side")
    squashed = run(tmp_path / "wide", tmp_path / "squashed", resize="squash")
    assert (cut.manifest["resize"], squashed.manifest["resize"]) == ("short-side", "squash")
    assert planes(cut.train.records)[0].min() == 255
    assert planes(squashed.train.records)[0].min() == 0


def test_hold_out_is_announced_and_depends_on_the_seed(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos(12)
    first, again, other = (
        run(folder, tmp_path / name, hold_out=0.25, seed=seed) for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    said = "about 25% of each class is held out as val, chosen by the files' content (seed 1): "
    assert f"{said}{len(first.held_out)} of {len(first.held_out) + len(first.train)} pictures." in capsys.readouterr().err
    assert 3 <= len(first.held_out) <= 18
    assert contents(first.folder) == contents(again.folder)
    assert first.held_out.files != other.held_out.files


def test_a_source_with_two_splits_keeps_them(photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(4, "both/train")
    photos(2, "both/validation")
    store = run(tmp_path / "both", tmp_path / "store")
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 12, "val": 6}
    assert all(name.startswith("validation") for name in store.held_out.files)
    assert "held out" not in capsys.readouterr().err


def test_the_store_may_be_an_empty_folder(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert len(run(digits, tmp_path / "store").train) == 100


def test_missing_folders_above_the_store_are_made(digits: Path, tmp_path: Path) -> None:
    assert len(run(digits, tmp_path / "deep/down/store").train) == 100


@pytest.mark.parametrize(
    "name", [b"one\ntwo.jpg", "line\u2028separator.jpg".encode(), b"caf\xe9.jpg"], ids=["newline", "u2028", "latin-1"]
)
def test_strange_file_names(photos: Photos, tmp_path: Path, name: bytes) -> None:
    """One line for each picture whatever it is called; bytes that are no
    UTF-8 come from old archives.
    """
    folder = photos(3)
    try:
        (folder / "red" / "0.jpg").rename(folder / "red" / os.fsdecode(name))
    except OSError:
        pytest.skip("this file system refuses the name")
    store = run(folder, tmp_path / "store")
    for split in store.splits.values():
        assert len(split.files) == len(split)


# --- pictures that are none -----------------------------------------------------------------------


@pytest.fixture
def damaged(photos: Photos) -> Path:
    """Twelve pictures a class; four of the red ones and one of the green are unusable."""
    folder = photos(12)
    whole = (folder / "red/0.jpg").read_bytes()
    (folder / "red/0.jpg").write_bytes(b"")
    (folder / "red/1.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "red/2.jpg").write_text("<html>404</html>")
    (folder / "red/3.jpg").unlink()
    (folder / "red/3.jpg").symlink_to("nowhere.jpg")
    (folder / "green/notes.txt").write_text("taken in May")
    return folder


@pytest.mark.usefixtures("short_blocks")
def test_unusable_files_are_skipped_and_listed(damaged: Path, tmp_path: Path) -> None:
    store = run(damaged, tmp_path / "store", seed=3)
    skipped = {entry["file"]: entry["reason"] for entry in lines(store.folder / "skipped.jsonl")}
    assert skipped.keys() == {"red/0.jpg", "red/1.jpg", "red/2.jpg", "red/3.jpg", "green/notes.txt"}
    assert skipped["red/0.jpg"] == "empty file"
    assert skipped["red/1.jpg"].startswith("truncated or damaged")
    assert skipped["red/2.jpg"] == skipped["green/notes.txt"] == "not an image in a known format"
    assert skipped["red/3.jpg"] == "cannot be read: No such file or directory"
    assert store.manifest["skipped"] == 5


@pytest.mark.usefixtures("short_blocks")
def test_the_rest_is_prepared(damaged: Path, tmp_path: Path) -> None:
    """Records, labels and names of the others stay together although rows are
    missing from the blocks.
    """
    store = run(damaged, tmp_path / "store", 32, seed=3)
    per_class = np.sum([split["per_class"] for split in store.manifest["splits"].values()], axis=0)
    assert per_class.tolist() == [12, 12, 8]
    for split in store.splits.values():
        for record, label, name in zip(split.records, split.labels, split.files, strict=True):
            assert np.array_equal(record, encode((damaged / name).read_bytes(), 32))
            assert store.classes[label] == Path(name).parent.name
    assert not store.verify()


@pytest.mark.usefixtures("short_blocks")
def test_a_whole_block_may_be_unusable(photos: Photos, tmp_path: Path) -> None:
    folder = photos(4)
    for number in range(40):
        (folder / "green" / f"0-bad{number}.jpg").write_bytes(b"")
    store = run(folder, tmp_path / "store")
    assert 0 in [count for count, _ in store.manifest["splits"]["train"]["blocks"]], "the test needs an empty block"
    assert sum(map(len, store.splits.values())) == 12
    assert store.manifest["skipped"] == 40
    assert not store.verify()


def test_a_png_named_jpg_is_a_picture(photos: Photos, tmp_path: Path) -> None:
    folder = photos(3)
    Image.new("RGB", (20, 20), (10, 200, 30)).save(folder / "red/0.jpg", format="PNG")
    assert run(folder, tmp_path / "store").manifest["skipped"] == 0


@pytest.mark.usefixtures("short_blocks")
def test_strict_stops_at_the_first(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"^green/notes\.txt: not an image in a known format\. Remove or replace it, or drop --strict"
    ):
        run(damaged, tmp_path / "store", strict=True, seed=3)
    with pytest.raises(StoreError, match="not a finished store"):
        Store(tmp_path / "store")


def test_strict_accepts_a_source_without_faults(photos: Photos, tmp_path: Path) -> None:
    assert run(photos(3), tmp_path / "store", strict=True).manifest["skipped"] == 0


def test_class_of_which_no_picture_can_be_read(photos: Photos, tmp_path: Path) -> None:
    folder = photos(4)
    for path in (folder / "green").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        SourceError,
        match=r"a readable picture in each split, but 'green' has none left \(4 files skipped, see .*skipped\.jsonl\)",
    ):
        run(folder, tmp_path / "store")
    assert len(lines(tmp_path / "store/skipped.jsonl")) == 4
    assert not (tmp_path / "store/manifest.json").exists()


def test_split_of_which_no_picture_can_be_read(photos: Photos, tmp_path: Path) -> None:
    photos(2, "both/train")
    for path in photos(1, "both/test").rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(SourceError, match="a readable picture in each split, but 'test' has none left"):
        run(tmp_path / "both", tmp_path / "store")


# --- refused before anything is written -----------------------------------------------------------


@pytest.mark.parametrize("size", [0, -2, 1, 33])
def test_odd_sizes(digits: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(StoreError, match=rf"size \(={size}\) must be an even number of pixels"):
        run(digits, tmp_path / "store", size)
    assert not (tmp_path / "store").exists()


def test_a_finished_store_is_not_overwritten(digits: Path, tmp_path: Path) -> None:
    before = contents(run(digits, tmp_path / "store").folder)
    with pytest.raises(StoreError, match="finished store. To use it, run `alexnet train small-photos --data .*delete that one"):
        run(digits, tmp_path / "store")
    assert contents(tmp_path / "store") == before


def test_a_folder_of_other_things_is_left_alone(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.tex").write_text("Once")
    with pytest.raises(StoreError, match="thesis exists and is not a store"):
        run(digits, tmp_path / "thesis")
    assert contents(tmp_path / "thesis") == {"chapter1.tex": b"Once"}


def test_a_file_in_the_way_is_left_alone(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StoreError, match="exists and is not a store"):
        run(digits, tmp_path / "store")
    assert (tmp_path / "store").read_text() == "not a folder"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_that_is_too_small_is_noticed_first(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = 120 * record_bytes(8)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - need + 1, need - 1))
    with pytest.raises(StoreError, match=r"120 pictures of 8 x 8 need .* MB free: .*another --out.*--size"):
        run(digits, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - need, need))
    assert len(run(digits, tmp_path / "store").train) == 100


# --- interrupted ----------------------------------------------------------------------------------


@pytest.fixture
def whole(digits: Path, tmp_path: Path) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    return contents(run(digits, tmp_path / "whole").folder)


def fail_at(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> None:
    """The `call`-th write appends half of its data, as a full disk would, and
    fails. A block is five writes.
    """
    append, calls = writer._append, iter(range(10**6))

    def failing(path: Path, data: bytes | NDArray[Any]) -> int:
        if next(calls) == call:
            append(path, bytes(data)[: len(bytes(data)) // 2])
            raise error
        return append(path, data)

    monkeypatch.setattr(writer, "_append", failing)


def blocks_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each block that is decoded from now on."""
    sizes: list[int] = []

    def counting(job: tuple[str, Sequence[sources.Item]], **settings: Any) -> writer.Encoded:
        sizes.append(len(job[1]))
        return encode_block(job, **settings)

    monkeypatch.setattr("alexnet.data.prepare.encode_block", counting)
    return sizes


@pytest.mark.parametrize(
    ("write", "done"),
    [(0, 0), (1, 0), (4, 0), (5, 1), (12, 2), (13, 2), (19, 3), (20, 4), (35, 7), (41, 8), (44, 8)],
    ids=lambda number: str(number),
)
def test_full_disk_then_resumed(
    write: int, done: int, digits: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any write, of records, labels, names, skipped files or progress, of either split:
    the same bytes in the end.
    """
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        fail_at(patch, write, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(
            StoreError, match=r"no space left for .*store \(No space left on device\)\. The work done so far is kept"
        ):
            run(digits, store)
    assert not (store / "manifest.json").exists()
    encoded = blocks_encoded(monkeypatch)
    run(digits, store)
    assert len(encoded) == 9 - done, "what was done is not done again"
    assert contents(store) == whole


def test_full_disk_again_and_again(
    digits: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Space for one block at a time, and for another one but half of its line in the progress."""
    for _ in range(8):
        with monkeypatch.context() as patch:
            fail_at(patch, 9, OSError(errno.EDQUOT, "Disk quota exceeded"))
            with pytest.raises(StoreError, match="Disk quota exceeded"):
                run(digits, tmp_path / "store")
    run(digits, tmp_path / "store")
    assert contents(tmp_path / "store") == whole
    assert f"Resuming {tmp_path / 'store'} after 116 pictures." in capsys.readouterr().err


def test_disk_that_fills_up_with_the_sums(
    digits: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statistics of a block are written between its records and the line that makes it
    count.
    """

    def half(_: Sums, path: Path) -> None:
        path.write_bytes(b"PK\3\4 half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        fail_at(patch, 23, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(StoreError):
            run(digits, tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(Sums, "save", half)
        with pytest.raises(StoreError, match="no space left"):
            run(digits, tmp_path / "store")
    run(digits, tmp_path / "store")
    assert contents(tmp_path / "store") == whole


def test_interrupted_by_the_keyboard(
    digits: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, 22, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(digits, tmp_path / "store")
    run(digits, tmp_path / "store")
    assert contents(tmp_path / "store") == whole


def test_interrupted_just_before_the_end(
    digits: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is written but the manifest's name."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("alexnet.files.os.replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(digits, tmp_path / "store")
    encoded = blocks_encoded(monkeypatch)
    run(digits, tmp_path / "store")
    assert not encoded
    left = contents(tmp_path / "store")
    assert {name: left[name] for name in whole} == whole


def test_interrupted_with_skipped_files(damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of skipped files is cut back and continued like everything
    else, and so is their number.
    """
    monkeypatch.setattr("alexnet.data.prepare.BLOCK", 3)
    expected = contents(run(damaged, tmp_path / "whole").folder)
    for write in range(3, 60, 8):
        store = tmp_path / f"store{write}"
        with monkeypatch.context() as patch:
            fail_at(patch, write, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                run(damaged, store)
        run(damaged, store)
        assert contents(store) == expected


@pytest.mark.parametrize("text", ["", '{"format": 1, "si'], ids=["empty", "half"])
def test_killed_within_the_first_line(digits: Path, whole: dict[str, bytes], tmp_path: Path, text: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/progress.jsonl").write_text(text)
    run(digits, tmp_path / "store")
    assert contents(tmp_path / "store") == whole


def test_other_errors_of_the_system_are_not_taken_for_a_full_disk(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, 10, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(OSError, match="Input/output error") as caught:
        run(digits, tmp_path / "store")
    assert not isinstance(caught.value, StoreError)


def test_a_process_that_dies_is_reported_and_what_is_written_kept(
    digits: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(_: Workers, function: Any, jobs: Any) -> Iterator[writer.Encoded]:
        yield next(map(function, jobs))
        raise WorkerDied("a process ended without an answer")

    with monkeypatch.context() as patch:
        patch.setattr(Workers, "each", dying)
        with pytest.raises(StoreError, match=r"a decoding process died.*with fewer --workers"):
            run(digits, tmp_path / "store")
    assert len(lines(tmp_path / "store/progress.jsonl")) == 2
    run(digits, tmp_path / "store")
    assert contents(tmp_path / "store") == whole


@pytest.fixture
def unfinished(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of which three blocks are written."""
    with monkeypatch.context() as patch:
        fail_at(patch, 16, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(StoreError):
            run(digits, tmp_path / "unfinished")
    return tmp_path / "unfinished"


def test_unfinished_store_of_another_size(digits: Path, unfinished: Path) -> None:
    with pytest.raises(StoreError, match="unfinished store made with another size: run the command that started it"):
        run(digits, unfinished, 16)


def test_unfinished_store_in_another_order(digits: Path, unfinished: Path) -> None:
    with pytest.raises(StoreError, match="unfinished store made with another source"):
        run(digits, unfinished, shuffle=True)


def test_in_random_order(digits: Path, tmp_path: Path) -> None:
    """The pictures to train on in an order of the seed; those to test with stay as they were."""
    plain, mixed = run(digits, tmp_path / "plain"), run(digits, tmp_path / "mixed", shuffle=True)
    order = [plain.train.files.index(name) for name in mixed.train.files]
    assert sorted(order) == list(range(100)) != order
    assert np.array_equal(mixed.train.records, plain.train.records[order])
    assert np.array_equal(mixed.train.labels, plain.train.labels[order])
    assert np.array_equal(mixed.held_out.records, plain.held_out.records) and mixed.held_out.files == plain.held_out.files
    assert run(digits, tmp_path / "again", shuffle=True).fingerprint == mixed.fingerprint
    assert run(digits, tmp_path / "other", shuffle=True, seed=1).train.files != mixed.train.files


def test_unfinished_store_of_another_resize(digits: Path, unfinished: Path) -> None:
    with pytest.raises(StoreError, match="unfinished store made with another resize"):
        run(digits, unfinished, resize="squash")


def test_unfinished_store_of_another_source(unfinished: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unfinished store made with another source"):
        run(write_digits(tmp_path / "others", 100, 20), unfinished)


def test_a_refused_unfinished_store_can_still_be_finished(digits: Path, unfinished: Path, whole: dict[str, bytes]) -> None:
    with pytest.raises(StoreError, match="another size"):
        run(digits, unfinished, 16)
    run(digits, unfinished)
    assert contents(unfinished) == whole


@pytest.mark.parametrize("ending", ["records", "labels", "files"])
def test_unfinished_store_that_lost_data(digits: Path, unfinished: Path, ending: str) -> None:
    """After a power failure a file can be shorter than the progress says: zeros in its place would
    be trained on unnoticed.
    """
    path = unfinished / f"train.{ending}"
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(StoreError, match=rf"train\.{ending}"):
        run(digits, unfinished)


# --- processes ------------------------------------------------------------------------------------

SIDE = 48


class Killed(NamedTuple):
    """A run of `alexnet prepare` with two workers, killed in the middle."""

    source: Path
    store: Path
    expected: dict[str, bytes]  # of an uninterrupted run in one process
    session: int  # of the command and its workers


def alive(session: int) -> list[str]:
    """Processes of a session that are no zombies (nobody may be there to bury them)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        state, _, _, its_session = rest.split()[:4]
        if int(its_session) == session and state not in "ZX":
            found.append(name)
    return found


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """300 and 3,000 pictures are two and twelve blocks of 256; the command dies by SIGKILL when at
    least three are written.
    """
    folder = tmp_path_factory.mktemp("killed")
    source, store = write_digits(folder / "digits", 3000, 300), folder / "store"
    expected = contents(run(source, folder / "whole", SIDE).folder)
    command = "from alexnet.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "prepare", str(source), str(store), "--size", str(SIDE), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    progress = store / "progress.jsonl"
    try:
        begun = wait_for(lambda: progress.exists() and progress.read_bytes().count(b"\n") > 3, 60)
        if Path("/proc").is_dir():
            assert len(alive(process.pid)) > 2, "the test needs workers"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert begun
    assert progress.exists(), "it was killed too late"
    yield Killed(source, store, expected, process.pid)
    if alive(process.pid):  # a test has failed; its processes need not stay for ever
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the processes of a session are read from /proc")
def test_workers_end_with_a_killed_command(killed: Killed) -> None:
    assert wait_for(lambda: not alive(killed.session), 20), alive(killed.session)


def test_killed_and_resumed_gives_the_same_bytes(
    killed: Killed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stood half written behind the last line of the progress is cut off: here
    garbage and half a line.
    """
    for name in ("train.records", "train.labels", "train.files", "skipped.jsonl"):
        with open(killed.store / name, "ab") as file:
            file.write(b"garbage of a block that does not count")
    with open(killed.store / "progress.jsonl", "ab") as file:
        file.write(b'{"split": "train", "records": 256, "ski')
    encoded = blocks_encoded(monkeypatch)
    run(killed.source, killed.store, SIDE)
    assert "Resuming" in capsys.readouterr().err
    assert 0 < len(encoded) <= 14 - 3
    assert contents(killed.store) == killed.expected


def test_two_processes_write_the_same_bytes_as_one(killed: Killed, tmp_path: Path) -> None:
    run(killed.source, tmp_path / "store", SIDE, workers=2)
    assert contents(tmp_path / "store") == killed.expected


def test_grey_pictures_have_no_colour_to_vary(digits: Path, tmp_path: Path) -> None:
    statistics = run(digits, tmp_path / "store").statistics
    assert np.allclose(statistics.mean_colour, statistics.mean_colour[0], atol=1e-9)
    assert np.allclose(np.abs(statistics.axes[:, 0]), 3**-0.5, atol=1e-6)
    assert np.allclose(statistics.axis_deviations[1:], 0, atol=1e-4)


def test_two_processes_in_one_store(photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused and changes nothing; when the first is gone, it goes on."""
    store = tmp_path / "store"

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer.Writer, "finish", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare([photos(4)], store, size=32)
    before = (store / "progress.jsonl").read_bytes()
    with FileLock(store / ".lock"), pytest.raises(StoreError, match="another process is preparing"):
        prepare([tmp_path / "photos"], store, size=32)
    assert (store / "progress.jsonl").read_bytes() == before
    assert not prepare([tmp_path / "photos"], store, size=32).verify()


@pytest.mark.parametrize(
    ("number", "seconds", "group"),
    [
        (signal.SIGINT, 0.0, True),
        (signal.SIGTERM, 0.4, False),
        (signal.SIGTERM, 0.8, True),
    ],
)
def test_ctrl_c_and_sigterm_with_workers(
    photos: Callable[..., Path], tmp_path: Path, number: signal.Signals, seconds: float, group: bool
) -> None:
    """SIGINT to the whole group, as a terminal sends it, or SIGTERM to the group or the command
    alone, as supervisors do, while workers start or decode: all end without a traceback, none is
    left, and the same command goes on."""
    store = tmp_path / "store"
    command = [sys.executable, "-c", "from alexnet.cli import main; main()", "prepare", str(photos(250)), str(store)]
    command += ["--size", "256", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert wait_for((store / "progress.jsonl").exists, 60)
    time.sleep(seconds)
    (os.killpg if group else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=60)
    if Path("/proc").is_dir():
        assert wait_for(lambda: not alive(process.pid), 10), alive(process.pid)
    if (store / "manifest.json").exists():
        return  # it was quicker than the signal
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "Interrupted: run the same command to continue." in said
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert not Store(store).verify()


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": 7}, r"paths \(=7\) must be a path or a list of paths"),
        ({"paths": []}, r"paths \(=\[\]\) names no source"),
        ({"paths": [None]}, r"paths \(=None\) must be a path"),
        ({"paths": [], "train": 1}, r"train \(=1\) must be a path"),
        ({"store": None}, r"store \(=None\) must be a path"),
        ({"size": "256"}, r"size \(='256'\) must be an even number of pixels"),
        ({"size": 8.0}, r"size \(=8\.0\) must be an even number"),
        ({"size": True}, r"size \(=True\) must be an even number"),
        ({"size": 10**12}, r"size \(=10+\) must be an even number of pixels from 2 to 4,096"),
        ({"resize": "crop"}, r"resize \(='crop'\) must be short-side or squash"),
        ({"hold_out": "0.1"}, r"hold_out \(='0\.1'\) must be above 0"),
        ({"seed": 1.5}, r"seed \(=1\.5\) must be a whole number"),
        ({"seed": None}, r"seed \(=None\) must be a whole number"),
        ({"workers": "2"}, r"workers \(='2'\) must be a whole number from 1 to"),
        ({"workers": 0}, r"workers \(=0\) must be a whole number from 1 to"),
        ({"workers": 10_000}, r"workers \(=10000\) must be a whole number from 1 to \d+; this machine has \d+ cores"),
    ],
)
def test_arguments_that_cannot_be_meant(digits: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = {"paths": [digits], "store": tmp_path / "store", **changes}
    with pytest.raises((SourceError, StoreError), match=message):
        prepare(given.pop("paths"), given.pop("store"), **given)
    assert not (tmp_path / "store").exists()


def test_paths_may_be_texts_and_one(digits: Path, tmp_path: Path) -> None:
    assert len(prepare(str(digits), str(tmp_path / "store"), size=np.int64(8)).train) == 100  # type: ignore[arg-type]


# --- damaged progress -----------------------------------------------------------------------------

LINE_FIELDS = ("split", "records", "skipped", "sha256", "ends", "skipped_end")


@pytest.mark.parametrize("field", LINE_FIELDS)
@pytest.mark.parametrize("value", [None, "x", -1, 10**400, 1.5, [], [0, 0], [0, -1, 0], float("nan"), ...], ids=repr)
def test_damaged_progress(digits: Path, unfinished: Path, field: str, value: Any) -> None:
    """Of each field of a line: another type, negative, huge, not a number, missing."""
    if value == "x" and field in ("split", "sha256"):
        value = 3
    path = unfinished / "progress.jsonl"
    first, *rest = path.read_text().splitlines()
    line = json.loads(rest[1])
    line = {key: old for key, old in line.items() if key != field} if value is ... else {**line, field: value}
    rest[1] = json.dumps(line)
    path.write_text("\n".join([first, *rest]) + "\n")
    before = contents(unfinished)
    with pytest.raises(StoreError, match=r"progress\.jsonl, line 3, is damaged: .* Delete .*unfinished and prepare again\."):
        run(digits, unfinished)
    assert contents(unfinished) == before


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("split", "val", "has another block in line 3"),
        ("records", 15, "has another block in line 3"),
        ("skipped", 1, "has another block in line 3"),
        ("ends", [0, 0, 0], "has wrong lengths in line 3"),
        ("ends", [2**62, 0, 0], "has wrong lengths in line 3"),
    ],
)
def test_progress_that_is_not_the_sources(digits: Path, unfinished: Path, field: str, value: Any, message: str) -> None:
    path = unfinished / "progress.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), field: value})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(StoreError, match=rf"progress\.jsonl is damaged: it {message}"):
        run(digits, unfinished)


@pytest.mark.parametrize("text", ["[1]\n", "nonsense\n", "{}\n", "\xff\n", '{"format": 1, "size": 8}\n'])
def test_damaged_first_line_of_the_progress(digits: Path, unfinished: Path, text: str) -> None:
    (unfinished / "progress.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=r"(is damaged|of another version).*Delete .* and prepare again"):
        run(digits, unfinished)


def test_unfinished_store_without_its_sums(digits: Path, unfinished: Path) -> None:
    (unfinished / "sums.3.npz").unlink()
    with pytest.raises(StoreError, match=r"sums\.3\.npz is damaged: No such file or directory\. Delete .* and prepare again"):
        run(digits, unfinished)
