"""What a source is, and what all kinds of sources share: the names of splits and classes."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from alexnet.errors import SourceError

TRAIN = "train"
#: Names of the other split, and what we call it.
HELD_OUT = {"val": "val", "valid": "val", "validation": "val", "test": "test", "t10k": "test"}
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif")
CLASS_NAMES_FILE = "classnames.txt"


class Item(NamedTuple):
    """One picture: its name for people, its class, and where its bytes are.

    Attributes:
        kind: a file of its own, a span of a tar, a row of a parquet file, or a row of an IDX array.
        place: first byte of a span, or number of a row.
        length: bytes of a span.
    """

    name: str
    label: int
    path: str
    kind: Literal["file", "span", "parquet", "idx"] = "file"
    place: int = 0
    length: int = 0


@dataclass(frozen=True)
class Source:
    """Everything to prepare: the kind in words, class names in label order, items by split."""

    kind: str
    classes: tuple[str, ...]
    splits: dict[str, list[Item]]


def visible(folder: Path) -> list[Path]:
    """A folder's entries in order, without the hidden files that systems leave behind."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name != "Thumbs.db")


def split_of(name: str) -> str | None:
    """The split that a file or folder name speaks of: a whole word of it is train, val, validation or test."""
    for word in re.split(r"[^a-z0-9]+", name.lower()):
        if word == TRAIN:
            return TRAIN
        if word in HELD_OUT:
            return HELD_OUT[word]
    return None


def whole_split_name(name: str) -> str | None:
    """As `_split_of`, for a folder, which must be called so and no more: a class may be `test tube`."""
    return split_of(name) if name.lower() in {TRAIN, *HELD_OUT} else None


def list_of(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in paths)


def nothing_found(paths: Sequence[Path], files: Sequence[Path]) -> str:
    pictures = sum(file.suffix.lower() in IMAGE_ENDINGS for file in files)
    if pictures:
        return (
            f"{list_of(paths)} holds {pictures} pictures but no folders: put the pictures of each class into a folder of "
            f"its own, such as {paths[0]}/cat and {paths[0]}/dog."
        )
    what = "is empty" if not files else "holds no pictures in folders, no tars, no parquet and no IDX files"
    return f"{list_of(paths)} {what}: expected a folder per class (or see `alexnet prepare --help`)."


def by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Group files by the split in their own or their folder's name; all under `train` if none speaks of one."""
    named = {file: split_of(file.name) or whole_split_name(file.parent.name) for file in files}
    if not any(named.values()):
        return {TRAIN: list(files)}
    unknown = [file for file, split in named.items() if split is None]
    if unknown:
        raise SourceError(f"{list_of(unknown)} names no split while others do: put train, val or test into its name.")
    groups: dict[str, list[Path]] = {}
    for file, split in named.items():
        groups.setdefault(split or TRAIN, []).append(file)
    return groups


def class_names(folder: Path) -> list[str]:
    """The lines of `classnames.txt`, in label order, if the folder has one."""
    file = folder / CLASS_NAMES_FILE
    return [line.strip() for line in file.read_text().splitlines() if line.strip()] if file.is_file() else []


def numbered(splits: dict[str, list[Item]], names: Sequence[str], where: str = CLASS_NAMES_FILE) -> tuple[str, ...]:
    """Class names of a source that has numbers only."""
    highest = max((item.label for items in splits.values() for item in items), default=-1)
    if names and len(names) <= highest:
        raise SourceError(f"{where} names {len(names)} classes, but there is a label {highest}.")
    return tuple(names) or tuple(str(label) for label in range(highest + 1))
