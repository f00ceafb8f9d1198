"""What ranks write to each other in torchrun's key-value store, beside the exchanges of tensors: it
works before those do, and after they have failed.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from alexnet.errors import TrainingError

#: Rank 0 may take its time before the first exchange: it resamples a store, fits a last layer.
BEGIN_SECONDS = 7 * 24 * 3600.0
POLL_SECONDS = 0.02
BEGUN, FAILED, LOST, SPOKEN = "begun", "failed/{rank}", "lost/{rank}", "spoken"


class Gone(RuntimeError):
    """Another rank ended while this one waited for it."""


@dataclass(frozen=True)
class Notes:
    """The notes of one start, seen from one of its ranks.

    Attributes:
        rank, count: as in `Ranks`.
        timeout: in seconds; a rank that keeps the others waiting for so long ends the run.
        store: torchrun's, the part of this start.
        restarts: whether torchrun starts all ranks again when one has failed.
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
        """Before the first exchange: let rank 0 begin the run, however long it takes."""
        if self.first:
            self.store.set(BEGUN, "")
        else:
            self._until(BEGUN, BEGIN_SECONDS)

    def check_alike(self, mine: Mapping[str, str], remedy: str) -> None:
        """Refuse to train together if one rank differs from the others.

        Args:
            mine: what has to be alike, by what it is called; the names are those of all ranks.
            remedy: what to do where it is not.

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
        if not wait_until(lambda: self.told() or self.store.check(keys), self.timeout):
            missing = ", ".join(str(rank) for rank, key in enumerate(keys) if not self.store.check([key]))
            raise TrainingError(
                f"rank {missing} of {self.count} did not begin within {self.timeout:g} seconds (--rank-timeout). Look at "
                "that process and its machine."
            )
        if found := self.told():
            raise TrainingError(f"rank {found[0]} of {self.count}: {found[1]}")

    def _until(self, key: str, seconds: float) -> None:
        """Wait for something that rank 0 writes."""
        if not wait_until(lambda: self.store.check([key]) or self.spoken(), seconds) or not self.store.check([key]):
            raise Gone("rank 0 has ended" if self.spoken() else "timed out waiting for rank 0")

    def tell(self, text: str) -> None:
        """Leave word of an error for rank 0; before this rank's connections close."""
        with suppress(RuntimeError):  # rank 0's machine is gone
            self.store.set(FAILED.format(rank=self.rank), text)

    def tell_lost(self, text: str) -> None:
        """Leave word that an exchange failed here because of another rank."""
        with suppress(RuntimeError):
            self.store.set(LOST.format(rank=self.rank), text)

    def told(self) -> tuple[int, str] | None:
        """The lowest rank that left word of an error, and its word."""
        with suppress(RuntimeError):
            for rank in range(1, self.count):
                if self.store.check([FAILED.format(rank=rank)]):
                    return rank, self.store.get(FAILED.format(rank=rank)).decode()
        return None

    def without_word(self) -> list[int]:
        """The other ranks that have left no word: they were killed, or hang."""
        with suppress(RuntimeError):
            return [
                rank
                for rank in range(self.count)
                if rank != self.rank and not any(self.store.check([word.format(rank=rank)]) for word in (FAILED, LOST))
            ]
        return [rank for rank in range(self.count) if rank != self.rank]

    def speaks(self) -> None:
        """Leave word that this rank tells the error; it is rank 0, if that is there."""
        with suppress(RuntimeError):
            self.store.set(SPOKEN, "")

    def spoken(self) -> bool:
        """Whether a rank tells the error."""
        with suppress(RuntimeError):
            return bool(self.store.check([SPOKEN]))
        return False


def polled(seconds: float) -> Iterator[None]:
    """Ever again until `seconds` are over: in between Python takes signals, as it does not while it
    waits for the store.
    """
    until = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() > until:
            return
        time.sleep(POLL_SECONDS)


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether a condition came true in time."""
    return any(condition() for _ in polled(seconds))


def unlike(mine: list[Mapping[str, str]]) -> str | None:
    """In what the first rank differs that is not like rank 0; None if all are alike.

    Args:
        mine: of each rank, by what it is called.
    """
    first = mine[0]
    for rank, one in enumerate(mine):
        if differing := [name for name in {**first, **one} if first.get(name) != one.get(name)]:
            listed = ", ".join(f"{name} {one.get(name)}, at rank 0 {first.get(name)}" for name in differing)
            return f"rank {rank} of {len(mine)} differs from rank 0 ({listed})"
    return None
