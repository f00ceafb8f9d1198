"""The records of a remote split, in place of a local one's memory-mapped array.

They are fetched in the blocks of the manifest: 256 pictures under one checksum, which is verified
before a block is used. Blocks are kept in `BlockCache`. Threads fetch in advance what `prefetch`
names and, if records are read in order, the next blocks.

A batch of 128 pictures of 256 pixels takes 1.0 ms from ten blocks in the cache, where a mapped file
takes 0.5 ms (one core of a busy machine, all files in memory).
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import accumulate
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet.data.block_cache import GB, LIMIT_VARIABLE, BlockCache
from alexnet.data.remote import Remote, WrongBytes
from alexnet.errors import StoreError

#: Blocks that are fetched at the same time, each in memory until it is written.
THREADS = 8
#: Blocks to shuffle at a time, as proposed to the user: 8,192 pictures.
USUAL_SHUFFLE = 32
#: Blocks fetched in advance when records are read in order.
PREFETCH_BLOCKS = 8


class RemoteRecords:
    """(N, bytes) uint8; indexing returns verified copies.

    Args:
        remote: the store's folder.
        file: the name of the records' file there.
        blocks: number of records and SHA-256 of each block.
        length: bytes of a record.
        cache: where blocks are kept.
        rows: which records of the file these are; all by default.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        remote: Remote,
        file: str,
        blocks: Sequence[tuple[int, str]],
        length: int,
        cache: BlockCache,
        rows: range | None = None,
    ) -> None:
        self._remote, self._file, self._blocks, self._length, self.cache = remote, file, blocks, length, cache
        self._starts = [0, *accumulate(count for count, _ in blocks)]
        self._rows = range(self._starts[-1]) if rows is None else rows
        self._largest = max(count for count, _ in blocks) * length
        self._in_advance = min(PREFETCH_BLOCKS, cache.limit // (2 * self._largest))  # a small cache would drop more unused
        self._fetching = _Fetching(self._fetch_missing)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of records, and bytes of each."""
        return len(self), self._length

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        return len(self) * self._length

    def every(self, step: int, start: int) -> "RemoteRecords":
        """Every `step`-th record; nothing is fetched."""
        return RemoteRecords(self._remote, self._file, self._blocks, self._length, self.cache, self._rows[start::step])

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for number in range(len(self)):
            yield self[number]

    def __getitem__(self, which: int | slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of records, (n, bytes) uint8, or of one, (bytes,).

        Raises:
            StoreError: a block cannot be fetched, or is damaged at the address.
        """
        if isinstance(which, int):
            return self[which : which + 1][0]
        numbers = self._numbers(which)
        out = np.empty((len(numbers), self._length), np.uint8)
        places = self._by_block(numbers)
        if isinstance(which, slice) and places:
            after = max(places) + 1
            self._request(range(after, min(after + self._in_advance, len(self._blocks))))
        waiting = self._request(places, urgent=True)
        for block, where in places.items():
            if block in waiting:
                waiting[block].result()
            self._read(block, numbers[where] - self._starts[block], out, where)
        return out

    def prefetch(self, which: NDArray[np.int64]) -> None:
        """Fetch the blocks of some records in the background."""
        self._request(self._by_block(self._numbers(which)))

    def check_room(self, shuffled: int | None) -> None:
        """Refuse an order of training for which the cache is too small: the same blocks would be
        fetched over and over.

        Args:
            shuffled: blocks that are shuffled at a time; None for batches from all over the split.

        Raises:
            StoreError: the cache is too small; the message says what it has room for.
        """
        held = self.cache.holds(self._largest)
        fit = (held - THREADS) // 2  # those in use, as many fetched in advance, and some no longer used
        if len(self._blocks) <= held or (shuffled is not None and shuffled <= fit):
            return
        what = "batches from all over it" if shuffled is None else f"shuffle_blocks (={shuffled})"
        fewer = f"shuffle the pictures of a few blocks at a time with --shuffle-blocks {min(fit, USUAL_SHUFFLE)}, or "
        raise StoreError(
            f"{self._remote.name(self._file)} ({_size(self.nbytes)}) does not fit into the cache {self.cache.folder}, "
            f"which has room for {_size(self.cache.limit)}, and {what} would fetch its blocks over and over: "
            f"{fewer if fit > 0 else ''}set {LIMIT_VARIABLE} to more, or ALEXNET_CACHE to a folder on a larger disk."
        )

    def fresh(self, start: int, count: int) -> NDArray[np.uint8]:
        """A block's records as they are at the address now, whatever the cache holds.

        Raises:
            StoreError: they cannot be fetched, or are damaged.
        """
        block = next(number for number, each in enumerate(self._blocks) if (self._starts[number], each[0]) == (start, count))
        return np.frombuffer(self._fetched(block), np.uint8).reshape(count, self._length)

    # --- blocks -----------------------------------------------------------------------------------

    def _numbers(self, which: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of records in the file."""
        if isinstance(which, slice):
            taken = self._rows[which]
            return np.arange(taken.start, taken.stop, taken.step)
        return self._rows.start + np.asarray(which) * self._rows.step

    def _by_block(self, numbers: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
        """For each block, the positions of its records in `numbers`."""
        if len(numbers) == 0:
            return {}
        block = np.searchsorted(self._starts, numbers, "right") - 1
        order = np.argsort(block, kind="stable")
        names, first = np.unique(block[order], return_index=True)
        return dict(zip(names.tolist(), np.split(order, first[1:]), strict=True))

    def _read(self, block: int, rows: NDArray[np.int64], out: NDArray[np.uint8], places: NDArray[np.int64]) -> None:
        """Copy some rows of a block to their places in `out`."""
        _, name = self._blocks[block]
        file = self.cache.open(name)
        if file:
            with file:
                if self._copy(file, rows, out, places):
                    return
            self.cache.drop(name)  # truncated since it was verified
        data = np.frombuffer(self._fetch(block), np.uint8).reshape(-1, self._length)
        out[places] = data[rows]

    def _copy(self, file: BinaryIO, rows: NDArray[np.int64], out: NDArray[np.uint8], places: NDArray[np.int64]) -> bool:
        """Copy rows from an open block; False if the file is too short."""
        in_a_row = len(rows) == rows[-1] - rows[0] + 1 == places[-1] - places[0] + 1 and bool((np.diff(rows) == 1).all())
        runs = [(rows[0], places[0], len(rows))] if in_a_row else [(*pair, 1) for pair in zip(rows, places, strict=True)]
        for row, place, count in runs:
            file.seek(int(row) * self._length)
            target = out[place : place + count].data.cast("B")
            while target:
                got = file.readinto(target)  # type: ignore[attr-defined]  # an unbuffered file has it
                if not got:
                    return False
                target = target[got:]
        return True

    def _request(self, blocks: Iterable[int], urgent: bool = False) -> dict[int, Future[None]]:
        """Have threads fetch the blocks that are not in the cache."""
        missing = [block for block in blocks if self._blocks[block][0] and self._blocks[block][1] not in self.cache]
        if self._largest > self.cache.limit:
            return {}  # no block fits: each is fetched when it is read
        return {block: self._fetching.request(block, urgent) for block in missing}

    def _fetch_missing(self, block: int) -> None:
        name = self._blocks[block][1]
        with self.cache.alone(name):
            if name not in self.cache:  # another process may have fetched it
                self._fetch(block)

    def _fetch(self, block: int) -> bytes:
        """A block from its address, added to the cache."""
        data = self._fetched(block)
        self.cache.put(self._blocks[block][1], data)
        return data

    def _fetched(self, block: int) -> bytes:
        count, expected = self._blocks[block]
        start = self._starts[block]

        def check(data: bytes) -> None:
            if hashlib.sha256(data).hexdigest() != expected:
                raise WrongBytes(
                    "the bytes differ from the manifest's checksum: they were damaged in transit, or the store has changed "
                    f"or is damaged there (to check it: `alexnet verify {self._remote.address}`)"
                )

        what = f"pictures {start} to {start + count - 1}"
        if count == 0:  # all of its pictures were skipped
            return b""
        return self._remote.read_range(self._file, start * self._length, count * self._length, check, what)


def _size(count: int) -> str:
    return f"{count / GB:,.1f} GB" if count >= GB else f"{count / 1e6:,.1f} MB"


class _Fetching:
    """Threads that fetch blocks, those first that a reader is waiting for.

    They end with the program, whatever they are doing: only a block that is half fetched is lost.
    """

    def __init__(self, fetch: Callable[[int], None]) -> None:
        self._fetch = fetch
        self._waiting: OrderedDict[int, Future[None]] = OrderedDict()
        self._running: dict[int, Future[None]] = {}
        self._changed = threading.Condition()
        self._threads = 0

    def request(self, block: int, urgent: bool) -> Future[None]:
        """The future of a block; the same one if it is requested twice."""
        with self._changed:
            future = self._running.get(block) or self._waiting.setdefault(block, Future())
            if urgent and block in self._waiting:
                self._waiting.move_to_end(block, last=False)
            if self._threads < THREADS and len(self._waiting) > 0:
                self._threads += 1
                threading.Thread(target=self._work, daemon=True).start()
            return future

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._threads -= 1
                    return
                block, future = self._waiting.popitem(last=False)
                self._running[block] = future
            try:
                self._fetch(block)
                future.set_result(None)
            except BaseException as error:  # raised by whoever waits for the block
                future.set_exception(error)
            with self._changed:
                del self._running[block]
