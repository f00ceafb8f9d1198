"""Choose the pictures that are held out for testing if a source has no test split.

Every picture is drawn independently. Its key is the SHA-256 of the seed and of the SHA-256 of its
file; as a fraction of all keys it is even between 0 and 1, and the picture is held out if it is
below the share. So equal files are on one side, whatever they are called and in whichever class,
and a picture that is added later moves no other.

Small classes need two more rules, as no key of theirs may be below the share, or all: of a class
with two different readable pictures one is held out, the one with the smallest key, and one trains,
the one with the largest. Such a forced choice may change when pictures are added. No rule without
memory avoids that: a class {a} trains on a and a class {b} on b, so whichever of the two is held
out in {a, b} has moved when the other one came.

A file that is not a picture counts for nothing here.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from numbers import Real
from typing import Any, Protocol

from alexnet.console import say
from alexnet.data import sources
from alexnet.data.image import Unreadable
from alexnet.data.sources.source import TRAIN, Item, Source, blocks
from alexnet.errors import SourceError
from alexnet.meter import Meter
from alexnet.phrases import MOST_NAMED, counted, quoted

BLOCK = 256  # pictures in one job
SHOWN = 5  # classes that are named in a line


class Each(Protocol):
    """`map`, or the same in several processes."""

    def __call__(self, function: Callable[[Any], Any], jobs: Iterable[Any], /) -> Iterator[Any]:
        """What `function` gives for each job, in order."""
        ...


def check_share(share: float) -> None:
    """Refuse a share that leaves nothing to train on or nothing to test on."""
    if not isinstance(share, Real) or not 0 < share < 1:
        raise SourceError(f"hold_out (={share!r}) must be above 0 and below 1: the share of pictures kept for testing.")


def split_off(source: Source, share: float, seed: int, readable: Callable[[Item], bool], each: Each = map) -> Source:
    """Split a source that has only one split: about `share` of each class, drawn
    by `seed`, becomes `val`.

    Args:
        readable: says whether a picture can be decoded; called for few pictures.
        each: `map`, or one that calls functions in other processes.

    Raises:
        SourceError: no class has two pictures.
    """
    check_share(share)
    (items,) = source.splits.values()
    keys = _keys(items, seed, each)
    draw = _Selection.of(items, keys, share, readable, each)
    draw.force()
    sides = [key in draw.held for key in keys]
    train = [item for item, held in zip(items, sides, strict=True) if not held]
    val = [item for item, held in zip(items, sides, strict=True) if held]
    if not any(map(draw.holds, draw.classes)):
        raise SourceError(_too_few(items, source.classes))
    say(
        f"Found no test split in the {source.kind}: about {share:.0%} of each class is held out as "
        f"val, chosen by the files' content (seed {seed}): {len(val):,} of {len(items):,} pictures."
    )
    draw.explain(source.classes, keys)
    return replace(source, splits={TRAIN: train, "val": val})


def _too_few(items: Sequence[Item], names: Sequence[str]) -> str:
    """Why nothing can be held out, with the folder and how many files each class has."""
    counts = Counter(item.label for item in items)
    files = ", ".join(f"{names[label]!r} has {counted(counts[label], 'file')}" for label in sorted(counts)[:MOST_NAMED])
    more = ", ..." if len(counts) > MOST_NAMED else ""
    return (
        f"{os.path.commonpath([item.path for item in items])}: no class has two different readable pictures, so none can be "
        f"held out for testing ({files}{more}): add photos to each class."
    )


# --- keys -----------------------------------------------------------------------------------------


def _keys(items: Sequence[Item], seed: int, each: Each) -> list[bytes | None]:
    """Each item's key; None for what is empty or cannot be read."""
    keys: list[bytes | None] = []
    with Meter("looking at all files", len(items), "files") as meter:
        for digests in each(digest_block, blocks(items, BLOCK)):
            keys += [digest and hashlib.sha256(b"%d/" % seed + digest).digest() for digest in digests]
            meter.add(len(digests))
    return keys


def digest_block(items: Sequence[Item]) -> list[bytes | None]:
    """SHA-256 of each item's content; None for what is empty or cannot be read."""
    return [_digest(item) for item in items]


def _digest(item: Item) -> bytes | None:
    try:
        content = sources.read(item)
    except (OSError, Unreadable, SourceError):  # the pass that decodes lists it with the reason
        return None
    data = content if isinstance(content, bytes) else content.tobytes()
    return hashlib.sha256(data).digest() if data else None


def readable_block(items: Sequence[Item], readable: Callable[[Item], bool]) -> list[bool]:
    """`readable` of each."""
    return [readable(item) for item in items]


# --- the draw -------------------------------------------------------------------------------------


@dataclass
class _Selection:
    """The keys that are held out, and the classes where a choice was forced.

    Attributes:
        classes: by label, the different keys in ascending order.
        items: an item of each key.
        owners: in how many classes a key occurs.
        held: keys that are held out.
        known: keys that can be decoded, or not, so far.
        forced: labels of classes in which a choice was forced.
    """

    classes: dict[int, list[bytes]]
    items: dict[bytes, Item]
    owners: Counter[bytes]
    held: set[bytes]
    readable: Callable[[Item], bool]
    known: dict[bytes, bool] = field(default_factory=dict)
    forced: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        items: Sequence[Item],
        keys: Sequence[bytes | None],
        share: float,
        readable: Callable[[Item], bool],
        each: Each,
    ) -> "_Selection":
        """The draw by the share alone."""
        of_class: dict[int, set[bytes]] = {}
        example: dict[bytes, Item] = {}
        for item, key in zip(items, keys, strict=True):
            if key:
                of_class.setdefault(item.label, set()).add(key)
                example.setdefault(key, item)
        limit = int(share * 2**256).to_bytes(32, "big")
        classes = {label: sorted(of_class[label]) for label in sorted(of_class)}
        owners = Counter(key for ascending in classes.values() for key in ascending)
        draw = cls(classes, example, owners, {key for key in example if key < limit}, readable)
        copied = {key for key, count in Counter(filter(None, keys)).items() if count > 1}
        draw._look_at({key for ascending in classes.values() for key in (ascending[0], ascending[-1])} | copied, each)
        return draw

    def _look_at(self, keys: Iterable[bytes], each: Each) -> None:
        """Find out which of these can be decoded, in the worker processes if there are any."""
        ordered = sorted(keys)
        looked = each(partial(readable_block, readable=self.readable), blocks([self.items[key] for key in ordered], BLOCK))
        self.known |= zip(ordered, (answer for answers in looked for answer in answers), strict=True)

    def can(self, key: bytes) -> bool:
        """Whether it can be decoded."""
        if key not in self.known:
            self.known[key] = self.readable(self.items[key])
        return self.known[key]

    def holds(self, label: int) -> bool:
        """Whether the class has a picture that is held out."""
        return any(key in self.held and self.can(key) for key in self.classes[label])

    def trains(self, label: int) -> bool:
        """Whether the class has a picture to train on."""
        return any(key not in self.held and self.can(key) for key in reversed(self.classes[label]))

    def pictures(self, label: int) -> int:
        """How many different pictures a class has; counting stops at two."""
        ascending = self.classes[label]
        if len(ascending) > 1 and self.can(ascending[0]) and self.can(ascending[-1]):  # these have been looked at
            return 2
        return len(list(islice(filter(self.can, ascending), 2)))

    def force(self) -> None:
        """Make sure that every class has a picture to train on and, if it has two, one to test on.

        A class moves a picture of its own if it has one, which changes no other class. So classes
        that have only files that are in other classes too come first. Two of those may need one
        file on different sides: training goes first.
        """
        own = {label: any(self._is_own(key) for key in ascending) for label, ascending in self.classes.items()}
        for has_own in (False, True):
            labels = [label for label in self.classes if own[label] == has_own]
            for label in labels:
                if not self.holds(label) and self.pictures(label) > 1:
                    self.held.add(self._pick(self.classes[label]))
                    self.forced.append(label)
            for label in labels:
                if self.pictures(label) and not self.trains(label):
                    self.held.discard(self._pick(self.classes[label][::-1]))
                    self.forced.append(label)

    def _is_own(self, key: bytes) -> bool:
        return self.owners[key] == 1 and self.can(key)

    def _pick(self, ordered: Sequence[bytes]) -> bytes:
        return next(filter(self._is_own, ordered), None) or next(filter(self.can, ordered))

    def explain(self, names: Sequence[str], keys: Sequence[bytes | None]) -> None:
        """Report where the split differs from what the share alone would give."""
        single = [label for label in self.classes if self.pictures(label) == 1]
        if single:
            say(f"Nothing is held out of {_named(single, names)}, with one picture only.")
        if rest := [label for label in self.classes if label not in single and self.pictures(label) and not self.holds(label)]:
            say(f"Nothing is held out of {_named(rest, names)}: other classes have all the same files and train on them.")
        if forced := [label for label in dict.fromkeys(self.forced) if label not in single]:
            say(
                f"In {_named(forced, names)} the random draw left training or testing without a "
                "picture, so one was moved; adding pictures to such a class may move it back."
            )
        counts = Counter(key for key in keys if key and self.known.get(key))
        if copies := sum(count - 1 for count in counts.values()):
            across = sum(self.owners[key] > 1 for key in counts)
            inside = f" {across:,} of the pictures are in more than one class." if across else ""
            say(f"{copies:,} pictures are exact copies of another one and stay in the same split as it.{inside}")


def _named(labels: Sequence[int], names: Sequence[str]) -> str:
    return f"{counted(len(labels), 'class')} ({quoted((names[label] for label in labels), SHOWN)})"
