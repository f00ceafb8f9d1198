"""The store: what is read from it is what was written, in constant memory, and damage is found."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.data.image import encode, record_bytes
from alexnet.data.prepare import prepare
from alexnet.data.store import Store
from alexnet.errors import StoreError


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Path:
    """A store to damage."""
    return Path(shutil.copytree(store.folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def grey_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 arrays of 6 x 6 to train on, in blocks of 256, 256 and 88, and 30 to test."""
    folder = tmp_path_factory.mktemp("grey")
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 600), ("t10k", 30)):
        images, labels = rng.integers(0, 256, (count, 6, 6), dtype=np.uint8), (np.arange(count) % 3).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (folder / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())
    return folder


@pytest.fixture(scope="module")
def blocks(grey_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of several blocks. Read only."""
    return prepare([grey_source], tmp_path_factory.mktemp("blocks") / "store", size=6, workers=1)


def flip(path: Path, offset: int) -> None:
    """Change one byte."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def edit(folder: Path, **changes: Any) -> None:
    """Change the manifest; None removes a key."""
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


# --- reading ------------------------------------------------------------------------------------------------------------


def test_what_the_store_says_of_itself(store: Store) -> None:
    assert store.size == 72
    assert store.classes == ("blue", "green", "red")
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 60, "val": 18}
    assert store.train is store.splits["train"]
    assert store.split("val") is store.splits["val"]


def test_records_labels_and_files_belong_together(store: Store) -> None:
    """Against the photos themselves."""
    photos = store.folder.parents[1] / "photos0"
    for split in store.splits.values():
        assert split.records.shape == (len(split), record_bytes(72))
        assert (split.records.dtype, split.labels.dtype) == (np.uint8, np.int32)
        for index in (0, 7, len(split) - 1):
            name = split.files[index]
            assert store.classes[split.labels[index]] == Path(name).parent.name
            assert np.array_equal(split.records[index], encode((photos / name).read_bytes(), 72))


def test_record_i_lies_at_byte_i_times_its_size(blocks: Store) -> None:
    """Across blocks: 256 pictures share a checksum, not a file."""
    length = record_bytes(6)
    data = (blocks.folder / "train.records").read_bytes()
    labels = (blocks.folder / "train.labels").read_bytes()
    assert len(data) == 600 * length
    for index in (0, 1, 255, 256, 511, 512, 599):
        assert bytes(blocks.train.records[index]) == data[index * length : (index + 1) * length]
        assert int(blocks.train.labels[index]) == int.from_bytes(labels[4 * index : 4 * index + 4], "little") == index % 3
    assert blocks.train.files == [f"train-images-idx3-ubyte[{index}]" for index in range(600)]


def test_records_cannot_be_written_to(store: Store) -> None:
    with pytest.raises(ValueError, match="read-only"):
        store.train.records[0, 0] = 0


def test_a_store_as_large_as_imagenet_opens_in_constant_memory(copy: Path) -> None:
    """100,000 records of 98,304 bytes (of holes, which take no space) and a look at one of them: not a megabyte."""
    count, length = 100_000, record_bytes(256)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["train"]["count"] = count
    manifest["splits"].pop("val")
    edit(copy, size=256, splits=manifest["splits"])
    os.truncate(copy / "train.records", count * length)
    os.truncate(copy / "train.labels", count * 4)
    with open(copy / "train.records", "r+b") as file:
        file.seek(77_777 * length)
        file.write(b"here")
    tracemalloc.start()
    store = Store(copy)
    picture = bytes(store.train.records[77_777, :5])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    os.truncate(copy / "train.records", 0)
    assert picture == b"here\0"
    assert isinstance(store.train.records, np.memmap)
    assert peak < 2**20


def test_unknown_split(store: Store) -> None:
    with pytest.raises(StoreError, match=r"has no split 'nope': it has train, val\."):
        store.split("nope")


def test_held_out_is_val_before_test(copy: Path) -> None:
    """Whatever their order in the manifest."""
    manifest = json.loads((copy / "manifest.json").read_text())
    splits = manifest["splits"]
    for ending in ("records", "labels", "files"):
        shutil.copy(copy / f"val.{ending}", copy / f"test.{ending}")
    edit(copy, splits={"test": splits["val"], "train": splits["train"], "val": splits["val"]})
    assert Store(copy).held_out.name == "val"
    edit(copy, splits={"test": splits["val"], "train": splits["train"]})
    assert Store(copy).held_out.name == "test"


def test_mean_image_and_statistics_have_their_shapes(store: Store) -> None:
    assert (store.mean_image.shape, store.mean_image.dtype) == ((3, 72, 72), np.float32)
    statistics = store.statistics
    shapes = [array.shape for array in (statistics.mean_colour, statistics.deviation, statistics.axis_deviations)]
    assert shapes == [(3,), (3,), (3,)]
    assert statistics.axes.shape == (3, 3)


# --- refused on opening -------------------------------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no such folder\. Make one with `alexnet prepare PHOTOS .*nowhere`"):
        Store(tmp_path / "nowhere")


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="is no store"):
        Store(tmp_path / "store")


def test_unfinished_store(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"it has no manifest\.json\. Prepare it: alexnet prepare"):  # photos, say
        Store(copy)
    (copy / "progress.jsonl").write_text("")
    with pytest.raises(StoreError, match=r"it has no manifest\.json\. Run the same `alexnet prepare` again; it resumes"):
        Store(copy)


@pytest.mark.parametrize("text", ["", '{"format": 1, "si', "[1, 2]", "{}", "null", "\x00\x00"])
def test_damaged_manifest(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=r"manifest\.json is damaged .*: prepare the store again"):
        Store(copy)


@pytest.mark.parametrize("key", ["size", "classes", "splits"])
def test_manifest_that_lacks_a_key(copy: Path, key: str) -> None:
    edit(copy, **{key: None})
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        Store(copy)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_another_format(copy: Path, version: object) -> None:
    edit(copy, format=version)
    with pytest.raises(StoreError, match=f"is a store of format {version}; this version reads format 1: prepare it again"):
        Store(copy)


@pytest.mark.parametrize("name", ["train.records", "val.records", "train.labels"])
@pytest.mark.parametrize("change", [-1, 1])
def test_file_of_another_length(copy: Path, name: str, change: int) -> None:
    size = (copy / name).stat().st_size
    os.truncate(copy / name, size + change)
    with pytest.raises(StoreError, match=rf"{name} has {size + change:,} bytes instead of {size:,}: prepare the store again"):
        Store(copy)


@pytest.mark.parametrize("name", ["train.records", "val.labels"])
def test_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(StoreError, match=rf"{name} has 0 bytes instead of"):
        Store(copy)


# --- damage -------------------------------------------------------------------------------------------------------------


def test_a_whole_store_has_no_damage(store: Store, blocks: Store) -> None:
    assert store.verify() == []
    assert blocks.verify() == []


def test_verify_counts_every_picture(blocks: Store) -> None:
    seen: list[int] = []
    blocks.verify(seen.append)
    assert sorted(seen) == [30, 88, 256, 256]


@pytest.mark.parametrize(
    ("record", "named"), [(0, "0 to 255"), (255, "0 to 255"), (256, "256 to 511"), (511, "256 to 511"), (599, "512 to 599")]
)
def test_verify_names_the_damaged_block(blocks: Store, tmp_path: Path, record: int, named: str) -> None:
    copy = Path(shutil.copytree(blocks.folder, tmp_path / "copy"))
    flip(copy / "train.records", record * record_bytes(6) + 5)
    assert Store(copy).verify() == [f"{copy / 'train'}.records: records {named} are damaged"]


def test_verify_finds_damage_in_the_second_split(copy: Path) -> None:
    flip(copy / "val.records", 17 * record_bytes(72))
    assert Store(copy).verify() == [f"{copy / 'val'}.records: records 0 to 17 are damaged"]


@pytest.mark.parametrize("name", ["train.labels", "val.labels", "train.files", "val.files", "mean.npy"])
def test_verify_finds_a_flipped_bit(copy: Path, name: str) -> None:
    flip(copy / name, (copy / name).stat().st_size - 3)
    assert Store(copy).verify() == [f"{copy / name} is missing or differs from the manifest"]


@pytest.mark.parametrize("name", ["mean.npy", "train.files"])
def test_verify_finds_a_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert Store(copy).verify() == [f"{copy / name} is missing or differs from the manifest"]


def test_verify_finds_all_damage(copy: Path) -> None:
    for name in ("train.records", "val.records", "train.labels", "mean.npy"):
        flip(copy / name, (copy / name).stat().st_size // 2)
    assert len(Store(copy).verify()) == 4


# --- fingerprint --------------------------------------------------------------------------------------------------------


def test_equal_content_has_an_equal_fingerprint(blocks: Store, grey_source: Path, tmp_path: Path) -> None:
    """From another place into another place."""
    moved = Path(shutil.copytree(grey_source, tmp_path / "elsewhere"))
    again = prepare([moved], tmp_path / "store", size=6, workers=1)
    assert again.fingerprint == blocks.fingerprint == Store(blocks.folder).fingerprint
    assert len(again.fingerprint) == 16


def test_other_content_has_another_fingerprint(blocks: Store, grey_source: Path, tmp_path: Path) -> None:
    """One pixel, one label, another size, other class names."""
    seen = {blocks.fingerprint}
    for number, (name, offset) in enumerate((("train-images-idx3", 16 + 21_000), ("t10k-labels-idx1", 8 + 12), ("", 0))):
        source = Path(shutil.copytree(grey_source, tmp_path / f"source{number}"))
        if name:
            flip(source / f"{name}-ubyte", offset)
        else:
            (source / "classnames.txt").write_text("ant\nbee\ncat\n")
        seen.add(prepare([source], tmp_path / f"store{number}", size=6, workers=1).fingerprint)
    seen.add(prepare([grey_source], tmp_path / "larger", size=8, workers=1).fingerprint)
    assert len(seen) == 5
