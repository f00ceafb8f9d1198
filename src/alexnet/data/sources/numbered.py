"""Class names for sources with numbered classes: shards, parquet, IDX."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from alexnet.data.sources.source import CLASS_NAMES_FILE, TRAIN, UNLABELLED, Item, Source
from alexnet.data.sources.walk import LeftOut
from alexnet.errors import SourceError
from alexnet.phrases import quoted
from alexnet.text import read_names

#: The highest label that is taken for the number of a class; the largest data sets have 200,000.
MAX_LABEL = 999_999


def class_names(*folders: Path) -> tuple[str, ...]:
    """The lines of `classnames.txt`, in label order, of the first folder that has one."""
    for folder in folders:
        if (folder / CLASS_NAMES_FILE).exists():
            return read_names(folder / CLASS_NAMES_FILE, SourceError)
    return ()


def numbered(
    kind: str, splits: Mapping[str, list[Item]], names: Sequence[str], left_out: LeftOut, where: str = CLASS_NAMES_FILE
) -> Source:
    """The source of items with numbered classes; what cannot be used is left out and reported.

    Left out are pictures without a label, classes that no training picture belongs to, and test
    pictures of those. The classes that stay are numbered from 0.

    Args:
        kind: the kind of source in words.
        splits: items whose label is the source's own number, or `UNLABELLED`.
        names: class names in label order, from 0 or from 1 on; the numbers are the names if empty.
        left_out: takes the notes.
        where: what gave the names, for messages.

    Raises:
        SourceError: a label is too high to be the number of a class.
    """
    splits = {split: _labelled(split, items, left_out) for split, items in splits.items()}
    highest = max((item for items in splits.values() for item in items), key=lambda item: item.label, default=None)
    if highest is None:
        raise SourceError(f"found no labels in the {kind}: a classifier needs a class for each picture.")
    if highest.label > MAX_LABEL:
        raise SourceError(
            f"{highest.name} has the label {highest.label:,}, but class numbers may be at most "
            f"{MAX_LABEL:,}: number the classes 0, 1, 2 ..."
        )
    named = _named(Counter(item.label for items in splits.values() for item in items), names, where, left_out)
    trained = {item.label for item in splits.get(TRAIN, ())}
    if TRAIN in splits:  # without it, the source is refused for that
        _note_unused([name for label, name in named.items() if label not in trained], len(named), left_out)
        splits = {split: _trained(split, items, trained, left_out) for split, items in splits.items()}
        named = {label: name for label, name in named.items() if label in trained}
    places = {label: place for place, label in enumerate(named)}
    if any(label != place for label, place in places.items()):
        splits = {split: [item._replace(label=places[item.label]) for item in items] for split, items in splits.items()}
    return Source(kind, tuple(named.values()), dict(splits))


def _named(labels: Counter[int], names: Sequence[str], where: str, left_out: LeftOut) -> dict[int, str]:
    """The name of each label in order; without names, of each label up to the highest."""
    highest = max(labels)
    if not names:
        return {label: str(label) for label in range(highest + 1)}
    if highest == len(names) and 0 not in labels:
        left_out.note(f"The labels start at 1: the first name in {where}, {names[0]!r}, belongs to label 1.")
        return dict(enumerate(names, 1))
    if highest >= len(names):
        raise SourceError(f"{where} names {len(names)} classes, but a picture has the label {highest}: add the missing names.")
    return dict(enumerate(names))


def _labelled(split: str, items: list[Item], left_out: LeftOut) -> list[Item]:
    labelled = [item for item in items if item.label != UNLABELLED]
    if missing := len(items) - len(labelled):
        example = next(item.name for item in items if item.label == UNLABELLED)
        left_out.add(f"picture{{s}} in {split} without a label", example, missing)
    return labelled


def _note_unused(unused: list[str], of: int, left_out: LeftOut) -> None:
    if unused:
        left_out.note(f"Left out: {len(unused):,} of {of:,} classes, which have no training picture ({quoted(unused, 3)}).")


def _trained(split: str, items: list[Item], trained: set[int], left_out: LeftOut) -> list[Item]:
    known = [item for item in items if item.label in trained]
    if missing := len(items) - len(known):
        example = next(item.name for item in items if item.label not in trained)
        left_out.add(f"picture{{s}} in {split} of a class without training pictures", example, missing)
    return known
