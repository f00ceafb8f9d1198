"""The store: what is read from it is what was written, in constant memory, and damage is found."""

import io
import json
import os
import re
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet.data.feed import Pinned, Resident
from alexnet.data.image import encode, record_bytes
from alexnet.data.loader import Loader, in_order
from alexnet.data.prepare import prepare
from alexnet.data.statistics import Sums
from alexnet.data.store import Store, seal, sha256
from alexnet.errors import StoreError
from alexnet.train.health.probe import thumbnails


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


# --- reading --------------------------------------------------------------------------------------


def test_what_the_store_says_of_itself(store: Store) -> None:
    assert store.size == 72
    assert store.classes == ("blue", "green", "red")
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 60, "val": 18}
    assert store.train is store.splits["train"]
    assert store.split("val") is store.splits["val"]


def test_records_labels_and_files_belong_together(store: Store) -> None:
    """Against the photos themselves."""
    photos = store.folder.parents[1] / "photos_of_the_store"
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
    """100,000 records of 98,304 bytes (of holes, which take no space) and a look at one
    of them: not a megabyte.
    """
    count, length = 100_000, record_bytes(256)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"] = {"train": {"count": count, "per_class": [count, 0, 0], "blocks": [[100, "0" * 64]] * (count // 100)}}
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


# --- refused on opening ---------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no such folder exists: make one with `alexnet prepare PHOTOS .*nowhere`"):
        Store(tmp_path / "nowhere")


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="is not a store"):
        Store(tmp_path / "store")


def test_unfinished_store(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"it has no manifest\.json\. Prepare it: alexnet prepare"):  # photos, say
        Store(copy)
    (copy / "progress.jsonl").write_text("")
    with pytest.raises(StoreError, match=r"it has no manifest\.json\. If `alexnet prepare` was interrupted, run it again"):
        Store(copy)


@pytest.mark.parametrize("text", ["", '{"format": 1, "si', "[1, 2]", "{}", "null", "\x00\x00"])
def test_damaged_manifest(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=r"manifest\.json is damaged: .*\. Prepare the store again\."):
        Store(copy)


@pytest.mark.parametrize("key", ["size", "classes", "splits"])
def test_manifest_that_lacks_a_key(copy: Path, key: str) -> None:
    edit(copy, **{key: None})
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        Store(copy)


@pytest.mark.parametrize("version", [0, 2])
def test_another_format(copy: Path, version: object) -> None:
    edit(copy, format=version)
    with pytest.raises(
        StoreError, match=f"is a store of format {version}, but this version of alexnet reads format 1: prepare it again"
    ):
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


# --- damage ---------------------------------------------------------------------------------------


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
    flip(copy / name, 0 if name.endswith("labels") else (copy / name).stat().st_size - 3)
    assert f"{copy / name} is missing or differs from the manifest" in Store(copy).verify()


def test_verify_counts_labels(copy: Path) -> None:
    """A label that is wrong and in range, with a checksum to suit."""
    flip(copy / "val.labels", 0)
    checksums = json.loads((copy / "manifest.json").read_text())["files"]
    edit(copy, files={**checksums, "val.labels": sha256((copy / "val.labels").read_bytes())})
    (copy / "manifest.json").write_text(json.dumps(seal(json.loads((copy / "manifest.json").read_text()))))
    assert Store(copy).verify() == [f"{copy / 'manifest.json'}: splits.val.per_class differs from the labels"]


@pytest.mark.parametrize("label", [-1, 3, 99])
def test_labels_of_no_class_are_damage(copy: Path, label: int) -> None:
    labels = np.fromfile(copy / "val.labels", "<i4")
    labels[7] = label
    labels.tofile(copy / "val.labels")
    with pytest.raises(StoreError, match=rf"val\.labels is damaged: record 7 has class {label}, but must have one in \[0, 2\]"):
        Store(copy)


@pytest.mark.parametrize("name", ["mean.npy", "train.files"])
def test_verify_finds_a_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert Store(copy).verify() == [f"{copy / name} is missing or differs from the manifest"]


def test_verify_finds_all_damage(copy: Path) -> None:
    for name in ("train.records", "val.records", "train.labels", "mean.npy"):
        flip(copy / name, 0 if name.endswith("labels") else (copy / name).stat().st_size // 2)
    assert len(Store(copy).verify()) == 5, "the labels differ from their checksum and from the counts of classes"


# --- a manifest that is wrong ---------------------------------------------------------------------


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value of some JSON is; of a list the first and the last."""
    if above:
        yield above
    keys = list(value) if isinstance(value, dict) else [0, len(value) - 1] if isinstance(value, list) and value else []
    for key in dict.fromkeys(keys):
        yield from places(value[key], (*above, key))


def put(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a place; without that if it is `...`."""
    content = json.loads(json.dumps(content))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return content


@pytest.mark.parametrize(
    "value", [None, "x", -3, 10**400, 10**12, 0.5, True, [], {}, float("nan"), float("inf"), ...], ids=repr
)
def test_every_field_of_the_manifest(copy: Path, value: Any) -> None:
    """Each field of another type, negative, huge, not a number, missing: refused with what to do,
    or found by `verify`, even if the seal is right. Nothing else happens, whatever the field."""
    manifest = json.loads((copy / "manifest.json").read_text())
    for place in places(manifest):
        if place == ("seal",) or (place[0] == "classes" and value == "x") or (place == ("source",) and value == "x"):
            continue
        changed = put(manifest, place, value)
        if changed.get("clipped") is not manifest["clipped"] and value is ...:
            continue  # a store of an earlier version, whose mean is another
        if json.dumps(changed) == json.dumps(manifest):
            continue
        (copy / "manifest.json").write_text(json.dumps(seal(changed)))
        try:
            damage = Store(copy).verify()
        except StoreError as error:
            assert re.search(r"([Pp]repare (the store|it) again)", str(error)), (place, str(error))
        else:
            assert damage, place


def test_any_change_breaks_the_seal(copy: Path) -> None:
    """Even one that contradicts nothing else: a class name."""
    edit(copy, classes=["blue", "green", "purple"])
    assert Store(copy).verify() == [f"{copy / 'manifest.json'} has changed since it was written"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mean_colour", [0, 0.01, 0], "mean_colour differs"),
        ("deviation", [0.1, 0, 0], "deviation differs"),
        ("axis_deviations", [0, 0, 0.1], "axes and axis_deviations differs"),
    ],
)
def test_statistics_that_are_not_the_records(copy: Path, name: str, change: list[float], message: str) -> None:
    """With a seal to suit."""
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["statistics"][name] = (np.array(manifest["statistics"][name]) + change).tolist()
    (copy / "manifest.json").write_text(json.dumps(seal(manifest)))
    assert Store(copy).verify() == [f"{copy / 'manifest.json'}: statistics: {message} from the records"]


def test_mean_image_that_is_not_the_records(copy: Path) -> None:
    """With a checksum and a seal to suit."""
    np.save(copy / "mean.npy", Store(copy).mean_image + np.float32(0.01))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["mean.npy"] = sha256((copy / "mean.npy").read_bytes())
    (copy / "manifest.json").write_text(json.dumps(seal(manifest)))
    assert Store(copy).verify() == [f"{copy / 'mean.npy'} is not the mean of the records"]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 72, 71), np.float32),
        np.zeros((3, 72, 72)),
        np.full((3, 72, 72), np.nan, np.float32),
        np.full((3, 72, 72), 1e6, np.float32),
        np.array([None]),
        np.zeros(0, np.float32),
    ],
    ids=["shape", "float64", "nan", "huge", "object", "empty"],
)
def test_damaged_mean_image(copy: Path, array: NDArray[Any]) -> None:
    np.save(copy / "mean.npy", array, allow_pickle=True)
    with pytest.raises(StoreError, match=r"mean\.npy is damaged: .* Prepare the store again\."):
        _ = Store(copy).mean_image


def test_mean_image_that_claims_a_terabyte(copy: Path) -> None:
    """Three hundred bytes, of which the header is believed by nobody."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (3, 2**19, 2**19)})
    for content in (header.getvalue(), b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{'descr': [[[[[[["):
        (copy / "mean.npy").write_bytes(content)
        with pytest.raises(StoreError, match=r"mean\.npy is damaged"):
            _ = Store(copy).mean_image


def test_a_store_of_an_earlier_version(copy: Path) -> None:
    """No seal, no checksum of the skipped files, and a mean that was not
    clipped: it opens and is whole.
    """
    manifest = json.loads((copy / "manifest.json").read_text())
    sums = Sums.of(np.array(Store(copy).train.records))
    np.save(copy / "mean.npy", sums.mean_image(clipped=False))
    values, axes = np.linalg.eigh(sums.covariance(clipped=False))
    manifest["statistics"] = {
        "mean_colour": sums.mean_colour(clipped=False).tolist(),
        "axes": axes.tolist(),
        "deviation": np.sqrt(np.diag(sums.covariance(clipped=False))).tolist(),
        "axis_deviations": np.sqrt(values).tolist(),
    }
    del manifest["seal"], manifest["clipped"], manifest["files"]["skipped.jsonl"]
    manifest["files"]["mean.npy"] = sha256((copy / "mean.npy").read_bytes())
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert Store(copy).verify() == []
    assert np.abs(Store(copy).mean_image - sums.mean_image()).max() > 0.01, "the test needs clipped colours"


def test_no_split_to_test_on(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    edit(copy, splits={"train": manifest["splits"]["train"]})
    with pytest.raises(StoreError, match=r"has no split 'val': it has train\."):
        _ = Store(copy).held_out


@pytest.mark.parametrize("folder", [None, 7, b"store", ["store"]])
def test_folder_of_a_wrong_type(folder: Any) -> None:
    with pytest.raises(StoreError, match=r"folder \(=.*\) must be the path of a store"):
        Store(folder)


# --- files that change while they are in use ------------------------------------------------------


def test_records_that_shrink_or_go(copy: Path) -> None:
    """Reading on would be a bus error, which ends Python without a word. Every way
    to read notices it first.
    """
    store = Store(copy)
    loader = Loader(store.train, 10, seed=0)
    loader.batch(0, 0)
    ways: list[Callable[[], object]] = [
        store.train.check,
        lambda: loader.batch(0, 1),
        lambda: list(loader.batches(0)),
        lambda: list(in_order(store.train, 10)),
        lambda: Resident(loader, torch.device("cpu")),
        lambda: Pinned(loader, cuda=False),
        store.verify,
        lambda: store.train.take(np.arange(4)),
        lambda: thumbnails(store, np.arange(4)),
    ]
    os.truncate(copy / "train.records", 0)
    for way in ways:
        with pytest.raises(
            StoreError, match=r"train\.records has shrunk from [0-9,]+ to 0 bytes while it was in use\. Prepare"
        ):
            way()
    (copy / "train.records").unlink()
    with pytest.raises(StoreError, match=r"train\.records is gone \(No such file or directory\): put the store back"):
        loader.batch(0, 1)


def test_list_of_files_of_another_length(copy: Path) -> None:
    (copy / "val.files").write_text("one\n")
    with pytest.raises(StoreError, match=r"val\.files is damaged: it lists 1 files for 18 pictures"):
        _ = Store(copy).held_out.files
    assert f"{copy / 'val.files'} lists 1 files for 18 pictures" in Store(copy).verify()


# --- fingerprint ----------------------------------------------------------------------------------


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
