"""Move near-duplicates to one side of a store's split.

`prepare` draws the held-out photos by the files' content, before anything is known of what is in
them. `regrouped` writes the store anew with each group of near-duplicates where the draw has put
one of its photos, the one whose record has the smallest hash. That choice does not look at
the split, so a group is held out as often as a photo is, and nothing is lost: a photo changes
sides, or stays.

A class must keep photos on both sides. Where its groups leave it none on one side, its smallest
group goes there; a class that is one group is left as it was drawn.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.console import say
from alexnet.data.image import MAX_PIXELS
from alexnet.data.sources import TRAIN, Item, Source
from alexnet.data.sources.source import blocks
from alexnet.data.statistics import Sums
from alexnet.data.store import BLOCK, Store, sha256
from alexnet.data.writer import Encoded, Writer
from alexnet.errors import FULL_DISK, StoreError
from alexnet.phrases import counted, quoted


@dataclass(frozen=True)
class Photos:
    """All photos of a store with two splits, first those to train on.

    Attributes:
        labels: (N,).
        held: (N,) whether each is held out.
        keys: SHA-256 of each record.
    """

    labels: NDArray[np.int64]
    held: NDArray[np.bool_]
    keys: tuple[str, ...]

    @classmethod
    def of(cls, store: Store) -> "Photos":
        """Of a store's two splits."""
        splits = store.train, store.held_out
        held = np.repeat([False, True], [len(split) for split in splits])
        keys = tuple(sha256(record) for split in splits for record in split.records)
        return cls(np.concatenate([split.labels for split in splits]).astype(np.int64), held, keys)


def regrouped(store: Store, group: NDArray[np.int64]) -> Store:
    """The store with near-duplicates on one side, and a line on how many there are.

    Args:
        store: with the splits train and val. It is replaced, whole or not at all.
        group: (N,) number of each photo's group, first of those to train on.

    Returns:
        The new store; the same one if no group is on both sides.

    Raises:
        StoreError: it cannot be written.
    """
    photos = Photos.of(store)
    held, single = sides(photos, group)
    say(_found(photos, group, held))
    if single:
        say(
            f"All photos of {quoted(store.classes[label] for label in single)} are near-duplicates of each other, "
            "and are on both sides: the error of such a class is too low. Add photos of other scenes."
        )
    return store if (held == photos.held).all() else _replaced(store, held)


def sides(photos: Photos, group: NDArray[np.int64]) -> tuple[NDArray[np.bool_], list[int]]:
    """Which photos are held out so that no group is on both sides.

    Returns:
        (N,) held out or not; labels of classes that are one group, which stay as they are.
    """
    held, members, single = photos.held.copy(), _members(group), []
    for numbers in members.values():
        held[numbers] = photos.held[min(numbers, key=photos.keys.__getitem__)]
    for label in np.unique(photos.labels):
        own = photos.labels == label
        for side in (True, False):
            if (held[own] == side).any() or not (photos.held[own] == side).any():
                continue
            moved = _smallest(photos, members, int(label))
            if moved is None:
                held[own] = photos.held[own]
                single.append(int(label))
            else:
                held[moved] = side
    return held, single


def _members(group: NDArray[np.int64]) -> dict[int, list[int]]:
    members: dict[int, list[int]] = {}
    for number, one in enumerate(group.tolist()):
        members.setdefault(one, []).append(number)
    return members


def _smallest(photos: Photos, members: dict[int, list[int]], label: int) -> list[int] | None:
    """The class's smallest group that is of this class alone; None if it has no other group."""
    own = [numbers for numbers in members.values() if (photos.labels[numbers] == label).any()]
    inside = [numbers for numbers in own if (photos.labels[numbers] == label).all()]
    if len(own) < 2 or not inside:
        return None
    return min(inside, key=lambda numbers: (len(numbers), min(photos.keys[number] for number in numbers)))


def _found(photos: Photos, group: NDArray[np.int64], held: NDArray[np.bool_]) -> str:
    """How many near-duplicates there are, and how many changed sides."""
    several = [numbers for numbers in _members(group).values() if len(numbers) > 1]
    alike = sum(map(len, several))
    if not several:
        return "No near-duplicates were found among the photos."
    moved = int((held != photos.held).sum())
    mixed = sum(len(set(photos.labels[numbers].tolist())) > 1 for numbers in several)
    classes = f" {mixed:,} of the groups are in more than one class: look whether a label is wrong." if mixed else ""
    return (
        f"{counted(alike, 'photo')} are near-duplicates (bursts, copies), in {counted(len(several), 'group')}. "
        f"Each group is on one side of the split, to which {moved:,} were moved.{classes}"
    )


# --- writing --------------------------------------------------------------------------------------


def recover(folder: Path) -> None:
    """Give a store its name back where `regrouped` was stopped between two names."""
    old = _beside(folder, "old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}.tmp")


def _replaced(store: Store, held: NDArray[np.bool_]) -> Store:
    """Write the store under a temporary name, and give it its name when it is whole."""
    folder = store.folder
    temporary, old = _beside(folder, "new"), _beside(folder, "old")
    for leftover in (temporary, old):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _write(store, held, temporary)
        folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        recover(folder)
        if error.errno in FULL_DISK:
            problem, remedy = f"no space left for {temporary}", "free some space"
        else:
            problem, remedy = f"{error.filename or temporary} cannot be written or renamed", "remove what is in the way"
        raise StoreError(f"{problem} ({error.strerror}): {remedy} and run the same command. {folder} is unchanged.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return Store(folder)


def _write(store: Store, held: NDArray[np.bool_], folder: Path) -> None:
    """The same records in other splits."""
    items = list(_items(store))
    names = {False: TRAIN, True: store.held_out.name}
    splits = {name: [item for item, out in zip(items, held, strict=True) if out == side] for side, name in names.items()}
    jobs = [(split, block) for split, own in splits.items() for block in blocks(own, BLOCK)]
    skipped = [(entry.file, entry.reason) for entry in store.skipped]
    source = Source(store.manifest["source"], store.classes, splits)
    with Writer(folder, source, store.size, store.manifest["resize"], MAX_PIXELS, jobs) as writer:
        writer.open()
        for number, job in enumerate(jobs):
            writer.append(job[0], _block(store, *job, [] if number else skipped))
        writer.finish()


def _items(store: Store) -> Iterator[Item]:
    """Every record of the store: its name, its label, and its place in a split."""
    for split in (store.train, store.held_out):
        for place, (name, label) in enumerate(zip(split.files, split.labels.tolist(), strict=True)):
            yield Item(name, label, split.name, place=place)


def _block(store: Store, split: str, items: Sequence[Item], skipped: list[tuple[str, str]]) -> Encoded:
    records = np.stack([store.split(item.path).records[item.place] for item in items])
    labels, names = [item.label for item in items], [item.name for item in items]
    return Encoded(records, labels, names, skipped, sha256(records), Sums.of(records) if split == TRAIN else None)
