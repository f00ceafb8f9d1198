"""What ranks write to each other in torchrun's key-value store. Unlike the exchanges of tensors, it
works before the ranks are connected and after their connections have failed.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from alexnet.errors import TrainingError

#: Seconds that rank 0 may take before the first exchange: it resamples a store, fits a last layer.
BEGIN_SECONDS = 7 * 24 * 3600.0
POLL_SECONDS = 0.02
BEGUN, FAILED, LOST, CLAIMED = "begun", "failed/{rank}", "lost/{rank}", "claimed"


class Gone(RuntimeError):
    """Another rank ended while this one waited for it."""


@dataclass(frozen=True)
class Notes:
    """The notes of one start, seen from one of its ranks.

    Attributes:
        rank, count: as in `Ranks`.
        timeout: seconds; a rank that does not answer for so long ends the run.
        store: torchrun's, the section of this start.
        restarts: whether torchrun restarts all ranks when one has failed.
    """

    rank: int
    count: int
    timeout: float
    store: Any
    restarts: bool = False

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def wait_for_first(self) -> None:
        """Before the first exchange: wait until rank 0 has begun the run, however long it takes."""
        if self.first:
            self.store.set(BEGUN, "")
        else:
            self._until(BEGUN, BEGIN_SECONDS)

    def check_alike(self, mine: Mapping[str, str], remedy: str) -> None:
        """Refuse to train together if one rank differs from the others.

        Args:
            mine: values that must be the same on all ranks, by name; all ranks have these names.
            remedy: the next step if they are not.

        Raises:
            TrainingError: a rank differs, or has failed.
        """
        key = f"alike/{','.join(mine)}"
        self.store.set(f"{key}/{self.rank}", json.dumps(dict(mine)))
        if self.first:
            keys = [f"{key}/{rank}" for rank in range(self.count)]
            self._wait_for_others(keys)
            self.store.set(key, unlike([json.loads(self.store.get(one)) for one in keys]) or "")
        else:
            self._until(key, self.timeout)
        if problem := self.store.get(key).decode():
            raise TrainingError(f"{problem}: {remedy}.")

    def _wait_for_others(self, keys: list[str]) -> None:
        if not wait_until(lambda: self.reported() or self.store.check(keys), self.timeout):
            missing = [rank for rank, key in enumerate(keys) if not self.store.check([key])]
            raise TrainingError(
                f"{named(missing, self.count)} did not begin within {self.timeout:g} seconds (--rank-timeout). Look at "
                "that process and its machine."
            )
        if found := self.reported():
            raise TrainingError(f"rank {found[0]} of {self.count}: {found[1]}")

    def _until(self, key: str, seconds: float) -> None:
        """Wait for a key that rank 0 sets."""
        if not wait_until(lambda: self.store.check([key]) or self.claimed(), seconds) or not self.store.check([key]):
            raise Gone("rank 0 has ended" if self.claimed() else "timed out waiting for rank 0")

    def report(self, text: str) -> None:
        """Write this rank's error for rank 0, before this rank's connections are closed."""
        with suppress(RuntimeError):  # rank 0's machine is gone
            self.store.set(FAILED.format(rank=self.rank), text)

    def report_lost(self, text: str) -> None:
        """Write that an exchange failed here because of another rank."""
        with suppress(RuntimeError):
            self.store.set(LOST.format(rank=self.rank), text)

    def reported(self) -> tuple[int, str] | None:
        """The lowest rank that wrote an error, and the error."""
        with suppress(RuntimeError):
            for rank in range(1, self.count):
                if self.store.check([FAILED.format(rank=rank)]):
                    return rank, self.store.get(FAILED.format(rank=rank)).decode()
        return None

    def silent(self) -> list[int]:
        """The other ranks that have written nothing: they were killed, or hang."""
        with suppress(RuntimeError):
            return [
                rank
                for rank in range(self.count)
                if rank != self.rank and not any(self.store.check([word.format(rank=rank)]) for word in (FAILED, LOST))
            ]
        return [rank for rank in range(self.count) if rank != self.rank]

    def claim(self) -> None:
        """Write that this rank reports the error: rank 0, unless that is silent."""
        with suppress(RuntimeError):
            self.store.set(CLAIMED, "")

    def claimed(self) -> bool:
        """Whether a rank reports the error to the user."""
        with suppress(RuntimeError):
            return bool(self.store.check([CLAIMED]))
        return False


def polled(seconds: float) -> Iterator[None]:
    """Turns of a loop until `seconds` have passed. In between Python handles signals, which it does
    not while it waits for the store.
    """
    until = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() > until:
            return
        time.sleep(POLL_SECONDS)


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether a condition became true within `seconds`."""
    return any(condition() for _ in polled(seconds))


def named(ranks: Iterable[int], count: int) -> str:
    """Ranks in a message.

    >>> named([1], 2), named([1, 3], 4)
    ('rank 1 of 2', 'ranks 1, 3 of 4')
    """
    listed = [str(rank) for rank in ranks]
    return f"rank{'s' * (len(listed) > 1)} {', '.join(listed)} of {count}"


def unlike(mine: list[Mapping[str, str]]) -> str | None:
    """How the first rank that is not like rank 0 differs from it, or None.

    Args:
        mine: values of each rank, by name.
    """
    first = mine[0]
    for rank, one in enumerate(mine):
        if differing := [name for name in {**first, **one} if first.get(name) != one.get(name)]:
            listed = ", ".join(f"{name} {one.get(name)}, at rank 0 {first.get(name)}" for name in differing)
            return f"rank {rank} of {len(mine)} differs from rank 0 ({listed})"
    return None
