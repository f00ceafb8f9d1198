"""Sources with one folder per class."""

import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from alexnet.data.sources.source import IMAGE_ENDINGS, TRAIN, Item, Source
from alexnet.data.sources.walk import LeftOut, files_in, folders_in, walk
from alexnet.errors import SourceError
from alexnet.phrases import counted
from alexnet.text import unique_names


def folders(splits: Mapping[str, Path], base: Path | None, left_out: LeftOut) -> Source:
    """The source of folders that hold a folder for each class.

    Args:
        splits: the folder of each split.
        base: what the names of items are relative to; each split's parent if None.
        left_out: counts what is passed over.

    Raises:
        SourceError: no class folders were found, or a split has a class that `train` lacks.
    """
    inside = {split: _by_class(folders_in(folder, left_out, splits.values()), left_out) for split, folder in splits.items()}
    train = inside[TRAIN]
    if not train:
        raise SourceError(nothing_found(splits[TRAIN]))
    places = [str(members[0]) for members in train.values()]
    classes = unique_names([class_name(members[0].name) for members in train.values()], places)
    labels = {key: label for label, key in enumerate(train)}
    items: dict[str, list[Item]] = {}
    for split, folder in splits.items():
        _count_loose(folder, left_out)
        if strangers := [members[0] for key, members in inside[split].items() if key not in labels]:
            raise SourceError(
                f"{strangers[0]} is a class without a folder of training pictures in "
                f"{splits[TRAIN]}: add training pictures, or move it away."
            )
        items[split] = [
            Item(name, labels[key], file)
            for key, members in inside[split].items()
            for member in members
            for name, file in _files(member, base or folder.parent, splits, left_out)
        ]
    return Source("folder", classes, items)


def nothing_found(folder: Path) -> str:
    """Why a folder without folders cannot be used."""
    files = files_in(folder)
    if pictures := sum(file.suffix.lower() in IMAGE_ENDINGS for file in files):
        return (
            f"{folder} holds {counted(pictures, 'picture')} but no class folders: put the pictures of each "
            f"class into a folder of its own, such as {folder}/cat and {folder}/dog, or name a table of their classes with "
            "--labels."
        )
    what = "holds no folders with pictures and no tar, parquet or IDX files" if files else "is empty"
    return f"{folder} {what}: expected one folder per class (`alexnet prepare --help` lists other sources)."


def class_name(folder: str) -> str:
    """The class name of a folder: composed letters (NFC), and a byte that is not UTF-8 as
    `\\xe9`.
    """
    return unicodedata.normalize("NFC", os.fsencode(folder).decode("utf-8", "backslashreplace"))


def _by_class(folders: list[Path], left_out: LeftOut) -> dict[str | bytes, list[Path]]:
    """Folders by their class, in the order of names.

    Systems write é in two ways, composed (NFC) and decomposed (NFD): both are one class. A name
    that is not UTF-8 is its bytes.
    """
    classes: dict[str | bytes, list[Path]] = {}
    for folder in folders:
        raw = os.fsencode(folder.name)
        try:
            key: str | bytes = unicodedata.normalize("NFC", raw.decode())
        except UnicodeDecodeError:
            key = raw
        classes.setdefault(key, []).append(folder)
    for key, members in classes.items():
        if len(members) > 1:
            left_out.note(
                f"{', '.join(map(str, members))} have the same name ({key!r}) in two Unicode "
                "spellings: they are treated as one class."
            )
    return dict(sorted(classes.items(), key=lambda entry: os.fsdecode(entry[0])))


def _files(folder: Path, base: Path, splits: Mapping[str, Path], left_out: LeftOut) -> Iterator[tuple[str, str]]:
    """(name relative to `base`, path) of each file below a class folder."""
    name, length = os.path.relpath(folder, base), len(str(folder))
    for file in walk(folder, left_out, source=splits.values()):
        yield name + file[length:], file


def _count_loose(folder: Path, left_out: LeftOut) -> None:
    """Count the pictures next to the class folders, which belong to no class."""
    for file in files_in(folder):
        if file.suffix.lower() in IMAGE_ENDINGS:
            left_out.add("picture{s} next to the class folders, not in one", str(file))
