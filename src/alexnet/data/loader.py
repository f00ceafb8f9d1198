"""Choose the records of each batch: a pure function of (seed, epoch, step).

An epoch is a permutation of the split, and step i takes its i-th run of `batch_size` records.
Nothing is remembered between batches, so training can start at any step and sees what it would have
seen: resuming inside an epoch repeats and skips nothing. The pictures left over after the last
whole batch are others in each epoch. What chance then does to a picture does not depend on its
batch: `chance.py`.

`batches` reads ahead in threads; their number changes when a batch is ready, never what is in it.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.store import Split

# Names of the independent streams of random numbers that grow from one seed; `chance.py` has 1, 2.
SHUFFLE, INIT, HOLD_OUT = 0, 3, 4


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
        share: (number, of how many) of the parts that each batch is cut into, as even as can be;
            this part alone is read. `batch_size` stays that of the whole batch.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        workers: int = 1,
        pinned: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.split, self.seed, self.workers, self.pinned = split, seed, workers, pinned
        self.batch_size, self.share = min(batch_size, len(split)), share
        self.steps_per_epoch = len(split) // self.batch_size
        self._order = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return stream(self.seed, SHUFFLE, epoch).permutation(len(self.split))

    def indices(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Which records batch `step` of `epoch` holds, or this share of it."""
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step (={step}) must be in [0, {self.steps_per_epoch}).")
        start = step * self.batch_size
        number, parts = self.share
        return np.array_split(self._order(epoch)[start : start + self.batch_size], parts)[number]

    def batch(self, epoch: int, step: int) -> Batch:
        """Batch `step` of `epoch`.

        Raises:
            StoreError: the store's files are gone or have shrunk.
        """
        indices = self.indices(epoch, step)
        # Reading in the order of the file is kinder to a disk; the batch keeps the
        # order of the permutation.
        order = np.argsort(indices)
        records = torch.empty((len(indices), self.split.records.shape[1]), dtype=torch.uint8, pin_memory=self.pinned)
        records.numpy()[order] = self.split.take(indices[order])
        return Batch(records, torch.from_numpy(self.split.labels[indices].astype(np.int64)))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from step `start` on."""
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


def in_order(split: Split, batch_size: int, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """Every record once, in the order of the store, the last batch smaller: for evaluation.

    Args:
        share: (number, of how many) who read the batches in turn; those of this number come.
    """
    number, parts = share
    for start in range(number * batch_size, len(split), parts * batch_size):
        records = torch.from_numpy(split.take(slice(start, start + batch_size)))
        yield Batch(records, torch.from_numpy(split.labels[start : start + batch_size].astype(np.int64)))
