"""Where photos come from: every layout made small, the real parquet files, and every way in
which a source can be wrong.

Nothing is decoded here, so most "pictures" are a few bytes that say which one they are.
"""

import gzip
import io
import json
import os
import re
import shlex
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from alexnet.data.formats import AVIF_BRANDS, HEIF_BRANDS
from alexnet.data.image import FORMATS, Unreadable
from alexnet.data.sources import Item, Source, find, read
from alexnet.data.sources.parquet import _group
from alexnet.data.sources.read import HEAD_BYTES, starts_like_a_picture
from alexnet.data.sources.splits import split_of
from alexnet.errors import SourceError
from alexnet.published.registry import IMAGENETTE

IDS = sorted(
    [
        "n01440764",
        "n02102040",
        "n02979186",
        "n03000684",
        "n03028079",
        "n03394916",
        "n03417042",
        "n03425413",
        "n03445777",
        "n03888257",
    ]
)
Files = Iterable[tuple[str, bytes]]


def picture(what: object) -> bytes:
    """What begins like a JPEG and says which one it is."""
    return b"\xff\xd8\xff" + str(what).encode()


def write(root: Path, *names: str) -> Path:
    """Files under `root`, each of which begins like a picture and holds its own name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(name))
    return root


def names(source: Source, split: str = "train") -> list[tuple[str, str]]:
    """(name, class) of each item."""
    return [(item.name, source.classes[item.label]) for item in source.splits[split]]


def labels(source: Source, split: str = "train") -> list[int]:
    return [item.label for item in source.splits[split]]


def counts(source: Source) -> dict[str, int]:
    return {split: len(items) for split, items in source.splits.items()}


def tarred(files: Files, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


# --- a folder per class ---------------------------------------------------------------------------


def test_folder_per_class(tmp_path: Path) -> None:
    """Classes and files in the order of their names, whatever the order of the disk."""
    write(tmp_path, "yak/2.jpg", "yak/10.jpg", "ant/b.png", "ant/a.JPEG", "mole/x.webp")
    source = find([tmp_path])
    assert source.kind == "folder"
    assert source.classes == ("ant", "mole", "yak")
    assert names(source) == [
        ("ant/a.JPEG", "ant"),
        ("ant/b.png", "ant"),
        ("mole/x.webp", "mole"),
        ("yak/10.jpg", "yak"),
        ("yak/2.jpg", "yak"),
    ]
    assert list(source.splits) == ["train"]


@pytest.mark.parametrize(
    ("folder", "split"), [("val", "val"), ("valid", "val"), ("validation", "val"), ("test", "test"), ("Val", "val")]
)
def test_split_folders(tmp_path: Path, folder: str, split: str) -> None:
    write(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/b/2.jpg", f"{folder}/a/3.jpg", f"{folder}/b/4.jpg")
    source = find([tmp_path])
    assert source.classes == ("a", "b")
    assert counts(source) == {"train": 3, split: 2}
    assert names(source, split) == [(f"{folder}/a/3.jpg", "a"), (f"{folder}/b/4.jpg", "b")]


def test_three_split_folders(tmp_path: Path) -> None:
    write(tmp_path, *(f"{split}/{name}/1.jpg" for split in ("train", "val", "test") for name in "ab"))
    assert counts(find([tmp_path])) == {"train": 2, "val": 2, "test": 2}


def test_a_class_may_be_missing_in_the_second_split(tmp_path: Path) -> None:
    """Labels come from the training folder."""
    write(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/b/1.jpg")
    assert names(find([tmp_path]), "val") == [("val/b/1.jpg", "b")]


def test_two_folders_of_one_split_lose_no_pictures(tmp_path: Path) -> None:
    """Either both are taken or it is an error: one of them may not vanish."""
    write(tmp_path, *(f"{split}/{name}/1.jpg" for split in ("train", "val", "validation") for name in "ab"))
    try:
        assert counts(find([tmp_path])) == {"train": 2, "val": 4}
    except SourceError as error:
        assert "validation" in str(error)


def test_nested_folders_belong_to_the_class_above(tmp_path: Path) -> None:
    write(tmp_path, "cat/2024/may/1.jpg", "cat/2.jpg", "dog/a/b/c/3.jpg")
    assert names(find([tmp_path])) == [("cat/2.jpg", "cat"), ("cat/2024/may/1.jpg", "cat"), ("dog/a/b/c/3.jpg", "dog")]


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    """What systems leave behind: in classes, beside them, and as folders."""
    write(
        tmp_path, "a/1.jpg", "b/2.jpg", ".DS_Store", ".git/config", "a/.DS_Store", "b/._2.jpg", "b/Thumbs.db", "a/.cache/3.jpg"
    )
    assert names(find([tmp_path])) == [("a/1.jpg", "a"), ("b/2.jpg", "b")]


def test_files_beside_the_classes_are_no_class(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg", "README.md", "licence.txt")
    assert find([tmp_path]).classes == ("a", "b")


def test_a_class_may_have_a_split_word_in_its_name(tmp_path: Path) -> None:
    write(tmp_path, "test tube/1.jpg", "freight train/2.jpg", "beaker/3.jpg")
    assert find([tmp_path]).classes == ("beaker", "freight train", "test tube")


def test_read_gives_a_files_bytes(tmp_path: Path) -> None:
    for item in find([write(tmp_path, "a/1.jpg", "b/2.jpg")]).splits["train"]:
        assert read(item) == picture(item.name)


def test_a_real_folder(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its folders are named by WordNet ids: labels keep their order, names say what they mean."""
    source = find([shared / "data/imagenette-mini"])
    assert sum(counts(source).values()) == 600
    assert set(source.splits) == {"train", "val"}
    assert source.classes == IMAGENETTE.classes
    assert all(item.name.split("/")[1] == IDS[item.label] for items in source.splits.values() for item in items)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "The classes are named by WordNet ids, which mean 'tench', 'English springer', 'cassette player' and 7"
    )


@pytest.mark.parametrize("other", ["cat", "n00000001", "N02102040"])
def test_wordnet_ids_beside_other_names_stay(tmp_path: Path, other: str) -> None:
    assert "n01440764" in find([write(tmp_path, "n01440764/1.jpg", f"{other}/2.jpg")]).classes


# --- holding out ----------------------------------------------------------------------------------


def flat_source(per_class: Sequence[int]) -> Source:
    items = [Item(f"{label}/{index}.jpg", label, "") for label, count in enumerate(per_class) for index in range(count)]
    return Source("folder", tuple(map(str, range(len(per_class)))), {"train": items})


# --- ILSVRC2012 as downloaded ---------------------------------------------------------------------

SYNSETS = ("n03000000", "n01000000", "n02000000")  # in the order of the tar, which is not that of the labels
VAL_CLASSES = ("n02000000", "n01000000", "n03000000", "n03000000")
VAL_LABELS = [1, 0, 2, 2]
#: The kit's own numbers, in yet another order; it lists synsets that are no classes too.
DEVKIT_IDS = {"n02000000": 1, "n03000000": 2, "n01000000": 3, "n09999999": 1001}


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08}.JPEG"


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Path:
    """The two tars, without ground truth. The validation tar is out of order."""
    inner = [
        (f"{wnid}.tar", tarred([(f"{wnid}_{index}.JPEG", picture(f"{wnid} {index}") * 100) for index in range(2)]))
        for wnid in SYNSETS
    ]
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(tarred(inner))
    val = [(val_name(number), picture(number)) for number in (3, 1, 4, 2)]
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(tarred(val))
    return tmp_path


def caffe_list(folder: Path, values: Sequence[object] = tuple(VAL_LABELS), name: str = "val.txt") -> None:
    """`NAME value` lines, not in the order of the names."""
    lines = [f"{val_name(number)} {value}\n" for number, value in enumerate(values, 1)]
    (folder / name).write_text("".join(reversed(lines)))


def write_kit(folder: Path, truth: Sequence[int] | None, name: str = "ILSVRC2012_devkit_t12.tar.gz") -> None:
    table = np.array(
        [(number, wnid, "words, more words") for wnid, number in DEVKIT_IDS.items()],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object)],
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": table[:, None]})
    files = [("ILSVRC2012_devkit_t12/readme.txt", b"hello"), ("ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())]
    if truth is not None:
        text = "".join(f"{number}\n" for number in truth)
        files.append(("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", text.encode()))
    (folder / name).write_bytes(tarred(files, "w:gz"))


def kit_ids() -> list[int]:
    return [DEVKIT_IDS[wnid] for wnid in VAL_CLASSES]


def truth_caffe(folder: Path) -> None:
    caffe_list(folder)


def truth_wordnet(folder: Path) -> None:
    caffe_list(folder, VAL_CLASSES, "ILSVRC2012_val_labels.txt")


def truth_in_kit(folder: Path) -> None:
    write_kit(folder, kit_ids())


def truth_beside_kit(folder: Path) -> None:
    write_kit(folder, None)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in kit_ids()))


def truth_in_unpacked_kit(folder: Path) -> None:
    write_kit(folder, kit_ids())
    kit = folder / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(kit) as tar:
        for member in tar:
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    kit.unlink()


@pytest.mark.parametrize(
    "truth",
    [truth_caffe, truth_wordnet, truth_in_kit, truth_beside_kit, truth_in_unpacked_kit],
    ids=lambda truth: truth.__name__.removeprefix("truth_"),
)
def test_ilsvrc_labels_are_places_among_sorted_wordnet_ids(ilsvrc: Path, truth: Callable[[Path], None]) -> None:
    """The kit's own numbers are another order, in which every prediction would be read wrongly."""
    truth(ilsvrc)
    source = find([ilsvrc])
    assert source.kind == "ILSVRC2012 tars"
    assert source.classes == tuple(sorted(SYNSETS))
    assert labels(source) == [0, 0, 1, 1, 2, 2]
    assert [item.name for item in source.splits["val"]] == [val_name(number) for number in (1, 2, 3, 4)]
    assert labels(source, "val") == VAL_LABELS


def test_ilsvrc_tars_may_be_named_one_by_one(ilsvrc: Path) -> None:
    truth_in_kit(ilsvrc)
    source = find([ilsvrc / "ILSVRC2012_img_train.tar", ilsvrc / "ILSVRC2012_img_val.tar"])
    assert labels(source, "val") == VAL_LABELS


def test_ilsvrc_kit_may_lie_unpacked_beside_the_tars(ilsvrc: Path) -> None:
    truth_in_unpacked_kit(ilsvrc)
    source = find(sorted(ilsvrc.glob("*.tar")))
    assert labels(source, "val") == VAL_LABELS


def test_ilsvrc_read(ilsvrc: Path) -> None:
    """A picture in a tar in a tar, and one in a tar."""
    caffe_list(ilsvrc)
    source = find([ilsvrc])
    train, val = source.splits["train"], source.splits["val"]
    assert [read(item) for item in train[2:4]] == [picture("n02000000 0") * 100, picture("n02000000 1") * 100]
    assert [read(item) for item in val] == [picture(number) for number in (1, 2, 3, 4)]


def test_ilsvrc_training_tar_alone(ilsvrc: Path) -> None:
    assert counts(find([ilsvrc / "ILSVRC2012_img_train.tar"])) == {"train": 6}


def test_ilsvrc_test_tar_has_no_labels_and_is_left_out(ilsvrc: Path) -> None:
    caffe_list(ilsvrc)
    (ilsvrc / "ILSVRC2012_img_test_v10102019.tar").write_bytes(tarred([("ILSVRC2012_test_00000001.JPEG", b"x")]))
    assert counts(find([ilsvrc])) == {"train": 6, "val": 4}


def test_ilsvrc_without_ground_truth(ilsvrc: Path) -> None:
    with pytest.raises(SourceError, match="holds pictures without labels: put ILSVRC2012_devkit_t12"):
        find([ilsvrc])


def test_ilsvrc_kits_list_without_the_kit(ilsvrc: Path) -> None:
    (ilsvrc / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n3\n2\n")
    with pytest.raises(SourceError, match="numbers classes by the kit's ids"):
        find([ilsvrc])


def test_ilsvrc_kit_without_its_table(ilsvrc: Path) -> None:
    (ilsvrc / "ILSVRC2012_devkit_t3.tar.gz").write_bytes(tarred([("kit/readme.txt", b"")], "w:gz"))
    with pytest.raises(SourceError, match=r"holds no ILSVRC2012_validation_ground_truth\.txt"):
        find([ilsvrc])


def test_ilsvrc_damaged_kit(ilsvrc: Path) -> None:
    (ilsvrc / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"<html>please log in</html>")
    with pytest.raises(SourceError, match="devkit_t12"):
        find([ilsvrc])


@pytest.mark.parametrize("count", [3, 5])
def test_ilsvrc_ground_truth_of_another_length(ilsvrc: Path, count: int) -> None:
    caffe_list(ilsvrc, [0] * count)
    with pytest.raises(SourceError, match=f"holds 4 pictures, but its ground truth has {count} labels"):
        find([ilsvrc])


def test_ilsvrc_empty_ground_truth(ilsvrc: Path) -> None:
    (ilsvrc / "val.txt").write_text("\n")
    with pytest.raises(SourceError, match=r"0 labels|empty|no labels"):
        find([ilsvrc])


def test_ilsvrc_ground_truth_with_an_unknown_class(ilsvrc: Path) -> None:
    caffe_list(ilsvrc, ["n01000000", "n02000000", "n07777777", "n03000000"])
    with pytest.raises(SourceError, match="'n07777777' of the ground truth is not among"):
        find([ilsvrc])


def test_ilsvrc_index_beyond_the_classes(ilsvrc: Path) -> None:
    """A list that counts from 1: every label would be wrong, and the last no class at all."""
    caffe_list(ilsvrc, [label + 1 for label in VAL_LABELS])
    with pytest.raises(SourceError, match="3"):
        find([ilsvrc])


def test_ilsvrc_devkit_id_that_the_table_lacks(ilsvrc: Path) -> None:
    write_kit(ilsvrc, [1, 2, 3, 77])
    with pytest.raises(SourceError, match="77"):
        find([ilsvrc])


def test_ilsvrc_devkit_id_of_a_synset_that_is_no_class(ilsvrc: Path) -> None:
    write_kit(ilsvrc, [1, 2, 3, 1001])
    with pytest.raises(SourceError, match="'n09999999' of the ground truth is not among"):
        find([ilsvrc])


def test_ilsvrc_list_of_mixed_kinds(ilsvrc: Path) -> None:
    caffe_list(ilsvrc, [0, 1, "n03000000", 2])
    with pytest.raises(SourceError, match=r"ground truth|val\.txt"):
        find([ilsvrc])


def test_ilsvrc_list_of_other_files(ilsvrc: Path) -> None:
    """As many lines as pictures, but of other names: pairing them by order would give
    wrong labels without a word.
    """
    (ilsvrc / "val.txt").write_text("".join(f"other_{number}.JPEG {label}\n" for number, label in enumerate(VAL_LABELS)))
    with pytest.raises(SourceError, match=r"other_0|val\.txt"):
        find([ilsvrc])


def test_two_training_tars(ilsvrc: Path) -> None:
    caffe_list(ilsvrc)
    (ilsvrc / "ILSVRC2012_img_train_t3.tar").write_bytes((ilsvrc / "ILSVRC2012_img_train.tar").read_bytes())
    with pytest.raises(SourceError, match="more than one training tar"):
        find([ilsvrc])


# --- WebDataset -----------------------------------------------------------------------------------


def shard(keys: Iterable[int], label: Callable[[int], object] = lambda key: key % 3) -> bytes:
    """KEY.jpg, KEY.cls and a KEY.json that nobody needs."""
    return tarred(
        member
        for key in keys
        for member in (
            (f"{key:05}.jpg", picture(key)),
            (f"{key:05}.cls", f"{label(key)}\n".encode()),
            (f"{key:05}.json", b"{}"),
        )
    )


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for name, keys in (("train-000000", range(6)), ("train-000001", range(6, 12)), ("val-000000", range(100, 103))):
        (tmp_path / f"{name}.tar").write_bytes(shard(keys))
    return tmp_path


def test_webdataset(shards: Path) -> None:
    source = find([shards])
    assert source.kind == "WebDataset shards"
    assert source.classes == ("0", "1", "2")
    assert counts(source) == {"train": 12, "val": 3}
    assert labels(source) == [0, 1, 2] * 4
    assert labels(source, "val") == [1, 2, 0]
    assert source.splits["train"][6].name == "train-000001.tar/00006.jpg"


def test_webdataset_read(shards: Path) -> None:
    source = find([shards])
    assert [read(item) for item in source.splits["train"]] == [picture(key) for key in range(12)]
    assert [read(item) for item in source.splits["val"]] == [picture(key) for key in range(100, 103)]


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "JPEG", "png", "webp"])
def test_webdataset_endings_of_pictures(tmp_path: Path, ending: str) -> None:
    files = [(f"{key}.{name}", str(key).encode()) for key in range(2) for name in (ending, "cls")]
    (tmp_path / "train.tar").write_bytes(tarred(files))
    assert labels(find([tmp_path / "train.tar"])) == [0, 1]


def test_webdataset_with_class_names(shards: Path) -> None:
    (shards / "classnames.txt").write_text("ant\nbee\ngreat grey owl\n\n")
    assert find([shards]).classes == ("ant", "bee", "great grey owl")


def test_webdataset_in_split_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "0000.tar").write_bytes(shard(range(4), lambda key: key % 2))
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    source = find([tmp_path])
    assert counts(source) == {"train": 4, "val": 4}
    assert source.classes == ("ant", "bee")


def test_webdataset_of_one_split(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0000.tar").write_bytes(shard(range(6)))
    assert counts(find([tmp_path / "shards"])) == {"train": 6}


def test_webdataset_with_too_few_class_names(shards: Path) -> None:
    (shards / "classnames.txt").write_text("ant\nbee\n")
    with pytest.raises(SourceError, match=r"classnames\.txt names 2 classes, but a picture has the label 2"):
        find([shards])


def test_webdataset_empty_picture_is_read_as_such(tmp_path: Path) -> None:
    """A member of no bytes is one bad picture, which `prepare` skips; it is no row of an array."""
    files = [("0.jpg", b""), ("0.cls", b"0"), ("1.jpg", b"x"), ("1.cls", b"1")]
    (tmp_path / "train.tar").write_bytes(tarred(files))
    assert read(find([tmp_path / "train.tar"]).splits["train"][0]) == b""


def test_tar_without_labels(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(tarred([("a.jpg", b"x"), ("b.jpg", b"y")]))
    with pytest.raises(SourceError, match=r"a\.jpg has no \.cls file with its class"):
        find([tmp_path / "train.tar"])


def test_tar_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(tarred([("a.txt", b"x"), ("a.cls", b"0")]))
    with pytest.raises(SourceError, match="is not a WebDataset shard: it holds no pictures"):
        find([tmp_path / "train.tar"])


def test_tar_without_files(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(tarred([]))
    with pytest.raises(SourceError, match="holds no files"):
        find([tmp_path / "train.tar"])


@pytest.mark.parametrize("text", ["cat", "--1", "", "1.5", "\u00b2", "9" * 30])
def test_class_that_is_no_number(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.tar").write_bytes(shard(range(2), lambda _: text))
    with pytest.raises(SourceError, match=f"holds '{text[:20]}' instead of a class number"):
        find([tmp_path / "train.tar"])


@pytest.mark.parametrize("name", ["train.tar", "train.tar.gz", "train.tgz"])
def test_compressed_tar(tmp_path: Path, name: str) -> None:
    """Its pictures cannot be reached one by one."""
    (tmp_path / name).write_bytes(tarred([("a.jpg", b"x"), ("a.cls", b"0")], "w:gz"))
    with pytest.raises(
        SourceError, match="is compressed with gzip, so its pictures cannot be reached one by one: unpack it first"
    ):
        find([tmp_path / name])


@pytest.mark.parametrize("damage", [b"", b"no tar at all" * 100], ids=["empty", "text"])
def test_corrupt_tar(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "train.tar").write_bytes(damage)
    with pytest.raises(SourceError, match="is an incomplete or damaged tar .*: download it again"):
        find([tmp_path / "train.tar"])


def test_truncated_tar(tmp_path: Path) -> None:
    """Cut off within the data of a member, as a download that broke off is."""
    data = tarred([(f"{key}.{ending}", b"1" * 2000) for key in range(4) for ending in ("jpg", "cls")])
    (tmp_path / "train.tar").write_bytes(data[:9000])
    with pytest.raises(SourceError, match="is an incomplete or damaged tar .*: download it again"):
        find([tmp_path / "train.tar"])


def test_tar_damaged_in_the_middle(tmp_path: Path) -> None:
    """Python's tarfile stops at a header that it cannot read as if the tar ended there: the rest
    must not vanish silently.
    """
    path = tmp_path / "train.tar"
    path.write_bytes(shard(range(6)))
    with tarfile.open(path) as tar:
        fourth = tar.getmembers()[9].offset  # the first file of a picture: what is left are whole pairs
    data = bytearray(path.read_bytes())
    data[fourth : fourth + 512] = b"\x55" * 512
    path.write_bytes(data)
    with pytest.raises(SourceError, match="is an incomplete or damaged tar .*: download it again"):
        find([path])


# --- parquet --------------------------------------------------------------------------------------


def write_parquet(path: Path, columns: dict[str, list[object]], names: Sequence[str] | None = None, group: int = 3) -> Path:
    """A table in several row groups, with Hugging Face's description of the
    columns if there are names.
    """
    table = pa.table(columns)
    if names is not None:
        label = {"names": list(names), "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": label}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def pictures(numbers: Iterable[int]) -> list[object]:
    return [{"bytes": picture(number), "path": f"{number}.jpg"} for number in numbers]


def columns(numbers: Sequence[int], classes: int = 2) -> dict[str, list[object]]:
    return {"image": pictures(numbers), "label": [number % classes for number in numbers]}


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Two training files of several row groups and one to validate, as the hub lays them out."""
    folder = tmp_path / "data"
    for name, numbers in (
        ("train-00000-of-00002", range(10)),
        ("train-00001-of-00002", range(10, 17)),
        ("validation-00000-of-00001", range(100, 105)),
    ):
        write_parquet(folder / f"{name}.parquet", columns(numbers), ["tench", "English springer"])
    return folder


def test_parquet(parquet: Path) -> None:
    source = find([parquet])
    assert source.kind == "image parquet"
    assert source.classes == ("tench", "English springer")
    assert counts(source) == {"train": 17, "val": 5}
    assert labels(source) == [number % 2 for number in range(17)]
    assert source.splits["train"][10].name == "train-00001-of-00002.parquet[0]"


def test_parquet_read(parquet: Path) -> None:
    """In any order, across files and row groups."""
    source = find([parquet])
    items = [*zip(range(17), source.splits["train"], strict=True), *zip(range(100, 105), source.splits["val"], strict=True)]
    for number, item in [items[place] for place in np.random.default_rng(0).permutation(len(items))]:
        assert read(item) == picture(number)


def test_parquet_of_plain_bytes_and_no_names(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", {"image": [b"one", b"two"], "label": [0, 1]})
    source = find([path])
    assert source.classes == ("0", "1")
    assert [read(item) for item in source.splits["train"]] == [b"one", b"two"]


def test_parquet_row_without_a_picture_is_empty(tmp_path: Path) -> None:
    rows = [{"bytes": None, "path": "gone.jpg"}, {"bytes": b"two", "path": None}]
    path = write_parquet(tmp_path / "train.parquet", {"image": rows, "label": [0, 1]})
    assert read(find([path]).splits["train"][0]) == b""


def test_parquet_in_split_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / "set" / split / "0000.parquet", columns(range(4)))
    assert counts(find([tmp_path / "set"])) == {"train": 4, "test": 4}


def test_parquet_without_pyarrow(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        SourceError, match=r"\.parquet is a parquet file, which needs pyarrow: pip install 'alexnet\[parquet\]'"
    ):
        find([parquet])


def test_the_real_parquet(shared: Path) -> None:
    source = find(sorted((shared / "data").glob("*.parquet")))
    assert counts(source) == {"train": 9469, "val": 3925}
    assert len(source.classes) == 10
    assert source.classes[0] == "tench"
    assert Counter(labels(source)).keys() == set(range(10))
    for split in ("train", "val"):
        data = read(source.splits[split][-1])
        assert isinstance(data, bytes)
        assert Image.open(io.BytesIO(data)).size == (144, 144)


@pytest.mark.parametrize(
    "table",
    [
        {"image": pictures(range(2)), "fine_label": [0, 1]},
        {"img": pictures(range(2)), "label": [0, 1]},
        {"text": ["a", "b"]},
    ],
    ids=["no-label", "no-image", "neither"],
)
def test_parquet_without_the_columns(tmp_path: Path, table: dict[str, list[object]]) -> None:
    with pytest.raises(SourceError, match="is not an image parquet file with columns image and label"):
        find([write_parquet(tmp_path / "train.parquet", table)])


def test_parquet_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match="is not an image parquet"):
        find([tmp_path / "train.parquet"])


@pytest.mark.parametrize("label", [None, -1])
def test_parquet_rows_without_label(tmp_path: Path, label: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    """They cannot be trained on; the others can."""
    path = write_parquet(tmp_path / "train.parquet", {"image": pictures(range(3)), "label": [0, label, 1]})
    assert [item.place for item in find([path]).splits["train"]] == [0, 2]
    assert "Left out: 1 picture in train without a label: train.parquet[1]" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [[-1] * 4, [None] * 4, None], ids=["-1", "none", "no-column"])
def test_parquet_of_an_unlabelled_test_split(
    tmp_path: Path, labels: list[object] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hub's test splits carry -1."""
    write_parquet(tmp_path / "train.parquet", columns(range(4)), ["a", "b"])
    write_parquet(tmp_path / "test.parquet", {"image": pictures(range(4))} | ({"label": labels} if labels else {}))
    table = pq.read_table(tmp_path / "test.parquet")
    if labels == [None] * 4:
        pq.write_table(table.cast(pa.schema([table.schema.field("image"), ("label", pa.int64())])), tmp_path / "test.parquet")
    assert counts(find([tmp_path])) == {"train": 4}
    assert "Left out: 4 pictures in test without a label, such as test.parquet[0]" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [[-1] * 4, [0, 0, 0, 0]], ids=["none", "one-class"])
def test_parquet_that_cannot_be_trained_on(tmp_path: Path, labels: list[object]) -> None:
    with pytest.raises(SourceError, match=r"found no labels in the image parquet|only one class"):
        find([write_parquet(tmp_path / "train.parquet", {"image": pictures(range(4)), "label": labels})])


@pytest.mark.parametrize("label", [2_000_000_000, 10**12])
def test_parquet_label_that_is_no_class_number(tmp_path: Path, label: int) -> None:
    """Names of all classes up to it would take all memory."""
    path = write_parquet(tmp_path / "train.parquet", {"image": pictures(range(4)), "label": [0, 1, label, 2]})
    with pytest.raises(
        SourceError, match=rf"^train\.parquet\[2\] has the label {label:,}, but class numbers may be at most"
    ) as caught:
        find([path])
    assert len(str(caught.value)) < 200


def test_parquet_with_lists_of_pictures(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", {"image": [[b"x"], [b"y"]], "label": [0, 1]})
    with pytest.raises(SourceError, match=r"has an image column of type list.*: expected the bytes of one file in each row"):
        find([path])


@pytest.mark.parametrize("metadata", ["[1, 2]", "{", '{"info": {"features": {"label": {"names": [1, 2]}}}}'])
def test_parquet_with_a_damaged_description(tmp_path: Path, metadata: str) -> None:
    table = pa.table(columns(range(4))).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(SourceError, match=r"damaged description|class names that are not text"):
        find([tmp_path / "train.parquet"])


def test_parquet_that_claims_more_rows_than_it_has_bytes(tmp_path: Path) -> None:
    """A run of equal labels is a few bytes: a table of them would not fit into memory."""
    rows = 1_000_000
    table = pa.table({"image": pa.nulls(rows, pa.binary()), "label": pa.array(np.zeros(rows, np.int8))})
    pq.write_table(table, tmp_path / "train.parquet")
    assert (tmp_path / "train.parquet").stat().st_size < rows / 100
    with pytest.raises(SourceError, match=r"is damaged: 1,000,000 rows in"):
        find([tmp_path / "train.parquet"])


def test_parquet_that_stores_one_picture_for_all_rows(tmp_path: Path) -> None:
    """As plain bytes, the rows of this megabyte are four gigabytes."""
    one = np.random.default_rng(0).bytes(1_000_000)
    image = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array([one], pa.binary()))
    table = pa.table({"image": image, "label": pa.array([row % 2 for row in range(4000)])})
    pq.write_table(table, tmp_path / "train.parquet", store_schema=False)
    items = find([tmp_path / "train.parquet"]).splits["train"]
    assert len(items) == 4000
    assert read(items[3999]) == one
    assert _group(str(tmp_path / "train.parquet"), 0).nbytes < 2_000_000


def test_parquet_with_a_row_group_that_is_too_large(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.data.sources.parquet.MAX_GROUP_BYTES", 20)
    with pytest.raises(
        SourceError, match="row group of [0-9]+ bytes, more than the limit of 20: write it with smaller row groups"
    ):
        find([parquet])


def test_parquet_that_changes_after_it_was_found(tmp_path: Path) -> None:
    """A row that is gone is an unreadable file, not a traceback."""
    source = find([write_parquet(tmp_path / "train.parquet", columns(range(9)))])
    write_parquet(tmp_path / "train.parquet", columns(range(2)))
    with pytest.raises(OSError, match="changed since it was found"):
        read(source.splits["train"][8])


def test_parquet_class_without_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The classes that stay keep their names and are numbered from 0."""
    table = {"image": pictures(range(4)), "label": [0, 3, 0, 3]}
    source = find([write_parquet(tmp_path / "train.parquet", table, ["a", "b", "c", "d"])])
    assert source.classes == ("a", "d")
    assert labels(source) == [0, 1, 0, 1]
    assert "Left out: 2 of 4 classes, which have no training picture ('b', 'c')" in capsys.readouterr().err


def test_parquet_class_that_only_the_test_split_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "train.parquet", {"image": pictures(range(4)), "label": [0, 2, 0, 2]}, ["a", "b", "c"])
    write_parquet(tmp_path / "test.parquet", {"image": pictures(range(3)), "label": [0, 1, 2]}, ["a", "b", "c"])
    source = find([tmp_path])
    assert names(source, "test") == [("test.parquet[0]", "a"), ("test.parquet[2]", "c")]
    assert "Left out: 1 picture in test of a class without training pictures: test.parquet[1]" in capsys.readouterr().err


def test_parquet_with_equal_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ImageNet has two cranes: a bird and a machine."""
    path = write_parquet(tmp_path / "train.parquet", columns(range(6), classes=3), ["crane", "cat", "crane"])
    assert find([path]).classes == ("crane", "cat", "crane (2)")
    assert "Two classes have the name 'crane' (label 0 of" in capsys.readouterr().err


@pytest.mark.parametrize("values", [["cat", "dog"], [0.0, 1.0]], ids=["text", "float"])
def test_parquet_labels_that_are_no_integers(tmp_path: Path, values: list[object]) -> None:
    with pytest.raises(SourceError, match="label"):
        find([write_parquet(tmp_path / "train.parquet", {"image": pictures(range(2)), "label": values})])


def test_parquet_files_of_different_classes(tmp_path: Path) -> None:
    for split, known in (("train", ["a", "b"]), ("validation", ["b", "a"])):
        write_parquet(tmp_path / f"{split}.parquet", columns(range(4)), known)
    with pytest.raises(SourceError, match=r"validation\.parquet has other class names than .*train\.parquet"):
        find([tmp_path])


def test_parquet_label_beyond_its_names(tmp_path: Path) -> None:
    """The names are in the file, so the message must not send the reader to a classnames.txt."""
    path = write_parquet(tmp_path / "train.parquet", columns(range(6), classes=3), ["a", "b"])
    with pytest.raises(SourceError, match=r"2 classes, but a picture has the label 2") as caught:
        find([path])
    assert "classnames.txt" not in str(caught.value)


# --- IDX ------------------------------------------------------------------------------------------


def idx(array: NDArray[np.uint8], kind: int = 8) -> bytes:
    header = bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.tobytes()


PICTURES = np.random.default_rng(5).integers(0, 256, (12, 5, 4), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3


def write_idx(folder: Path, prefix: str = "train", images: bytes = idx(PICTURES), labels: bytes | None = idx(LABELS)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(images)
    if labels is not None:
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
    return folder


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    write_idx(folder)
    return write_idx(folder, "t10k", idx(PICTURES[:4]), idx(LABELS[:4]))


def test_idx(digits: Path) -> None:
    source = find([digits])
    assert source.kind == "IDX files"
    assert source.classes == ("0", "1", "2")
    assert counts(source) == {"train": 12, "test": 4}
    assert labels(source) == LABELS.tolist()
    assert source.splits["test"][3].name == "t10k-images-idx3-ubyte[3]"


def test_gzipped_idx(digits: Path) -> None:
    for file in list(digits.iterdir()):
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    source = find([digits])
    assert counts(source) == {"train": 12, "test": 4}
    assert np.array_equal([read(item) for item in source.splits["train"]], PICTURES)


@pytest.mark.parametrize("zipped", ["images-idx3", "labels-idx1"])
def test_idx_of_which_one_file_is_gzipped(tmp_path: Path, zipped: str) -> None:
    file = write_idx(tmp_path / "digits") / f"train-{zipped}-ubyte"
    file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    assert counts(find([tmp_path / "digits"])) == {"train": 12}


def test_idx_with_class_names(digits: Path) -> None:
    (digits / "classnames.txt").write_text("T-shirt/top\nTrouser\nPullover\n")
    assert find([digits]).classes == ("T-shirt/top", "Trouser", "Pullover")


def test_idx_read(digits: Path) -> None:
    source = find([digits])
    assert np.array_equal([read(item) for item in source.splits["train"]], PICTURES)
    assert np.array_equal([read(item) for item in source.splits["test"]], PICTURES[:4])


def test_idx_files_may_be_named_one_by_one(digits: Path) -> None:
    assert counts(find([digits / "train-images-idx3-ubyte"])) == {"train": 12}


def test_idx_without_labels(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no label file next to it: train-labels-idx1-ubyte is missing"):
        find([write_idx(tmp_path / "digits", labels=None)])


@pytest.mark.parametrize("count", [11, 13])
def test_idx_labels_of_another_length(tmp_path: Path, count: int) -> None:
    with pytest.raises(SourceError, match=f"holds 12 pictures, but its label file has {count}"):
        find([write_idx(tmp_path / "digits", labels=idx(np.resize(LABELS, count)))])


@pytest.mark.parametrize("keep", [6, 16 + 7, -1], ids=["in-header", "in-data", "last-byte"])
def test_idx_cut_short(tmp_path: Path, keep: int) -> None:
    with pytest.raises(SourceError, match=r"cut short|is not an IDX file"):
        find([write_idx(tmp_path / "digits", images=idx(PICTURES)[:keep])])


def test_idx_too_long(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="too long"):
        find([write_idx(tmp_path / "digits", images=idx(PICTURES) + b"\0")])


def test_gzipped_idx_cut_short(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "digits")
    (folder / "train-images-idx3-ubyte").unlink()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PICTURES))[:-20])
    with pytest.raises(SourceError, match="cannot be read"):
        find([folder])


@pytest.mark.parametrize("data", [idx(PICTURES, kind=0x0D), b"\x89PNG\r\n\x1a\n", b""], ids=["floats", "png", "empty"])
def test_idx_with_wrong_magic(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SourceError, match="is not an IDX file of bytes"):
        find([write_idx(tmp_path / "digits", images=data)])


def test_idx_labels_in_the_place_of_pictures(tmp_path: Path) -> None:
    """One dimension where three are due."""
    with pytest.raises(SourceError, match="train-images-idx3-ubyte"):
        find([write_idx(tmp_path / "digits", images=idx(LABELS))])


def test_idx_pictures_in_the_place_of_labels(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="train-labels-idx1-ubyte"):
        find([write_idx(tmp_path / "digits", labels=idx(PICTURES))])


# --- what is no source at all ---------------------------------------------------------------------


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere does not exist"):
        find([tmp_path, tmp_path / "nowhere"])


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is empty: expected one folder per class"):
        find([tmp_path])


def test_folder_of_other_things(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no folders with pictures"):
        find([write(tmp_path, "notes.txt", "table.csv")])


@pytest.mark.parametrize("inside", [".", "train"])
def test_pictures_without_class_folders(tmp_path: Path, inside: str) -> None:
    write(tmp_path, *(f"{inside}/{number}.jpg" for number in range(3)))
    with pytest.raises(
        SourceError, match="holds 3 pictures but no class folders: put the pictures of each class into a folder"
    ):
        find([tmp_path])


def test_one_class_only(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"only one class in .*\('cat'\): a classifier needs at least two"):
        find([write(tmp_path, "cat/1.jpg", "cat/2.jpg")])


def test_class_folder_without_a_picture(tmp_path: Path) -> None:
    (tmp_path / "mole").mkdir()
    with pytest.raises(SourceError, match="no training picture in 1 of 3 classes: 'mole'"):
        find([write(tmp_path, "ant/1.jpg", "bee/1.jpg")])


def test_labels_from_one_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without names, a class keeps its number as its name."""
    (tmp_path / "train.tar").write_bytes(shard(range(4), lambda key: 1 + key % 2))
    source = find([tmp_path / "train.tar"])
    assert source.classes == ("1", "2")
    assert labels(source) == [0, 1, 0, 1]
    assert "Left out: 1 of 3 classes, which have no training picture ('0')" in capsys.readouterr().err


def test_labels_from_one_on_with_as_many_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.tar").write_bytes(shard(range(4), lambda key: 1 + key % 2))
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    source = find([tmp_path / "train.tar"])
    assert names(source)[0] == ("train.tar/00000.jpg", "ant")
    assert source.classes == ("ant", "bee")
    assert "The labels start at 1: the first name in" in capsys.readouterr().err


def test_class_that_is_unknown_in_training(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/stranger/1.jpg")
    with pytest.raises(SourceError, match="stranger is a class without a folder of training pictures"):
        find([tmp_path])


def test_splits_beside_classes(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "cat/1.jpg")
    with pytest.raises(SourceError, match="splits or classes"):
        find([tmp_path])


def test_no_training_split(tmp_path: Path) -> None:
    (tmp_path / "val-000.tar").write_bytes(shard(range(6)))
    with pytest.raises(SourceError, match="found the split val in the .* but no train"):
        find([tmp_path / "val-000.tar"])


def test_no_training_folder(tmp_path: Path) -> None:
    write(tmp_path, "val/a/1.jpg", "val/b/1.jpg")
    with pytest.raises(SourceError, match="no train"):
        find([tmp_path])


def test_files_of_which_some_name_no_split(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(shard(range(6)))
    (tmp_path / "more.tar").write_bytes(shard(range(6)))
    folder = tmp_path.rename(tmp_path.with_name("shards"))
    with pytest.raises(SourceError, match=r"more\.tar has no split in its name while others do"):
        find([folder])


def test_the_folder_above_does_not_make_a_file_a_test_set(tmp_path: Path) -> None:
    """A whole data set that happens to lie in `test-data` or `my_val_set` is no test split."""
    path = write_parquet(tmp_path / "test_data" / "birds.parquet", columns(range(4)))
    assert counts(find([path])) == {"train": 4}


def test_two_folders_of_classes(tmp_path: Path) -> None:
    write(tmp_path, "one/a/1.jpg", "two/b/1.jpg")
    with pytest.raises(SourceError, match="name a single folder"):
        find([tmp_path / "one", tmp_path / "two"])


@pytest.mark.parametrize(
    ("extra", "kinds"), [("parquet", "parquet and tar"), ("idx", "tar and idx"), ("folder", "tar and folder")]
)
def test_several_kinds_at_once(tmp_path: Path, extra: str, kinds: str) -> None:
    (tmp_path / "train.tar").write_bytes(shard(range(6)))
    match extra:
        case "parquet":
            write_parquet(tmp_path / "train.parquet", columns(range(4)))
        case "idx":
            write_idx(tmp_path)
        case _:
            write(tmp_path, "cat/1.jpg")
    with pytest.raises(SourceError, match=f"holds several kinds of sources, {kinds}"):
        find([tmp_path])


def test_split_words_are_whole_words() -> None:
    """`valley` is no `val`, `contest` no `test`."""
    known = {
        "train-00001-of-2.parquet": "train",
        "TRAIN": "train",
        "my.validation.tar": "val",
        "t10k-images": "test",
        "training-0.tar": "train",
        "testing-0.tar": "test",
        "holdout.parquet": "test",
        "hold_out.parquet": "test",
        "set.hold-out": "test",
        "dev-00000-of-00001.parquet": "val",
        "eval": "test",
        "train2017.tar": "train",
        "TrainImages.tar": "train",
    }
    unknown = ("valley", "contest-1", "trainspotting", "attesting", "", "train-test", "ILSVRC2012_devkit", "threshold_outer")
    assert {name: split_of(name) for name in known} == known
    assert not any(split_of(name) for name in unknown)


# --- splits by other names, and by hand -----------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test", "split"),
    [
        ("Training", "Testing", "test"),
        ("training_set", "test_set", "test"),
        ("seg_train", "seg_test", "test"),
        ("train_images", "test_images", "test"),
        ("train", "holdout", "test"),
        ("train", "hold_out", "test"),
        ("TrainSet", "ValSet", "val"),
        ("train", "dev", "val"),
        ("train", "eval", "test"),
        ("train2017", "val2017", "val"),
    ],
)
def test_split_folders_of_other_names(tmp_path: Path, train: str, test: str, split: str) -> None:
    """Two classes called Training and Testing are nobody's data set."""
    write(tmp_path, *(f"{part}/{name}/{part}.jpg" for part in (train, test) for name in "abc"))
    source = find([tmp_path])
    assert source.classes == ("a", "b", "c")
    assert counts(source) == {"train": 3, split: 3}
    assert {item.name.split("/")[0] for item in source.splits["train"]} == {train}


def test_split_folders_that_an_archive_has_doubled(tmp_path: Path) -> None:
    write(tmp_path, *(f"seg_{part}/seg_{part}/{name}/1.jpg" for part in ("train", "test") for name in "ab"))
    assert names(find([tmp_path]), "test") == [("seg_test/seg_test/a/1.jpg", "a"), ("seg_test/seg_test/b/1.jpg", "b")]


@pytest.mark.parametrize(("train", "test"), [("training", "testing"), ("training", "holdout"), ("train", "eval")])
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_split_files_of_other_names(tmp_path: Path, train: str, test: str, kind: str) -> None:
    for name in (train, test):
        if kind == "tar":
            (tmp_path / f"{name}-0.tar").write_bytes(shard(range(6)))
        else:
            write_parquet(tmp_path / f"{name}-0.parquet", columns(range(6)))
    assert counts(find([tmp_path])) == {"train": 6, "test": 6}


def test_folders_that_are_all_alike_are_a_question(tmp_path: Path) -> None:
    """Both answers are printed as commands, and both work."""
    root = tmp_path / "my scans"
    write(root, *(f"{part}/{name}/{part}.jpg" for part in "AB" for name in ("cat", "dog")))
    with pytest.raises(SourceError, match="holds the same folders \\('cat', 'dog'\\): are these splits or classes") as caught:
        find([root])
    commands = [shlex.split(line) for line in re.findall(r"alexnet prepare (.*?)STORE", str(caught.value))]
    assert commands == [["--train", f"{root}/A", "--test", f"{root}/B"], ["--train", str(root)]]
    assert counts(find(train=root / "A", test=root / "B")) == {"train": 2, "test": 2}
    classes = find(train=root)
    assert classes.classes == ("A", "B")
    assert counts(classes) == {"train": 4}


def test_splits_inside_the_classes_are_named(tmp_path: Path) -> None:
    """cat/train, dog/train ...: to take cat for training and dog for testing would be wrong
    advice.
    """
    root = write(tmp_path, *(f"{name}/{part}/{part}.jpg" for name in ("cat", "dog") for part in ("train", "test")))
    with pytest.raises(SourceError) as caught:
        find([root])
    assert f"has its own test and train, but the splits must hold the classes: move {root}/cat/test to {root}/test/cat" in str(
        caught.value
    )
    assert "--test" not in str(caught.value)
    assert counts(find(train=root)) == {"train": 4}


def test_the_one_folder_next_to_train_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, "train_set/a/1.jpg", "train_set/b/1.jpg", "unseen/a/1.jpg", "unseen/b/1.jpg")
    with pytest.raises(SourceError, match=re.escape(f"--train {root}/train_set --test {root}/unseen STORE")):
        find([root])
    (root / "unseen").rename(root / "held-out")
    assert counts(find([root])) == {"train": 2, "test": 2}


def test_classes_with_folders_of_one_name_are_classes(tmp_path: Path) -> None:
    """One folder each cannot be the classes of a split; nor are folders beside pictures."""
    write(tmp_path / "one", "cat/images/1.jpg", "dog/images/2.jpg")
    assert find([tmp_path / "one"]).classes == ("cat", "dog")
    write(tmp_path / "two", *(f"{name}/{view}/1.jpg" for name in ("cat", "dog") for view in ("left", "right")), "cat/0.jpg")
    assert find([tmp_path / "two"]).classes == ("cat", "dog")


@pytest.mark.parametrize(
    "layout",
    [("train/a/1.jpg", "cat/1.jpg"), ("dev/a/1.jpg", "test/a/1.jpg"), ("val/a/1.jpg", "validation/a/1.jpg", "train/a/1.jpg")],
)
def test_unclear_splits_print_both_commands(tmp_path: Path, layout: tuple[str, ...]) -> None:
    with pytest.raises(
        SourceError, match=r"If they are splits: alexnet prepare --train .*If they are classes: alexnet prepare"
    ):
        find([write(tmp_path, *layout)])


def test_folders_without_pictures_beside_splits_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "annotations/1.xml")
    assert counts(find([tmp_path])) == {"train": 2, "test": 1}
    assert "Left out: 1 folder without pictures next to the splits" in capsys.readouterr().err


def test_a_class_called_train_is_settled_by_hand(tmp_path: Path) -> None:
    root = write(tmp_path, "train/1.jpg", "bus/1.jpg", "tram/1.jpg")
    with pytest.raises(SourceError, match="splits or classes"):
        find([root])
    assert find(train=root).classes == ("bus", "train", "tram")


@pytest.mark.parametrize("kind", ["tar", "parquet", "idx"])
def test_parts_by_hand_of_files(tmp_path: Path, kind: str) -> None:
    for name in ("first", "second"):
        match kind:
            case "tar":
                (tmp_path / f"{name}.tar").write_bytes(shard(range(6)))
            case "parquet":
                write_parquet(tmp_path / f"{name}.parquet", columns(range(6)))
            case _:
                write_idx(tmp_path, name)
    ending = "-images-idx3-ubyte" if kind == "idx" else f".{kind}"
    source = find(train=tmp_path / f"first{ending}", test=tmp_path / f"second{ending}")
    assert list(source.splits) == ["train", "test"]
    assert all("first" in item.path for item in source.splits["train"])
    assert all("second" in item.path for item in source.splits["test"])


def test_parts_by_hand_that_cannot_be(tmp_path: Path) -> None:
    write(tmp_path, "a/x/1.jpg", "a/y/1.jpg")
    (tmp_path / "b.tar").write_bytes(shard(range(6)))
    for options, reason in (
        ({"test": tmp_path / "a"}, "name the training split too"),
        ({"train": tmp_path / "a", "paths": [tmp_path]}, "not both"),
        ({"train": tmp_path / "a", "test": tmp_path / "a"}, "must be tested on pictures that it has not seen"),
        ({"train": tmp_path / "a", "test": tmp_path / "b.tar"}, "both splits must be of the same kind"),
        ({"train": tmp_path / "nowhere"}, "nowhere does not exist"),
        ({"train": tmp_path / "a", "image": "png"}, "--image applies to WebDataset shards only"),
    ):
        with pytest.raises(SourceError, match=reason):
            find(**options)  # type: ignore[arg-type]


def test_a_file_named_twice_counts_once(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "birds.parquet", columns(range(4)))
    (tmp_path / "link.parquet").symlink_to(path)
    assert counts(find([path, path, tmp_path / "link.parquet"])) == {"train": 4}


# --- a repository around the data -----------------------------------------------------------------


def test_parquet_in_the_data_folder_of_a_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "data" / "train-00000.parquet", columns(range(4)))
    (tmp_path / "README.md").write_text("# Birds")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "make.py").write_text("")
    assert counts(find([tmp_path])) == {"train": 4}
    assert f"Using {tmp_path / 'data'}, leaving out scripts next to it." in capsys.readouterr().err


def test_folders_in_the_data_folder_of_a_repository(tmp_path: Path) -> None:
    write(tmp_path, *(f"data/{part}/{name}/1.jpg" for part in ("train", "test") for name in "ab"))
    assert counts(find([tmp_path])) == {"train": 2, "test": 2}


def test_an_archives_outermost_folder(tmp_path: Path) -> None:
    write(tmp_path, *(f"Brain Scans/{part}/{name}/1.jpg" for part in ("Training", "Testing") for name in "ab"))
    assert counts(find([tmp_path])) == {"train": 2, "test": 2}


def test_a_class_called_data_stays_one(tmp_path: Path) -> None:
    assert find([write(tmp_path, "data/1.jpg", "noise/1.jpg")]).classes == ("data", "noise")


# --- class names of folders -----------------------------------------------------------------------

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_composed_and_decomposed_letters_are_one_class(tmp_path: Path) -> None:
    """Written on a Mac and on another system."""
    write(tmp_path, f"train/{COMPOSED}/1.jpg", "train/dog/1.jpg", f"val/{DECOMPOSED}/2.jpg")
    source = find([tmp_path])
    assert source.classes == (COMPOSED, "dog")
    assert labels(source, "val") == [0]


def test_two_spellings_in_one_split_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = find([write(tmp_path, f"{COMPOSED}/1.jpg", f"{DECOMPOSED}/2.jpg", "dog/3.jpg")])
    assert source.classes == (COMPOSED, "dog")
    assert Counter(labels(source)) == {0: 2, 1: 1}
    assert "in two Unicode spellings: they are treated as one class" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_folder_names_that_are_not_utf8_stay_apart(tmp_path: Path) -> None:
    r"""Bytes from old archives; a folder that is called caf\xe9 in so many
    letters is a third class.
    """
    for name in (b"caf\xe9", b"caf\xe8", rb"caf\xe9"):
        write(tmp_path / os.fsdecode(name), "1.jpg")
    source = find([tmp_path])
    assert sorted(source.classes) == [r"caf\xe8", r"caf\xe9", r"caf\xe9 (2)"]
    assert sorted(labels(source)) == [0, 1, 2]
    json.dumps(source.classes).encode()  # what a manifest and a terminal need
    "".join(source.classes).encode()


# --- links and thumbnails in class folders --------------------------------------------------------


def test_thumbnails_of_a_nas_are_no_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = find([write(tmp_path, "cat/1.jpg", "cat/@eaDir/1.jpg/SYNOFILE_THUMB_S.jpg", "dog/1.jpg", "#recycle/2.jpg")])
    assert names(source) == [("cat/1.jpg", "cat"), ("dog/1.jpg", "dog")]
    assert "Left out: 2 folders of thumbnails or deleted files that a system made" in capsys.readouterr().err


def test_link_loops_label_no_picture_of_another_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "loop").symlink_to(".")
    assert names(find([tmp_path])) == [("a/1.jpg", "a"), ("b/2.jpg", "b")]
    assert "Left out: 2 links to folders that are already included" in capsys.readouterr().err


def test_pictures_that_are_pipes_do_not_hang(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither when they are found nor when they become pipes afterwards."""
    write(tmp_path, "cat/1.jpg", "dog/2.jpg")
    os.mkfifo(tmp_path / "cat/p.jpg")
    source = find([tmp_path])
    assert counts(source) == {"train": 2}
    assert "Left out: 1 pipe, socket or device" in capsys.readouterr().err
    (tmp_path / "cat/1.jpg").unlink()
    os.mkfifo(tmp_path / "cat/1.jpg")
    with pytest.raises(OSError, match="not a regular file"):
        read(source.splits["train"][0])


@pytest.mark.parametrize("kind", ["tar", "parquet", "idx"])
def test_sources_that_become_pipes_do_not_hang(tmp_path: Path, kind: str) -> None:
    """Whether they are pipes at the start or after they were found."""
    path = tmp_path / {"tar": "train.tar", "parquet": "train.parquet", "idx": "train-images-idx3-ubyte"}[kind]
    match kind:
        case "tar":
            path.write_bytes(shard(range(6)))
        case "parquet":
            write_parquet(path, columns(range(6)))
        case _:
            write_idx(tmp_path)
    item = find([path]).splits["train"][0]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SourceError, match="not a regular file"):
        find([path])
    if kind != "idx":  # whose array is in memory by then
        with pytest.raises(OSError, match="not a regular file"):
            read(item)


def test_a_file_is_looked_at_before_it_is_read(tmp_path: Path) -> None:
    """A video of 60 GB among photos, and something that only begins like a
    picture. Neither takes memory.
    """
    write(tmp_path, "cat/1.jpg", "dog/2.jpg")
    with open(tmp_path / "cat/m.mp4", "wb") as file:
        file.truncate(60 * 2**30)
    with open(tmp_path / "cat/z.jpg", "wb") as file:
        file.write(picture("z"))
        file.truncate(60 * 2**30)
    items = {Path(item.path).name: item for item in find([tmp_path]).splits["train"]}
    with pytest.raises(Unreadable, match="not an image in a known format"):
        read(items["m.mp4"])
    with pytest.raises(Unreadable, match="64,424,509,440 bytes, more than the limit of 1,073,741,824"):
        read(items["z.jpg"])
    assert read(items["1.jpg"]) == picture("cat/1.jpg")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_that_is_decoded_begins_like_a_picture(format: str) -> None:
    file = io.BytesIO()
    try:
        Image.new("RGB", (8, 8)).save(file, format)
    except KeyError:
        pytest.skip(f"this Pillow does not write {format}")
    assert starts_like_a_picture(file.getvalue()[:HEAD_BYTES])


@pytest.mark.parametrize("brand", sorted(AVIF_BRANDS | HEIF_BRANDS))
def test_every_brand_that_is_decoded_begins_like_a_picture(brand: bytes) -> None:
    assert starts_like_a_picture(b"\0\0\0\x18ftyp" + brand)


# --- more shards ----------------------------------------------------------------------------------


def write_shard(path: Path, files: Files) -> Path:
    path.write_bytes(tarred(files))
    return path


def masked(first: str = "jpg", second: str = "png") -> Files:
    return [
        (f"{key}.{ending}", str(key % 2).encode() if ending == "cls" else picture(f"{ending} {key}"))
        for key in range(4)
        for ending in (second, "cls", first)
    ]


@pytest.mark.parametrize("order", [("jpg", "png"), ("png", "jpg"), ("jpeg", "tif"), ("jpg", "seg.png"), ("webp", "seg.jpg")])
def test_of_several_pictures_of_a_key_the_photo_is_taken(
    tmp_path: Path, order: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Masks are PNGs, whatever their place in the tar."""
    path = write_shard(tmp_path / "train.tar", masked(*order))
    source = find([path])
    photo = next(ending for ending in order if ending in ("jpg", "jpeg", "webp"))
    mask = next(ending for ending in order if ending != photo)
    assert [read(item) for item in source.splits["train"]] == [picture(f"{photo} {key}") for key in range(4)]
    assert labels(source) == [0, 1, 0, 1]
    assert (
        f"4 keys have several pictures: using .{photo}, leaving out .{mask}. To use .{mask}, add --image {mask}"
        in capsys.readouterr().err
    )
    chosen = find([path], image=mask)
    assert [read(item) for item in chosen.splits["train"]] == [picture(f"{mask} {key}") for key in range(4)]
    assert "several pictures" not in capsys.readouterr().err


def test_image_that_no_key_has(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'0' has no picture \.webp: --image can be jpg or png"):
        find([write_shard(tmp_path / "train.tar", masked())], image=".webp")


def test_keys_that_restart_lose_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards joined into one: the same keys again, with other pictures and classes."""
    files = [
        (f"{key}.{ending}", picture(f"{part} {key}") if ending == "jpg" else str((key + part) % 3).encode())
        for part in range(2)
        for key in range(3)
        for ending in ("jpg", "cls")
    ]
    source = find([write_shard(tmp_path / "train.tar", files)])
    assert sorted(read(item) for item in source.splits["train"]) == sorted(data for name, data in files if "jpg" in name)
    assert all(
        read(item) == picture(f"{part} {key}") and item.label == (key + part) % 3
        for item, (key, part) in zip(source.splits["train"], [(k, p) for k in range(3) for p in range(2)], strict=True)
    )
    assert len({item.name for item in source.splits["train"]}) == 6
    assert "3 keys occur more than once" in capsys.readouterr().err


def test_keys_that_restart_without_their_classes(tmp_path: Path) -> None:
    files = [("0.jpg", picture(0)), ("0.cls", b"0"), ("1.jpg", picture(1)), ("1.cls", b"1"), ("0.jpg", picture(2))]
    with pytest.raises(SourceError, match="the key '0' occurs 2 times as a picture and 1 times as .cls"):
        find([write_shard(tmp_path / "train.tar", files)])


@pytest.mark.parametrize("where", ["at a member's end", "between the blocks of zeros"])
def test_tar_cut_at_a_members_end(tmp_path: Path, where: str) -> None:
    """Half of a download ends like a whole tar but for the blocks of zeros;
    of those, one is enough.
    """
    data = shard(range(6))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        whole = tar.offset
    path = tmp_path / "train.tar"
    if where == "at a member's end":
        for end in (members[9].offset, whole):
            path.write_bytes(data[:end])
            with pytest.raises(SourceError, match="the two blocks of zeros at its end are missing.*download"):
                find([path])
    else:
        path.write_bytes(data[: whole + 512])
        assert counts(find([path])) == {"train": 6}


def test_shards_of_an_unlabelled_test_split(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(shards / "test-0.tar", [("a.jpg", picture(0)), ("b.jpg", picture(1)), ("b.cls", b"-1")])
    assert counts(find([shards])) == {"train": 12, "val": 3}
    assert "Left out: 2 pictures in test without a label" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2000000000", "9999999999999999999"])
def test_label_of_a_shard_that_is_no_class_number(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.tar").write_bytes(shard(range(3), lambda key: text if key == 1 else key))
    with pytest.raises(SourceError, match=r"^train\.tar/00001\.jpg has the label [0-9,]+, but class numbers may be at most"):
        find([tmp_path / "train.tar"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_class_numbers_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    files = [member for key in range(2) for member in ((f"{key}.jpg", picture(key)), (f"{key}.cls", str(key).encode(encoding)))]
    assert labels(find([write_shard(tmp_path / "train.tar", files)])) == [0, 1]


def test_a_macs_shadow_files_in_a_shard_are_passed_over(tmp_path: Path) -> None:
    files = [
        file
        for key in range(2)
        for file in ((f"._{key}.jpg", b"x"), (f"{key}.jpg", picture(key)), (f"{key}.cls", str(key).encode()))
    ]
    assert counts(find([write_shard(tmp_path / "train.tar", files)])) == {"train": 2}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_class_names_in_any_encoding(shards: Path, encoding: str) -> None:
    (shards / "classnames.txt").write_bytes("café\nbee\ncafé\n".encode(encoding))
    assert find([shards]).classes == ("café", "bee", "café (2)")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_ilsvrc_ground_truth_in_any_encoding(ilsvrc: Path, encoding: str) -> None:
    caffe_list(ilsvrc)
    (ilsvrc / "val.txt").write_bytes((ilsvrc / "val.txt").read_text().replace("\n", "\r\n").encode(encoding))
    assert labels(find([ilsvrc]), "val") == VAL_LABELS


# --- more IDX -------------------------------------------------------------------------------------


def test_idx_compressed_beside_unpacked_counts_once(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in list(digits.iterdir()):
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
    source = find([digits])
    assert counts(source) == {"train": 12, "test": 4}
    assert not any(item.path.endswith(".gz") for items in source.splits.values() for item in items)
    assert "Left out: 2 compressed files next to the same file unpacked" in capsys.readouterr().err


@pytest.mark.parametrize("others", [("emnist-letters", "emnist-digits"), ("emnist-letters", "")])
def test_several_idx_sets_in_one_folder(tmp_path: Path, others: tuple[str, str]) -> None:
    """EMNIST's six lie in one folder; the message says how to choose, and that works."""
    for prefix in others:
        for split in ("train", "test"):
            write_idx(tmp_path / "sets", f"{prefix}-{split}" if prefix else split)
    with pytest.raises(SourceError, match=r"holds 2 data sets \(.*emnist-letters\): name the picture files of one") as caught:
        find([tmp_path / "sets"])
    pattern = re.findall(r"alexnet prepare (.*) STORE", str(caught.value))[0]
    assert counts(find(sorted(Path("/").glob(pattern.lstrip("/"))))) == {"test": 12, "train": 12}


def test_idx_labels_from_one_on(tmp_path: Path) -> None:
    """EMNIST's letters."""
    assert find([write_idx(tmp_path / "letters", labels=idx(LABELS + 1))]).classes == ("1", "2", "3")


def test_idx_that_claims_more_than_it_has(tmp_path: Path) -> None:
    """No memory is taken for what a header claims."""
    header = bytes([0, 0, 8, 3]) + np.array([2**31 - 1, 2**15, 2**15], ">u4").tobytes()
    with pytest.raises(SourceError, match="cut short"):
        find([write_idx(tmp_path / "plain", images=header)])
    write_idx(tmp_path / "packed")
    (tmp_path / "packed/train-images-idx3-ubyte").unlink()
    (tmp_path / "packed/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header))
    with pytest.raises(
        SourceError, match=r"too large to read compressed \([0-9,]+ bytes unpacked\): unpack it with gunzip first"
    ):
        find([tmp_path / "packed"])


def test_idx_pictures_without_pixels(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds empty pictures"):
        find([write_idx(tmp_path / "digits", images=idx(np.zeros((12, 0, 4), np.uint8)))])


# --- the inputs that went wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "classes", "expected"),
    [
        ("01-equal-names", ("missile", "cat", "missile (2)", "dog"), {"test": 8, "train": 12}),
        ("03-webdataset/training-testing-names", None, {"test": 6, "train": 12}),
        ("03-webdataset/keys-restart", None, {"train": 12}),
        ("03-webdataset/one-based", ("1", "2", "3"), {"train": 12}),
        ("04-classnames-latin1", ("café", "hund", "katze"), None),
        ("04-classnames-bom", ("café", "hund", "katze"), None),
        ("05-idx/letters", tuple(map(str, range(1, 27))), None),
        ("05-idx/gz-and-unpacked", None, None),
        ("07-parquet/neverclass.parquet", ("a", "b", "c"), {"train": 12}),
        ("10-synology", ("cat", "dog"), {"train": 10}),
    ],
)
def test_cases(shared: Path, case: str, classes: tuple[str, ...] | None, expected: dict[str, int] | None) -> None:
    source = find([shared / "cases" / case])
    assert classes is None or source.classes == classes
    assert expected is None or counts(source) == expected
    seen = [(item.path.removesuffix(".gz"), item.place) for items in source.splits.values() for item in items]
    assert len(seen) == len(set(seen)), "each picture once"


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("03-webdataset/cut-at-a-member", "the two blocks of zeros at its end are missing"),
        ("03-webdataset/huge-label", "but class numbers may be at most"),
        ("07-parquet/bigid.parquet", "but class numbers may be at most"),
        ("07-parquet/listimage.parquet", "has an image column of type list"),
    ],
)
def test_cases_that_are_refused(shared: Path, case: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason) as caught:
        find([shared / "cases" / case])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_case_mask(shared: Path) -> None:
    source = find([shared / "cases/03-webdataset/mask"])
    assert all(item.name.endswith(".jpg") for item in source.splits["train"])


def test_case_repository(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(shared / "cases/07-parquet/repo.parquet", tmp_path / "data")
    assert find([tmp_path]).classes == ("tench", "goldfish", "shark")


@pytest.mark.parametrize(
    ("archive", "folder", "classes", "expected"),
    [
        ("01-latin1-folders", "photos", {r"caf\xe8", r"caf\xe9"}, None),
        ("02-training-testing", "scans", {"glioma", "meningioma", "notumor"}, {"train": 18, "test": 9}),
    ],
)
def test_cases_in_archives(
    shared: Path, tmp_path: Path, archive: str, folder: str, classes: set[str], expected: dict[str, int] | None
) -> None:
    with tarfile.open(shared / f"cases/{archive}.tar.gz", errors="surrogateescape") as tar:
        tar.extractall(tmp_path, filter="data")
    source = find([tmp_path / folder])
    assert classes <= set(source.classes)
    assert len(set(source.classes)) == len(source.classes)
    assert expected is None or counts(source) == expected
