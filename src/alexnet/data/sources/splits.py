"""Recognise training and test splits by the names of files and folders."""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from alexnet.data.sources.source import IMAGE_ENDINGS, TRAIN, list_of
from alexnet.data.sources.walk import LeftOut, files_in, folders_in, walk
from alexnet.errors import SourceError
from alexnet.phrases import quoted

#: Words that name a split, and what we call it.
WORDS = {
    **dict.fromkeys(("train", "training", "trainset"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "valset", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "eval", "evaluation", "holdout", "heldout", "t10k"), "test"),
}
#: Words that a split's folder may have in its name as well; with any other it is a
#: class, such as "test tube".
FILLERS = {"set", "data", "dataset", "images", "image", "imgs", "img", "photos", "pictures", "seg", "split", "folder"}


def split_of(name: str) -> str | None:
    """The split in a file's name: a whole word of it is train, testing, val ..., and no other word
    disagrees.
    """
    splits = {WORDS[word] for word in _words(name) if word in WORDS}
    return splits.pop() if len(splits) == 1 else None


def folder_split(name: str) -> str | None:
    """As `split_of` for a folder, whose name must hold no other word: `seg_train` is a split, `test
    tube` a class.
    """
    return split_of(name) if all(word in WORDS or word in FILLERS for word in _words(name)) else None


def _bare_split(name: str) -> str | None:
    """The split of a folder whose whole name is a split's."""
    return WORDS.get(name.lower())


def _words(name: str) -> list[str]:
    """The words of a name, in lower case; years do not count, as in COCO's train2017."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()  # TrainImages
    name = re.sub(r"(?<=[a-z])(19|20)\d\d(?!\d)", "", name)
    name = re.sub(r"\bh[oe]ld[^a-z0-9]out\b|(?<=_)h[oe]ld_out(?![a-z0-9])", "holdout", name)
    return [word for word in re.split(r"[^a-z0-9]+", name) if word]


def by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Group files by the split in their own or their folder's name; all under `train` if no name
    has one.

    Raises:
        SourceError: some files name a split and others do not.
    """
    # One folder of shards may be called test_data and hold all of them; of several, each is a part.
    of_folder = folder_split if len({file.parent for file in files}) > 1 else _bare_split
    named = {file: split_of(file.name) or of_folder(file.parent.name) for file in files}
    if not any(named.values()):
        return {TRAIN: list(files)}
    unknown = [file for file, split in named.items() if split is None]
    if unknown:
        raise SourceError(
            f"{list_of(unknown[:5])}{' ...' if len(unknown) > 5 else ''} has no split in its name "
            "while others do: put train, val or test into its name, or name the splits with "
            "--train PATH --test PATH."
        )
    groups: dict[str, list[Path]] = {}
    for file, split in named.items():
        groups.setdefault(split or TRAIN, []).append(file)
    return groups


def split_folders(root: Path, folders: Sequence[Path], left_out: LeftOut) -> dict[str, Path]:
    """The folder of each split; {train: root} where `folders` are classes.

    Args:
        root: the source.
        folders: the folders in it.
        left_out: counts folders without pictures beside the splits.

    Raises:
        SourceError: it is unclear which are splits and which classes; the
            message has both commands.
    """
    named: dict[str, Path] = {}
    for folder in folders:
        if split := folder_split(folder.name):
            if split in named:
                raise SourceError(
                    f"{named[split]} and {folder} both look like the split {split}: keep one of them.{_commands(root, folders)}"
                )
            named[split] = folder
    if not named:
        _refuse_alike(root, folders)
        return {TRAIN: root}
    if TRAIN not in named:
        raise SourceError(f"{root} holds {_names(named.values())} but no {TRAIN} folder.{_commands(root, folders)}")
    for other in [folder for folder in folders if folder not in named.values()]:
        if holds_picture(other):
            raise SourceError(
                f"{root} holds {_names(named.values())} next to {other.name!r}: are these "
                f"splits or classes?{_commands(root, folders if len(folders) == 2 else list(named.values()))}"
            )
        left_out.add("folder{s} without pictures next to the splits", str(other))
    return named


def holds_picture(folder: Path) -> bool:
    """Whether any file below a folder is named like a picture."""
    return any(file.lower().endswith(IMAGE_ENDINGS) for file in walk(folder, LeftOut()))


def _names(folders: Iterable[Path]) -> str:
    return quoted((folder.name for folder in folders), 3)


def _refuse_alike(root: Path, folders: Sequence[Path]) -> None:
    """Folders that all hold the same folders may be splits of other names,
    or classes that are alike."""
    if len(folders) < 2:
        return
    inside = None
    for folder in folders:
        names = [entry.name for entry in folders_in(folder, LeftOut())]
        if len(names) < 2 or (inside is not None and names != inside) or has_pictures(folder):
            return
        inside = names
    assert inside
    if all(map(folder_split, inside)):
        raise SourceError(
            f"each folder in {root} ({_names(folders)}) has its own "
            f"{' and '.join(inside)}, but the splits must hold the classes: move {folders[0] / inside[0]} to "
            f"{root / inside[0] / folders[0].name}, and so on. To ignore the splits and hold out other pictures: "
            f"alexnet prepare --train {shlex.quote(str(root))} STORE"
        )
    raise SourceError(
        f"each folder in {root} ({_names(folders)}) holds the same folders ({quoted(inside, 3)}): are these splits or "
        f"classes?{_commands(root, folders)}"
    )


def has_pictures(folder: Path) -> bool:
    """Whether any file directly in a folder is named like a picture."""
    return any(file.suffix.lower() in IMAGE_ENDINGS for file in files_in(folder))


def _commands(root: Path, folders: Sequence[Path]) -> str:
    """Both answers to the question whether folders are splits or classes, as commands."""
    train = next((folder for folder in folders if folder_split(folder.name) == TRAIN), folders[0])
    test = next((folder for folder in folders if folder_split(folder.name) not in (TRAIN, None)), None)
    test = test or next((folder for folder in folders if folder != train), None)
    if test == train or test is None:
        test = Path("FOLDER")
    command = "alexnet prepare --train"
    return (
        f" If they are splits: {command} {shlex.quote(str(train))} --test {shlex.quote(str(test))} STORE. "
        f"If they are classes: {command} {shlex.quote(str(root))} STORE"
    )
