"""Bring records to the GPU's training step without making the host wait.

A step needs a batch's records and its random choices: crops, mirrors, colours, keys of dropout.
Which records it takes is a function of (seed, epoch, step), and what chance does to one is a
function of (seed, epoch, picture), as in `Loader` and `Chance` and computed by the same code: every
path trains on the same pictures and drops the same units, from any step of any epoch.

* The random choices are a few kB a step. `ChoiceTable` computes them for `ROWS` steps at once in a
  thread and copies the table to the device; a counter there says which row is the next step's, so
  the host sends nothing between two copies.
* The records are large, and are kept in one of three places:

    resident    all in the GPU's memory, 98,304 bytes a picture of 256 x 256: ImageNet takes 117 of
                an H200's 139 GiB.
    pinned      all in page-locked memory of the host; batches are copied ahead of use, at the speed
                of the bus.
    disk        in the store's files; threads read ahead into page-locked memory, then as above.

`choose_storage` takes the first that fits.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.augment import Augmentation
from alexnet.data.chance import Chance
from alexnet.data.loader import Batch, Loader
from alexnet.data.store import Split
from alexnet.errors import RecipeError
from alexnet.meter import Meter

Storage = Literal["resident", "pinned", "disk"]
GIB = 2**30
ROWS = 256  # steps that a table holds
SLOTS = 3  # batches on the device where they are copied: one in use, one that was, one on its way
TESTED = 512  # pictures in a batch that is tested on the device
PIECE = 2**28  # bytes of page-locked memory in one allocation: PyTorch rounds each up to a power of two


def choose_storage(wanted: str, needed: int, free: int, host: int) -> tuple[Storage, str]:
    """Choose where the training pictures are kept, and describe the choice in a sentence.

    Args:
        wanted: auto, or one of the places, which is then taken.
        needed: bytes of the pictures.
        free: bytes of the GPU's memory that the step does not need.
        host: free bytes of the host's memory; 0 if unknown.

    Raises:
        RecipeError: pinned was requested, and does not fit.
    """
    size, on_gpu, on_host = (f"{number / GIB:.2f} GiB" for number in (needed, max(free, 0), host))
    if wanted == "resident" or (wanted == "auto" and needed <= free):
        return "resident", f"The pictures ({size}) are copied to the GPU ({on_gpu} free)."
    if wanted == "pinned" and 0 < host < needed:
        raise RecipeError(f"feed (=pinned) needs {size} of the host's memory, but only {on_host} are free: use disk or auto.")
    reason = f"The GPU has {on_gpu} free for {size} of pictures" if wanted == "auto" else f"As requested, {size} of pictures"
    if wanted == "pinned" or (wanted == "auto" and needed <= host // 2):
        return "pinned", f"{reason}: they are kept in the host's memory ({on_host} free) and copied batch by batch."
    return "disk", f"{reason}: they are read from the store's files, batch by batch."


def host_memory() -> int:
    """Free bytes of the host's memory; 0 if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


# --- the records ----------------------------------------------------------------------------------


class Resident:
    """A feed that keeps all records on the device.

    Args:
        records: (N, bytes) uint8, if they are there already.
    """

    def __init__(self, loader: Loader, device: torch.device, records: Tensor | None = None) -> None:
        self.loader = loader
        self.records = _copied(loader.split, device) if records is None else records

    def positions(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Which of `records` the batch is."""
        return self.loader.indices(epoch, step)

    def ready(self, epoch: int, step: int) -> None:
        """Do nothing: the records are always there."""

    def used(self, step: int) -> None:
        """Do nothing: the records stay."""


def _copied(split: Split, device: torch.device) -> Tensor:
    copy = torch.empty(split.records.shape, dtype=torch.uint8, device=device)
    with Meter(f"copying to {device.type}", len(split), "images") as meter:
        for start, piece in _pieces(split):
            copy[start : start + len(piece)] = torch.from_numpy(piece)
            meter.add(len(piece))
    return copy


def kept(split: Split, device: torch.device) -> list[Batch]:
    """A split on the device, in the order of the store: what `evaluate` takes in
    place of the store's files."""
    records = _copied(split, device)
    labels = torch.from_numpy(split.labels.astype(np.int64)).to(device)
    return [Batch(*batch) for batch in zip(records.split(TESTED), labels.split(TESTED), strict=True)]


class Streamed:
    """A ring of batches on the device, filled ahead of use by a stream of copies.

    Attributes:
        records: (SLOTS * batch, bytes) uint8.
    """

    def __init__(self, loader: Loader, device: torch.device, batches: Callable[[int, int], Iterator[list[Tensor]]]) -> None:
        """`batches(epoch, start)` yields each batch as tensors of consecutive records on the
        host."""
        self.loader, self._batches = loader, batches
        self.records = torch.empty((SLOTS * loader.batch_size, loader.split.records.shape[1]), dtype=torch.uint8, device=device)
        self._cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self._copied: dict[int, torch.cuda.Event] = {}  # by slot
        self._used: dict[int, torch.cuda.Event] = {}
        self._next: tuple[int, int] | None = None  # the batch to copy next
        self._ahead: Iterator[list[Tensor]] = iter(())

    def positions(self, epoch: int, step: int) -> NDArray[np.int64]:  # noqa: ARG002 - as in `Resident`
        """Which of `records` the batch will be."""
        size = self.loader.batch_size
        return np.arange(size) + step % SLOTS * size

    def ready(self, epoch: int, step: int) -> None:
        """Queue the copies of this step's batch and of the next; the current
        stream waits for the first."""
        if self._next is None or self._next[0] != epoch or not step <= self._next[1] <= step + 1:
            self._next, self._ahead = (epoch, step), self._batches(epoch, step)
        while self._next[1] < min(step + 2, self.loader.steps_per_epoch):
            self._copy(self._next[1], next(self._ahead))
            self._next = epoch, self._next[1] + 1
        if self._cuda:
            torch.cuda.current_stream().wait_event(self._copied[step % SLOTS])

    def _copy(self, step: int, batch: list[Tensor]) -> None:
        slot, size = step % SLOTS, self.loader.batch_size
        with torch.cuda.stream(self._stream):
            if self._stream and slot in self._used:
                self._stream.wait_event(self._used[slot])
            at = slot * size
            for part in batch:
                self.records[at : at + len(part)].copy_(part, non_blocking=True)
                at += len(part)
            if self._stream:
                self._copied[slot] = self._stream.record_event()

    def used(self, step: int) -> None:
        """Note that the step is queued: its slot may be filled again when the step is done."""
        if self._cuda:
            self._used[step % SLOTS] = torch.cuda.current_stream().record_event()


class Pinned:
    """All records in page-locked memory, in pieces."""

    def __init__(self, loader: Loader, cuda: bool) -> None:
        self.loader = loader
        split = loader.split
        self.pieces: list[Tensor] = []
        with Meter("copying to the host's memory", len(split), "images") as meter:
            for _, piece in _pieces(split):
                self.pieces.append(torch.empty(piece.shape, dtype=torch.uint8, pin_memory=cuda))
                self.pieces[-1].copy_(torch.from_numpy(piece))
                meter.add(len(piece))

    def batches(self, epoch: int, start: int) -> Iterator[list[Tensor]]:
        """Record by record: the copies that gather a batch are the copies to the device."""
        each = len(self.pieces[0])
        for step in range(start, self.loader.steps_per_epoch):
            places = (divmod(int(index), each) for index in self.loader.indices(epoch, step))
            yield [self.pieces[piece][at : at + 1] for piece, at in places]


def _pieces(split: Split) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Start and copy of each run of records of at most `PIECE` bytes."""
    each = max(1, PIECE // split.records.shape[1])
    for start in range(0, len(split), each):
        yield start, split.take(slice(start, start + each))


def open_feed(place: Storage, loader: Loader, device: torch.device) -> Resident | Streamed:
    """The feed for the place chosen."""
    cuda = device.type == "cuda"
    if place == "resident":
        return Resident(loader, device)
    if place == "pinned":
        return Streamed(loader, device, Pinned(loader, cuda).batches)
    reader = loader.like(pinned=cuda)
    return Streamed(loader, device, lambda epoch, start: ([batch.records] for batch in reader.batches(epoch, start)))


# --- what chance decides --------------------------------------------------------------------------


class StepChoices(NamedTuple):
    """A step's random choices and labels, on the device.

    Attributes:
        which: (N,) int64, of the feed's records.
        top, left: (N,) int64; mirror: (N,) bool; colour: (N, 3) float32: as
            `kernels.augment` takes them.
        labels: (N,) int64.
        keys: (N, dropout layers) int32, as `kernels.dropout` takes each column.
    """

    which: Tensor
    top: Tensor
    left: Tensor
    labels: Tensor
    colour: Tensor
    keys: Tensor
    mirror: Tensor


class ChoiceTable:
    """The rows of the coming steps, and a counter, on the device.

    A row is packed into bytes, 8-byte numbers first, so that taking it is one gather.

    Attributes:
        counter: (1,) int64, the row of the next step; the step itself counts it up.
    """

    def __init__(
        self, feed: Resident | Streamed, augmentation: Augmentation, dropouts: int, device: torch.device, rows: int = ROWS
    ) -> None:
        self.feed, self.loader, self.augmentation = feed, feed.loader, augmentation
        self.dropouts, self.rows, self._cuda = dropouts, rows, device.type == "cuda"
        n = self.loader.batch_size
        numbers = (torch.int64, (n,))
        self._fields = (*[numbers] * 4, (torch.float32, (n, 3)), (torch.int32, (n, dropouts)), (torch.bool, (n,)))
        self._table = torch.zeros((rows, len(self._pack(0, 0))), dtype=torch.uint8, device=device)
        self.counter = torch.zeros(1, dtype=torch.int64, device=device)
        self._pool = ThreadPoolExecutor(1)
        self._coming: tuple[tuple[int, int], Future[Tensor]] | None = None
        self._end: tuple[int, int] | None = None
        self._expected = 0

    def ready(self, epoch: int, step: int) -> None:
        """Make the counter point at this step's row; copies a new table where the old one ends."""
        if self._end is None or self._end[0] != epoch or step >= self._end[1] or step != self._expected:
            start = epoch, step
            future = self._coming[1] if self._coming and self._coming[0] == start else self._pool.submit(self._make, *start)
            table = future.result()
            self._table[: len(table)].copy_(table, non_blocking=True)
            self.counter.zero_()
            self._end = epoch, step + len(table)
            after = self._end if self._end[1] < self.loader.steps_per_epoch else (epoch + 1, 0)
            self._coming = after, self._pool.submit(self._make, *after)
        self._expected = step + 1

    def row(self, before: int = 0) -> StepChoices:
        """The row that the counter points at, or an earlier one."""
        packed = self._table.index_select(0, self.counter - before if before else self.counter)[0]
        values, at = [], 0
        for dtype, shape in self._fields:
            size = dtype.itemsize * int(np.prod(shape))
            values.append(packed[at : at + size].view(dtype).view(shape))
            at += size
        return StepChoices(*values)

    def _make(self, epoch: int, start: int) -> Tensor:
        """Rows from `start` on, to the epoch's end at most: (steps, bytes) uint8."""
        steps = range(start, min(start + self.rows, self.loader.steps_per_epoch))
        table = torch.empty((len(steps), self._table.shape[1]), dtype=torch.uint8, pin_memory=self._cuda)
        for row, step in zip(table.numpy(), steps, strict=True):
            row[:] = self._pack(epoch, step)
        return table

    def _pack(self, epoch: int, step: int) -> NDArray[np.uint8]:
        indices, chance = self.loader.indices(epoch, step), Chance(self.loader.seed, epoch)
        drawn, keys = self.augmentation.draw(indices, chance), chance.dropout_keys(indices, self.dropouts)
        labels = self.loader.split.labels[indices].astype(np.int64)
        values = (self.feed.positions(epoch, step), drawn.top, drawn.left, labels, drawn.colour, keys, drawn.mirror)
        packed = np.concatenate([np.ascontiguousarray(value).reshape(-1).view(np.uint8) for value in values])
        return np.pad(packed, (0, -len(packed) % 16))  # rows begin where the widest loads can

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)
