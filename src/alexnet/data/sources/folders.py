"""A folder for each class."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from alexnet.console import say
from alexnet.data.sources.source import IMAGE_ENDINGS, TRAIN, Item, Source, list_of, nothing_found, visible, whole_split_name
from alexnet.data.sources.walk import walk
from alexnet.errors import SourceError


def folders(paths: Sequence[Path]) -> Source:
    if len(paths) > 1:
        raise SourceError(f"{list_of(paths)}: name one folder; it may hold train/ and val/.")
    root = paths[0]
    folders = [entry for entry in visible(root) if entry.is_dir()]
    split_folders: dict[str, Path] = {}
    for folder in folders:
        if split := whole_split_name(folder.name):
            if split in split_folders:
                raise SourceError(f"{split_folders[split]} and {folder} are both {split}: keep one of them.")
            split_folders[split] = folder
    if not split_folders:
        split_folders = {TRAIN: root}
    elif TRAIN not in split_folders:
        raise SourceError(f"{root} holds {', '.join(split_folders)} but no {TRAIN} folder.")
    elif others := [folder.name for folder in folders if not whole_split_name(folder.name)]:
        raise SourceError(f"{root} holds {', '.join(split_folders)} beside {', '.join(others[:3])}: splits or classes?")
    root_of_classes = split_folders.get(TRAIN, root)
    names = [entry.name for entry in visible(root_of_classes) if entry.is_dir()]
    if not names:
        raise SourceError(nothing_found([root_of_classes], visible(root_of_classes)))
    labels = {name: label for label, name in enumerate(names)}
    classes = tuple(os.fsencode(name).decode(errors="replace") for name in names)  # a name that is no UTF-8 cannot be printed
    splits = {split: list(_folder_items(folder, root, labels)) for split, folder in split_folders.items()}
    return Source("folder", classes, splits)


def _folder_items(folder: Path, root: Path, labels: dict[str, int]) -> Iterator[Item]:
    loose = sum(entry.suffix.lower() in IMAGE_ENDINGS for entry in visible(folder) if not entry.is_dir())
    if loose:
        say(f"Left out, since they lie beside the class folders of {folder} and not in one: {loose} files.")
    for entry in visible(folder):
        if not entry.is_dir():
            continue
        if entry.name not in labels:
            raise SourceError(f"{entry} is a class that has no folder beside the training pictures.")
        for file in sorted(walk(entry)):
            yield Item(str(file.relative_to(root)), labels[entry.name], str(file))
