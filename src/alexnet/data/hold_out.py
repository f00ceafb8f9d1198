"""Which pictures are held out for testing where a source has no second split."""

from dataclasses import replace
from random import Random

from alexnet.data.sources.source import TRAIN, Source
from alexnet.errors import SourceError


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
