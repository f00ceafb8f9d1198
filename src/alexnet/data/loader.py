"""Choose the records of each batch: a pure function of (seed, epoch, step).

An epoch is a permutation of the split, and step i takes its i-th run of `batch_size` records. A
remote store that is larger than the cache has another kind of permutation, which uses only a few
blocks at a time: `block_shuffle`.
Nothing is remembered between batches, so training can start at any step and sees what it would have
seen: resuming inside an epoch repeats and skips nothing. The pictures left over after the last
whole batch are others in each epoch. What chance then does to a picture does not depend on its
batch: `chance.py`.

`batches` reads ahead in threads; their number changes when a batch is ready, never what is in it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.remote_records import RemoteRecords
from alexnet.data.store import BLOCK, Split

# Names of the independent streams of random numbers that grow from one seed; `chance.py` has 1, 2.
SHUFFLE, INIT, HOLD_OUT = 0, 3, 4
#: Batches whose blocks are fetched in advance when all pictures are shuffled.
PREFETCH_BATCHES = 4


def stream(seed: int, *key: int) -> np.random.Generator:
    """The random numbers of one purpose at one place: `stream(seed, SHUFFLE, epoch)`."""
    return np.random.default_rng([seed, *key])


class Batch(NamedTuple):
    """records: (N, bytes) uint8; labels: (N,) int64."""

    records: Tensor
    labels: Tensor


class Loader:
    """Batches of a split in random order.

    Args:
        split: where from.
        batch_size: records in each batch; a smaller split gives batches of its own size.
        seed: of the order.
        workers: threads that read ahead.
        pinned: whether records come in page-locked memory, from which a GPU copies
            while the program goes on.
        shuffle_blocks: blocks that are shuffled at a time, as in `block_shuffle`; by default all.
        share: (number, parts): each batch is divided into `parts`, as evenly as possible, and only
            part `number` is read. `batch_size` stays that of the whole batch.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        workers: int = 1,
        pinned: bool = False,
        share: tuple[int, int] = (0, 1),
        shuffle_blocks: int | None = None,
    ) -> None:
        self.split, self.seed, self.workers, self.pinned = split, seed, workers, pinned
        self.batch_size, self.share, self.shuffle_blocks = min(batch_size, len(split)), share, shuffle_blocks
        self.steps_per_epoch = len(split) // self.batch_size
        self._order = lru_cache(maxsize=2)(self._permutation)

    def like(self, **changes: Any) -> "Loader":
        """A loader with these arguments, and those of this one for the rest."""
        names = ("split", "batch_size", "seed", "workers", "pinned", "share", "shuffle_blocks")
        return Loader(**{name: getattr(self, name) for name in names} | changes)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        rng = stream(self.seed, SHUFFLE, epoch)
        if self.shuffle_blocks is None:
            return rng.permutation(len(self.split))
        return block_shuffle(self.split.blocks or (len(self.split),), self.shuffle_blocks, rng)

    def indices(self, epoch: int, step: int) -> NDArray[np.int64]:
        """The numbers of the records in batch `step` of `epoch`, or in this share of it."""
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step (={step}) must be in [0, {self.steps_per_epoch}).")
        start = step * self.batch_size
        number, parts = self.share
        return np.array_split(self._order(epoch)[start : start + self.batch_size], parts)[number]

    def batch(self, epoch: int, step: int) -> Batch:
        """Batch `step` of `epoch`.

        Raises:
            StoreError: the store's files are gone or have shrunk; a remote store cannot be reached
                or is damaged.
        """
        indices = self.indices(epoch, step)
        self._prefetch(epoch, step)
        # Reading in the order of the file is kinder to a disk; the batch keeps the
        # order of the permutation.
        order = np.argsort(indices)
        records = torch.empty((len(indices), self.split.records.shape[1]), dtype=torch.uint8, pin_memory=self.pinned)
        records.numpy()[order] = self.split.take(indices[order])
        return Batch(records, torch.from_numpy(self.split.labels[indices].astype(np.int64)))

    def _prefetch(self, epoch: int, step: int) -> None:
        """Have the blocks of later batches fetched. With `shuffle_blocks` that is one group of
        blocks in advance, as the first batch of a group needs nearly all of its blocks.
        """
        if isinstance(self.split.records, RemoteRecords):
            ahead = -(-(self.shuffle_blocks or 0) * BLOCK // self.batch_size) or PREFETCH_BATCHES
            later = divmod(step + ahead, self.steps_per_epoch)
            self.split.records.prefetch(self.indices(epoch + later[0], later[1]))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from step `start` on.

        Raises:
            StoreError: as `batch`, or the cache is too small for this order of a remote store.
        """
        if isinstance(self.split.records, RemoteRecords):
            self.split.records.check_room(self.shuffle_blocks)
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque[Future[Batch]] = deque()
            try:
                for step in range(start, self.steps_per_epoch):
                    waiting.append(pool.submit(self.batch, epoch, step))
                    if len(waiting) > self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def block_shuffle(blocks: Sequence[int], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """All records in an order that uses only `count` blocks at a time: the blocks in random order,
    then the records of each group of `count` blocks in random order.

    Args:
        blocks: number of records of each.

    Returns:
        (N,) numbers of records.
    """
    ends = np.cumsum(blocks)
    order = rng.permutation(len(blocks))
    parts = [np.arange(ends[block] - blocks[block], ends[block]) for block in order]
    groups = [np.concatenate(parts[start : start + count]) for start in range(0, len(parts), count)]
    return np.concatenate([rng.permutation(group) for group in groups])


def in_order(split: Split, batch_size: int, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """Every record once, in the order of the store, the last batch smaller: for evaluation.

    Args:
        share: (number, parts): the readers take batches in turn; this gives those of one reader.
    """
    number, parts = share
    for start in range(number * batch_size, len(split), parts * batch_size):
        records = torch.from_numpy(split.take(slice(start, start + batch_size)))
        yield Batch(records, torch.from_numpy(split.labels[start : start + batch_size].astype(np.int64)))
