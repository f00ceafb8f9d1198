"""Where photos come from: folders, tars, parquet, IDX.

`find` looks at what it is given and returns a `Source`: class names, and for each split a list of `Item`s. An item says where
its bytes are (a file, a span of a tar, a row of a parquet file, a row of an IDX array), so that any process can read any item
without the others: `prepare` decodes on all cores and resumes in the middle.

| source | recognised by | splits | classes |
|---|---|---|---|
| a folder per class | folders of files | `train` and `val` (`validation`, `test`) folders, or none | folder names, sorted |
| ILSVRC2012 as downloaded | a tar of tars | the tars | WordNet ids, sorted |
| WebDataset shards | tars of `KEY.jpg`, `KEY.cls` | `train`, `val` in the names | numbers, or `classnames.txt` |
| image parquet (Hugging Face) | `.parquet` | `train`, `validation` in the names | the schema's names |
| IDX (the MNIST family) | `*-images-idx3-ubyte[.gz]` | `train-`, `t10k-` | numbers, or `classnames.txt` |
"""

import gzip
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet.console import say
from alexnet.errors import SourceError

TRAIN = "train"
#: Names of the other split, and what we call it.
HELD_OUT = {"val": "val", "valid": "val", "validation": "val", "test": "test", "t10k": "test"}
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif")
CLASS_NAMES_FILE = "classnames.txt"


class Item(NamedTuple):
    """One picture: its name for people, its class, and where its bytes are."""

    name: str
    label: int
    path: str
    offset: int = -1  # byte in a tar, row in a parquet file or an IDX array; -1 for a file of its own
    length: int = -1  # bytes in a tar; -1 elsewhere


@dataclass(frozen=True)
class Source:
    """Everything to prepare: the kind in words, class names in label order, items by split."""

    kind: str
    classes: tuple[str, ...]
    splits: dict[str, list[Item]]


def find(paths: Sequence[Path]) -> Source:
    """Recognise what `paths` hold.

    Raises:
        SourceError: nothing there, nothing known, or several kinds at once.
    """
    for path in paths:
        if not path.exists():
            raise SourceError(f"{path} does not exist.")
    files = [entry for path in paths for entry in (_visible(path) if path.is_dir() else [path])]
    kinds = {
        "parquet": [f for f in files if f.suffix == ".parquet" and f.is_file()],
        "tar": [f for f in files if f.name.endswith((".tar", ".tar.gz", ".tgz")) and "devkit" not in f.name],
        "idx": [f for f in files if re.search(r"images[-.]idx3-ubyte(\.gz)?$", f.name)],
        "folder": [f for f in files if f.is_dir() and "devkit" not in f.name] if all(path.is_dir() for path in paths) else [],
    }
    if not any(kinds["parquet"] + kinds["tar"] + kinds["idx"]) and kinds["folder"]:
        kinds |= _shards_in_splits(kinds["folder"])
    found = [kind for kind in kinds if kinds[kind]]
    if not found:
        raise SourceError(_nothing_found(paths, files))
    if len(found) > 1:
        raise SourceError(f"{_list(paths)} holds {' and '.join(found)} sources at once: name the files of one of them.")
    match found[0]:
        case "parquet":
            source = _parquet(kinds["parquet"])
        case "tar":
            source = _tars(kinds["tar"], paths)
        case "idx":
            source = _idx(kinds["idx"])
        case _:
            source = _folders(paths)
    return _check(source)


def check_share(share: float) -> None:
    """Refuse a share that leaves nothing to train on or nothing to test on."""
    if not 0 < share < 1:
        raise SourceError(f"hold_out (={share}) must be above 0, as there must be something to test on, and below 1.")


def hold_out(source: Source, share: float, seed: int) -> Source:
    """Split a source that has only one split: `share` of each class, drawn by `seed`, becomes `val`."""
    check_share(share)
    (items,) = source.splits.values()
    by_class: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        by_class.setdefault(item.label, []).append(index)
    held: set[int] = set()
    for label in sorted(by_class):
        members = by_class[label]
        count = min(max(1, round(len(members) * share)), len(members) - 1)
        held.update(Random(f"{seed}/{label}").sample(members, count))
    train = [item for index, item in enumerate(items) if index not in held]
    val = [item for index, item in enumerate(items) if index in held]
    if not val:
        raise SourceError("every class has a single picture: nothing can be held out for testing. Add pictures.")
    return replace(source, splits={TRAIN: train, "val": val})


def read(item: Item) -> bytes | NDArray[np.uint8]:
    """The bytes of an item's file, or its grey levels (H, W) where the source is an array."""
    if item.offset < 0:
        return Path(item.path).read_bytes()
    if item.path.endswith(".parquet"):
        return _parquet_row(item.path, item.offset)
    if item.length < 0:
        return _idx_array(item.path, 3)[item.offset]
    with open(item.path, "rb") as file:
        file.seek(item.offset)
        return file.read(item.length)


# --- shared -----------------------------------------------------------------------------------------------------------


def _visible(folder: Path) -> list[Path]:
    """A folder's entries in order, without the hidden files that systems leave behind."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name != "Thumbs.db")


def _split_of(name: str) -> str | None:
    """The split that a file or folder name speaks of: a whole word of it is train, val, validation or test."""
    for word in re.split(r"[^a-z0-9]+", name.lower()):
        if word == TRAIN:
            return TRAIN
        if word in HELD_OUT:
            return HELD_OUT[word]
    return None


def _list(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in paths)


def _nothing_found(paths: Sequence[Path], files: Sequence[Path]) -> str:
    pictures = sum(file.suffix.lower() in IMAGE_ENDINGS for file in files)
    if pictures:
        return (
            f"{_list(paths)} holds {pictures} pictures but no folders: put the pictures of each class into a folder of "
            f"its own, such as {paths[0]}/cat and {paths[0]}/dog."
        )
    what = "is empty" if not files else "holds no pictures in folders, no tars, no parquet and no IDX files"
    return f"{_list(paths)} {what}: expected a folder per class (or see `alexnet prepare --help`)."


def _by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Group files by the split in their own or their folder's name; all under `train` if none speaks of one."""
    named = {file: _split_of(file.name) or _whole_split_name(file.parent.name) for file in files}
    if not any(named.values()):
        return {TRAIN: list(files)}
    unknown = [file for file, split in named.items() if split is None]
    if unknown:
        raise SourceError(f"{_list(unknown)} names no split while others do: put train, val or test into its name.")
    groups: dict[str, list[Path]] = {}
    for file, split in named.items():
        groups.setdefault(split or TRAIN, []).append(file)
    return groups


def _shards_in_splits(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Tars and parquet files that lie in folders `train`, `val` ... instead of side by side."""
    inside = [file for folder in folders if _whole_split_name(folder.name) for file in _visible(folder)]
    tars = [file for file in inside if file.suffix == ".tar"]
    parquet = [file for file in inside if file.suffix == ".parquet"]
    # A folder train/ of class tars is no shard list: their members are pictures without labels, told apart in `_tars`.
    return {"tar": tars, "parquet": parquet, "folder": []} if tars or parquet else {}


def _check(source: Source) -> Source:
    """Refuse what cannot be trained on: no train split, one class, a class without a picture."""
    splits = {name: items for name, items in source.splits.items() if items}
    if not splits:
        raise SourceError(f"the {source.kind} holds no pictures.")
    if TRAIN not in splits:
        raise SourceError(f"the {source.kind} has a split {', '.join(splits)} but no {TRAIN}: name the training part too.")
    if len(source.classes) < 2:
        raise SourceError(
            f"the {source.kind} has one class only ({', '.join(source.classes)}): a classifier needs at least two."
        )
    present = {item.label for item in splits[TRAIN]}
    missing = [name for label, name in enumerate(source.classes) if label not in present]
    if missing:
        raise SourceError(
            f"no picture to train on in {len(missing)} of {len(source.classes)} classes: "
            f"{', '.join(map(repr, missing[:5]))}{' ...' if len(missing) > 5 else ''}. Add pictures or remove the class."
        )
    return replace(source, splits=splits)


# --- a folder per class -----------------------------------------------------------------------------------------------


def _folders(paths: Sequence[Path]) -> Source:
    if len(paths) > 1:
        raise SourceError(f"{_list(paths)}: name one folder; it may hold train/ and val/.")
    root = paths[0]
    folders = [entry for entry in _visible(root) if entry.is_dir()]
    split_folders: dict[str, Path] = {}
    for folder in folders:
        if split := _whole_split_name(folder.name):
            if split in split_folders:
                raise SourceError(f"{split_folders[split]} and {folder} are both {split}: keep one of them.")
            split_folders[split] = folder
    if not split_folders:
        split_folders = {TRAIN: root}
    elif TRAIN not in split_folders:
        raise SourceError(f"{root} holds {', '.join(split_folders)} but no {TRAIN} folder.")
    elif others := [folder.name for folder in folders if not _whole_split_name(folder.name)]:
        raise SourceError(f"{root} holds {', '.join(split_folders)} beside {', '.join(others[:3])}: splits or classes?")
    root_of_classes = split_folders.get(TRAIN, root)
    names = [entry.name for entry in _visible(root_of_classes) if entry.is_dir()]
    if not names:
        raise SourceError(_nothing_found([root_of_classes], _visible(root_of_classes)))
    labels = {name: label for label, name in enumerate(names)}
    classes = tuple(os.fsencode(name).decode(errors="replace") for name in names)  # a name that is no UTF-8 cannot be printed
    splits = {split: list(_folder_items(folder, root, labels)) for split, folder in split_folders.items()}
    return Source("folder", classes, splits)


def _whole_split_name(name: str) -> str | None:
    """As `_split_of`, for a folder, which must be called so and no more: a class may be `test tube`."""
    return _split_of(name) if name.lower() in {TRAIN, *HELD_OUT} else None


def _folder_items(folder: Path, root: Path, labels: dict[str, int]) -> Iterator[Item]:
    loose = sum(entry.suffix.lower() in IMAGE_ENDINGS for entry in _visible(folder) if not entry.is_dir())
    if loose:
        say(f"Left out, since they lie beside the class folders of {folder} and not in one: {loose} files.")
    for entry in _visible(folder):
        if not entry.is_dir():
            continue
        if entry.name not in labels:
            raise SourceError(f"{entry} is a class that has no folder beside the training pictures.")
        for file in sorted(_walk(entry)):
            yield Item(str(file.relative_to(root)), labels[entry.name], str(file))


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files below a folder; a link that leads back up is not followed."""
    above = (*above, folder.resolve())
    for entry in _visible(folder):
        if not entry.is_dir():
            yield entry
        elif entry.resolve() not in above:
            yield from _walk(entry, above)


# --- tars ---------------------------------------------------------------------------------------------------------------


def _members(path: Path, offset: int = 0, length: int | None = None) -> list[tarfile.TarInfo]:
    """The files of an uncompressed tar, or of one that is a member of another; offsets count from the outer start."""
    try:
        with open(path, "rb") as file:
            inner = _Span(file, offset, length if length is not None else path.stat().st_size)
            with tarfile.open(fileobj=inner, mode="r:") as tar:
                members = [member for member in tar if member.isfile()]
                # tarfile takes a header that it cannot read for the end.
                inner.seek(tar.offset)
                if inner.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError(f"damaged at byte {offset + tar.offset}")
    except tarfile.ReadError as error:
        raise SourceError(
            f"{path} is no uncompressed tar ({error}): unpack a compressed one first, download a damaged one again."
        ) from error
    for member in members:
        member.offset_data += offset
    return members


class _Span(io.RawIOBase):
    """Part of an open file as a file: a tar within a tar is read in place."""

    def __init__(self, file: Any, offset: int, length: int) -> None:
        self.file, self.offset, self.length, self.position = file, offset, length, 0

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence]
        self.position = base + position
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.length - self.position)
        self.file.seek(self.offset + self.position)
        data: bytes = self.file.read(left if size < 0 else min(size, left))
        self.position += len(data)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _tars(tars: Sequence[Path], paths: Sequence[Path]) -> Source:
    contents = {path: _members(path) for path in tars}
    empty = [path for path, members in contents.items() if not members]
    if empty:
        raise SourceError(f"{_list(empty)} holds no files.")
    if any(members[0].name.endswith(".tar") for members in contents.values()):
        return _ilsvrc(contents, paths)
    return _webdataset(contents)


def _ilsvrc(contents: dict[Path, list[tarfile.TarInfo]], paths: Sequence[Path]) -> Source:
    """ILSVRC2012: a training tar of one tar a class, and a validation tar whose labels are in a list beside it."""
    nested = [path for path, members in contents.items() if members[0].name.endswith(".tar")]
    if len(nested) > 1:
        raise SourceError(f"{_list(nested)}: more than one tar of tars; name one training tar.")
    classes = tuple(sorted(Path(member.name).stem for member in contents[nested[0]]))
    labels = {name: label for label, name in enumerate(classes)}
    train = [
        Item(picture.name, labels[Path(member.name).stem], str(nested[0]), picture.offset_data, picture.size)
        for member in sorted(contents[nested[0]], key=lambda member: member.name)
        for picture in _members(nested[0], member.offset_data, member.size)
    ]
    splits = {TRAIN: train}
    for path in contents:
        if path not in nested and _split_of(path.stem) != "test":  # the test tar's labels were never published
            pictures = sorted(contents[path], key=lambda member: member.name)
            truth = _ground_truth(path, paths, labels, [Path(picture.name).name for picture in pictures])
            if len(truth) != len(pictures):
                raise SourceError(f"{path} holds {len(pictures)} pictures, its ground truth {len(truth)} labels.")
            splits["val"] = [
                Item(picture.name, label, str(path), picture.offset_data, picture.size)
                for picture, label in zip(pictures, truth, strict=True)
            ]
    return Source("ILSVRC2012 tars", classes, splits)


def _ground_truth(tar: Path, paths: Sequence[Path], labels: dict[str, int], pictures: Sequence[str]) -> list[int]:
    """Labels of the validation pictures in the order of their names.

    Three lists are in use: the kit's (one devkit id a line, which needs the kit's table of ids), Caffe's `val.txt`
    ("NAME index" with indices of sorted WordNet ids) and "NAME wordnet-id".
    """
    beside = [entry for path in (*paths, tar.parent) for entry in (_visible(path) if path.is_dir() else [path])]
    kits = [entry for entry in beside if "devkit" in entry.name]
    texts = [entry for entry in beside if entry.suffix == ".txt" and entry.name != CLASS_NAMES_FILE]
    truth = [text for text in texts if "ground_truth" in text.name or _split_of(text.stem) == "val"]
    if truth:
        lines = truth[0].read_text().split("\n")
    elif kits:
        lines = _from_kit(kits[0], "ILSVRC2012_validation_ground_truth.txt").decode().split("\n")
    else:
        raise SourceError(
            f"{tar} holds pictures without labels: put ILSVRC2012_devkit_t12.tar.gz, or a val.txt with a line "
            "'NAME label' for each picture, beside it."
        )
    words = [line.split() for line in lines if line.strip()]
    if words and all(len(line) == 2 for line in words):
        by_name = {Path(name).name: label for name, label in words}
        missing = [name for name in pictures if name not in by_name]
        if len(by_name) == len(pictures) and missing:
            raise SourceError(f"{truth[0]} has no label for {missing[0]}: it lists other files, such as {words[0][0]}.")
        values = [label for _, label in sorted(by_name.items())]
        if not all(value.isdigit() for value in values):
            return [labels[_known(value, labels, tar)] for value in values]
        if beyond := [value for value in values if int(value) >= len(labels)]:
            raise SourceError(f"{truth[0]} has a label {beyond[0]}: {len(labels)} classes are counted from 0.")
        return [int(value) for value in values]
    if not kits:
        raise SourceError(
            f"{truth[0]} counts classes by the kit's ids: put ILSVRC2012_devkit_t12.tar.gz beside it, whose table says "
            "which WordNet id each one is."
        )
    synsets = _kit_synsets(kits[0])
    return [labels[_known(synsets.get(line[0], line[0]), labels, tar)] for line in words]


def _known(name: str, labels: dict[str, int], tar: Path) -> str:
    if name not in labels:
        raise SourceError(f"{tar}: class {name!r} of the ground truth is not among the training tar's classes.")
    return name


def _from_kit(kit: Path, name: str) -> bytes:
    if kit.is_dir():
        for file in _walk(kit):
            if file.name == name:
                return file.read_bytes()
    else:
        try:
            with tarfile.open(kit, "r:*") as tar:
                for member in tar:
                    if Path(member.name).name == name and (found := tar.extractfile(member)):
                        return found.read()
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise SourceError(f"{kit} cannot be read ({error}): download it again.") from error
    raise SourceError(f"{kit} holds no {name}: it should be the kit of ILSVRC2012, task 1 and 2.")


def _kit_synsets(kit: Path) -> dict[str, str]:
    """Devkit id -> WordNet id, from the kit's meta.mat."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise SourceError("reading the kit's meta.mat needs SciPy: pip install 'alexnet[ilsvrc]'.") from None
    table = loadmat(io.BytesIO(_from_kit(kit, "meta.mat")), squeeze_me=True)["synsets"]
    return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in table}


def _webdataset(contents: dict[Path, list[tarfile.TarInfo]]) -> Source:
    """Shards of KEY.jpg and KEY.cls pairs; the class is a number."""
    splits: dict[str, list[Item]] = {}
    names: list[str] = []
    for split, shards in _by_split(list(contents)).items():
        for shard in shards:
            pictures, labels = _pairs(shard, contents[shard])
            splits.setdefault(split, []).extend(
                Item(f"{shard.name}/{member.name}", labels[key], str(shard), member.offset_data, member.size)
                for key, member in pictures.items()
            )
            names = names or _class_names(shard.parent) or _class_names(shard.parent.parent)
    return Source("WebDataset shards", _numbered(splits, names), splits)


def _pairs(shard: Path, members: Sequence[tarfile.TarInfo]) -> tuple[dict[str, tarfile.TarInfo], dict[str, int]]:
    pictures: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    with open(shard, "rb") as file:
        for member in members:
            key, _, ending = member.name.rpartition(".")
            if f".{ending.lower()}" in IMAGE_ENDINGS:
                pictures[key] = member
            elif ending == "cls":
                file.seek(member.offset_data)
                text = file.read(member.size).decode(errors="replace").strip()
                if not text.isdigit():
                    raise SourceError(f"{shard}: {member.name} holds {text[:20]!r} instead of a class number.")
                labels[key] = int(text)
    if not pictures or (missing := [key for key in pictures if key not in labels]):
        what = f"{missing[0]!r} has no .cls with its class" if pictures else "no pictures"
        raise SourceError(f"{shard} is no WebDataset shard: {what}.")
    return pictures, labels


def _class_names(folder: Path) -> list[str]:
    """The lines of `classnames.txt`, in label order, if the folder has one."""
    file = folder / CLASS_NAMES_FILE
    return [line.strip() for line in file.read_text().splitlines() if line.strip()] if file.is_file() else []


def _numbered(splits: dict[str, list[Item]], names: Sequence[str], where: str = CLASS_NAMES_FILE) -> tuple[str, ...]:
    """Class names of a source that has numbers only."""
    highest = max((item.label for items in splits.values() for item in items), default=-1)
    if names and len(names) <= highest:
        raise SourceError(f"{where} names {len(names)} classes, but there is a label {highest}.")
    return tuple(names) or tuple(str(label) for label in range(highest + 1))


# --- parquet ------------------------------------------------------------------------------------------------------------


def _parquet(files: Sequence[Path]) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    classes: tuple[str, ...] = ()
    splits: dict[str, list[Item]] = {}
    for split, members in _by_split(files).items():
        for path in members:
            try:
                schema = pq.read_schema(path)
                schema.field("image")
                if not pa.types.is_integer(schema.field("label").type):
                    raise SourceError(f"{path} has labels of type {schema.field('label').type}: expected integers.")
                table = pq.read_table(path, columns=["label"])
            except (pa.ArrowInvalid, OSError, KeyError) as error:
                raise SourceError(f"{path} is no image parquet with columns image and label: {error}") from error
            names = _parquet_names(schema.metadata)
            if classes and names != classes:
                raise SourceError(f"{path} names other classes than the files before it.")
            classes = names
            labels = table["label"].to_pylist()
            if any(label is None or label < 0 for label in labels):
                raise SourceError(f"{path} has rows without a label.")
            splits.setdefault(split, []).extend(
                Item(f"{path.name}[{row}]", label, str(path), row) for row, label in enumerate(labels)
            )
    return Source("image parquet", _numbered(splits, classes, f"the schema of {files[0]}"), splits)


def _parquet_names(metadata: dict[bytes, bytes] | None) -> tuple[str, ...]:
    """The names of a Hugging Face ClassLabel, from the schema's metadata."""
    info = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    label = info.get("info", {}).get("features", {}).get("label", {})
    return tuple(label.get("names", ()))


@lru_cache(maxsize=1)
def _parquet_file(path: str) -> tuple[Any, list[int]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    starts = [0]
    for group in range(file.num_row_groups):
        starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
    return file, starts


@lru_cache(maxsize=1)
def _parquet_group(path: str, group: int) -> Any:
    return _parquet_file(path)[0].read_row_group(group, columns=["image"])["image"]


def _parquet_row(path: str, row: int) -> bytes:
    _, starts = _parquet_file(path)
    group = next(g for g in range(len(starts) - 1) if row < starts[g + 1])
    image = _parquet_group(path, group)[row - starts[group]].as_py()
    data = image["bytes"] if isinstance(image, dict) else image
    return bytes(data or b"")


# --- IDX ----------------------------------------------------------------------------------------------------------------


def _idx(images: Sequence[Path]) -> Source:
    splits: dict[str, list[Item]] = {}
    for split, members in _by_split(images).items():
        for path in members:
            labels = _idx_array(str(_idx_labels(path)), 1)
            count = len(_idx_array(str(path), 3))
            if len(labels) != count:
                raise SourceError(f"{path} holds {count} pictures, its label file {len(labels)}.")
            splits.setdefault(split, []).extend(
                Item(f"{path.name}[{row}]", int(label), str(path), row) for row, label in enumerate(labels)
            )
    return Source("IDX files", _numbered(splits, _class_names(images[0].parent)), splits)


def _idx_labels(images: Path) -> Path:
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    for candidate in (images.with_name(name), images.with_name(name.removesuffix(".gz")), images.with_name(name + ".gz")):
        if candidate.is_file():
            return candidate
    raise SourceError(f"{images} has no labels beside it: {name} is missing.")


@lru_cache(maxsize=2)
def _idx_array(path: str, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of bytes: magic 0x0000 08 ndim, big-endian sizes, data."""
    try:
        data = Path(path).read_bytes()
        data = gzip.decompress(data) if path.endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < 4 + 4 * dimensions:
        raise SourceError(f"{path} is no IDX file of bytes in {dimensions} dimensions.")
    shape = tuple(int(side) for side in np.frombuffer(data, ">i4", dimensions, 4))
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    if body.size != np.prod(shape):
        raise SourceError(f"{path} is cut short or too long: {body.size} bytes for an array of shape {shape}.")
    return body.reshape(shape)
