"""Photos to a store: `alexnet prepare photos/ store/`.

The items of a source are taken in order, 256 at a time; all cores decode, one process writes. After each block one line goes
to `progress.jsonl`: how many records are good up to here. A process that is killed leaves at most an unfinished block behind
that line; the same command cuts it off and goes on, and the store ends with the same bytes. The manifest comes last.

Statistics (mean image, mean colour, principal components of colour) are sums of integers that grow with each block, so they
too come out the same. Colour moments use one pixel in 16, the top left one of each 4 x 4 square (one in 4 would cost 6 % of the
work); conversion to RGB is linear and so is done once, on the sums (clipping at 0 and 255 is ignored there).
"""

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from alexnet import lock, paper
from alexnet.console import Meter, say
from alexnet.data import hold_out as holding
from alexnet.data import sources
from alexnet.data.image import MAX_PIXELS, Resize, Unreadable, encode, planes, record_bytes
from alexnet.data.sources import Item, Source
from alexnet.data.store import BLOCK, FORMAT, LABEL, MANIFEST, MEAN, PROGRESS, Store, sha256
from alexnet.errors import FULL_DISK, SourceError, StoreError

HOLD_OUT = 0.1
SKIPPED = "skipped.jsonl"
#: Blocks that are decoded ahead of the one being written: 25 MB each at 256 pixels.
AHEAD = 2 * (os.cpu_count() or 1)
#: Below this many pictures, starting processes (they load PyTorch) takes longer than decoding.
FEW = 500
#: YCbCr minus (0, 128, 128) to RGB, as in `kernels.yuv_to_rgb`.
TO_RGB = np.array([[1.0, 0.0, 1.402], [1.0, -0.344136286, -0.714136286], [1.0, 1.772, 0.0]])


def prepare(
    paths: Sequence[Path],
    store: Path,
    *,
    train: Path | None = None,
    test: Path | None = None,
    image: str | None = None,
    size: int = paper.STORED_SIZE,
    resize: Resize = "short-side",
    hold_out: float = HOLD_OUT,
    seed: int = 0,
    strict: bool = False,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Store:
    """Decode, shrink and write every picture of a source.

    Args:
        paths: the source, see `sources.find`; empty if its parts are named.
        train, test: the parts of the source by hand, see `sources.find`.
        image: which picture of a key of a WebDataset shard to take, see `sources.find`.
        store: folder to write; it must be new, empty, or an unfinished store of the same source and settings.
        size: side of the stored squares in pixels, even.
        resize: how a picture becomes a square.
        hold_out: share of each class that becomes `val` if the source has no second split.
        seed: of that draw.
        strict: stop at the first file that is no usable picture.
        workers: processes that decode; all cores if None.
        max_pixels: a picture that takes more pixels of memory is skipped, see `image.encode`.

    Raises:
        SourceError: the source cannot be used, or `strict` met a bad file.
        StoreError: the folder is in the way, or the disk is full.
    """
    if size < 2 or size % 2:
        raise StoreError(f"size (={size}) must be an even number of pixels: colour is stored at half resolution.")
    if workers is not None and workers < 1:
        raise StoreError(f"workers (={workers}) must be at least 1.")
    if max_pixels < 1:
        raise StoreError(f"max_pixels (={max_pixels}) must be at least 1.")
    holding.check_share(hold_out)
    named = [path for path in (*paths, train, test) if path]
    if inside := [path for path in named if path.is_dir() and path.resolve() in store.resolve().parents]:
        raise StoreError(f"{store} lies inside its source {inside[0]}: name a folder elsewhere.")
    source = sources.find(paths, train=train, test=test, image=image)
    if len(source.splits) == 1:
        source = holding.hold_out(source, hold_out, seed)
        say(f"The {source.kind} has no split for testing: {hold_out:.0%} of each class is held out as val (seed {seed}).")
    writer = _Writer(store, source, size, resize, max_pixels)
    items = [(split, block) for split, members in source.splits.items() for block in _blocks(members)]
    total = sum(len(members) for members in source.splits.values())
    try:
        done = writer.open()
        with Meter("preparing", total, "images") as meter, _executor(workers, total) as executor:
            meter.skip(sum(len(block) for _, block in items[:done]))
            blocks = _encode_ahead(executor, items[done:], size, resize, max_pixels)
            for (split, block), encoded in zip(items[done:], blocks, strict=True):
                if strict and encoded.skipped:
                    name, reason = encoded.skipped[0]
                    raise SourceError(f"{name}: {reason}. Without --strict it is skipped and listed.")
                writer.append(split, encoded)
                meter.add(len(block), f"{writer.skipped} skipped" if writer.skipped else "")
        writer.finish()
    except KeyboardInterrupt:
        say("Interrupted: the same command goes on from here.")
        raise
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise StoreError(
            f"no space left for {store} ({error.strerror}). What is written is kept: free some space and run the same "
            "command again."
        ) from error
    except BrokenProcessPool as error:
        raise StoreError(
            "a decoding process died, perhaps for lack of memory. What is written is kept: run the same command again, "
            "with fewer --workers."
        ) from error
    finally:
        writer.close()
    return Store(store)


def _blocks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), BLOCK):
        yield items[start : start + BLOCK]


# --- decoding -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """A block after decoding: only the pictures that could be read."""

    records: NDArray[np.uint8]  # (n, record bytes)
    labels: list[int]
    names: list[str]
    skipped: list[tuple[str, str]]  # (name, reason)
    checksum: str
    sums: "Sums"


def encode_block(items: Sequence[Item], size: int, resize: Resize, max_pixels: int = MAX_PIXELS) -> Encoded:
    """Read and encode the items of one block."""
    records = np.empty((len(items), record_bytes(size)), np.uint8)
    good: list[Item] = []
    skipped: list[tuple[str, str]] = []
    for item in items:
        try:
            records[len(good)] = encode(sources.read(item), size, resize, max_pixels)
            good.append(item)
        except Unreadable as reason:
            skipped.append((item.name, str(reason)))
        except OSError as error:  # a file that vanished or may not be read
            skipped.append((item.name, f"cannot be read: {error.strerror or error}"))
    records = records[: len(good)]
    return Encoded(
        records, [item.label for item in good], [item.name for item in good], skipped, sha256(records), Sums.of(records)
    )


def _encode_ahead(
    executor: Executor | None, items: Sequence[tuple[str, Sequence[Item]]], size: int, resize: Resize, max_pixels: int
) -> Iterator[Encoded]:
    """Encode the blocks in order, a few ahead of the one that is being written."""
    if executor is None:
        for _, block in items:
            yield encode_block(block, size, resize, max_pixels)
        return
    waiting: deque[Future[Encoded]] = deque()
    for _, block in items:
        waiting.append(executor.submit(encode_block, block, size, resize, max_pixels))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _executor(workers: int | None, images: int) -> Iterator[Executor | None]:
    """Processes to decode in; None stands for this one."""
    workers = workers or (os.cpu_count() or 1 if images >= FEW else 1)
    if workers == 1:
        yield None
        return
    # Forking from a process whose threads have started can hang; the fork server has none.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    with _deaf():  # Ctrl-C reaches the whole group of processes; the parent alone shall answer, and not halfway through a start
        if method == "forkserver":
            from multiprocessing import forkserver  # not on every system

            forkserver.ensure_running()
        executor = ProcessPoolExecutor(workers, multiprocessing.get_context(method), initializer=_start_worker)
        for _ in range(workers):
            executor.submit(os.getpid)  # each first task starts a worker
    try:
        yield executor
    finally:
        with _deaf():  # a second Ctrl-C must not leave the workers behind; they end with the blocks that they have in hand
            executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore Ctrl-C for a moment; processes started in it ignore it for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot say so; without this its workers would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


# --- statistics ---------------------------------------------------------------------------------------------------------


@dataclass
class Sums:
    """Sums over records, all integers, so that any order and any interruption gives the same.

    Attributes:
        count: records.
        image: (record bytes,) sum of records, the mean image before division.
        colour: (3,) sum over sampled pixels of Y, U, V.
        products: (3, 3) sum of their products.
        pixels: sampled pixels.
    """

    count: int
    image: NDArray[np.int64]
    colour: NDArray[np.int64]
    products: NDArray[np.int64]
    pixels: int

    @classmethod
    def of(cls, records: NDArray[np.uint8]) -> "Sums":
        # 256 values of at most 255 fit into 16 bits, and float64 holds sums of products below 2^53 exactly.
        assert len(records) <= 256
        image = records.sum(axis=0, dtype=np.uint16).astype(np.int64)
        colour, products, pixels = np.zeros(3), np.zeros((3, 3)), 0
        for record in records:
            y, u, v = planes(record)
            sample = np.stack([y[::4, ::4], u[::2, ::2], v[::2, ::2]]).reshape(3, -1).astype(np.float64)
            colour += sample.sum(axis=1)
            products += sample @ sample.T
            pixels += sample.shape[1]
        return cls(len(records), image, colour.astype(np.int64), products.astype(np.int64), pixels)

    def add(self, other: "Sums") -> None:
        self.count += other.count
        self.image += other.image
        self.colour += other.colour
        self.products += other.products
        self.pixels += other.pixels

    def mean_image(self) -> NDArray[np.float32]:
        """(3, S, S) float32, RGB."""
        y, u, v = planes(self.image / self.count)
        yuv = np.stack([y, *(plane.repeat(2, axis=0).repeat(2, axis=1) - 128 for plane in (u, v))])
        return np.tensordot(TO_RGB, yuv, 1).astype(np.float32)

    def statistics(self) -> dict[str, Any]:
        """The fields of `store.Statistics`, as lists."""
        mean = self.colour / self.pixels
        covariance = TO_RGB @ (self.products / self.pixels - np.outer(mean, mean)) @ TO_RGB.T
        values, axes = np.linalg.eigh(covariance)
        return {
            "mean_colour": (TO_RGB @ (mean - [0, 128, 128])).tolist(),
            "deviation": np.sqrt(np.diag(covariance)).tolist(),
            "axes": axes[:, ::-1].tolist(),
            "axis_deviations": np.sqrt(values[::-1].clip(0)).tolist(),
        }

    def save(self, path: Path) -> None:
        # Not np.save: on a full disk it forgets the reason.
        np.savez(path, count=self.count, image=self.image, colour=self.colour, products=self.products, pixels=self.pixels)

    @classmethod
    def load(cls, path: Path) -> "Sums":
        with np.load(path) as saved:
            return cls(int(saved["count"]), saved["image"], saved["colour"], saved["products"], int(saved["pixels"]))


# --- writing ------------------------------------------------------------------------------------------------------------


@dataclass
class _Writer:
    """The store under construction. What `progress.jsonl` says is done is done; the rest is cut off on the next start."""

    folder: Path
    source: Source
    size: int
    resize: Resize
    max_pixels: int
    skipped: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    blocks: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # records and checksum of each block
    lock: IO[str] | None = None

    def open(self) -> int:
        """Start or resume; the number of blocks that are done."""
        settings = {"format": FORMAT, "size": self.size, "resize": self.resize, "source": self._source_fingerprint()}
        if self.max_pixels != MAX_PIXELS:  # stores that were begun before there was a choice have none
            settings["max_pixels"] = self.max_pixels
        lines = self._earlier(settings)
        if not lines:
            self._check_space()
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        self.sums = Sums(0, np.zeros(record_bytes(self.size), np.int64), np.zeros(3, np.int64), np.zeros((3, 3), np.int64), 0)
        if not lines:
            (self.folder / PROGRESS).write_text(json.dumps(settings) + "\n")
            return 0
        done = lines[1:]
        for line in done:
            self.counts[line["split"]] += line["records"]
            self.blocks.setdefault(line["split"], []).append((line["records"], line["sha256"]))
            self.skipped += line["skipped"]
        self._cut(lines)
        if done:
            self.sums = Sums.load(self.folder / f"sums.{len(done)}.npz")
            say(f"Resuming {self.folder}: {sum(self.counts.values()):,} pictures are done.")
        return len(done)

    def _lock(self) -> None:
        """Keep the progress file locked while this process lives: two that wrote one store would mix their pictures."""
        self.lock = open(self.folder / PROGRESS, "a")  # noqa: SIM115 - closed in `close`
        if not lock.acquire(self.lock):
            raise StoreError(f"another process is preparing {self.folder}: wait for it, or name another folder.")

    def close(self) -> None:
        """Let another process go on."""
        if self.lock:
            self.lock.close()

    def _source_fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([self.source.kind, self.source.classes]).encode())
        for split, items in self.source.splits.items():
            for item in items:  # one by one: the text of a million pictures need not be in memory
                digest.update(json.dumps([split, *item]).encode())
        return digest.hexdigest()

    def _earlier(self, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """The lines of an unfinished store's progress; empty if there is none."""
        if (self.folder / MANIFEST).exists():
            raise StoreError(f"{self.folder} is a finished store already: delete it or name another folder.")
        progress = self.folder / PROGRESS
        if not progress.exists():
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise StoreError(f"{self.folder} exists and is no store: name a new or empty folder.")
            return []
        text = progress.read_text()
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        if lines and lines[0] != settings:
            changed = [key for key in lines[0] | settings if lines[0].get(key) != settings.get(key)]
            raise StoreError(
                f"{self.folder} is an unfinished store with another {' and '.join(changed)}: "
                "run the command that began it, or delete the folder."
            )
        return lines

    def _check_space(self) -> None:
        count = sum(len(items) for items in self.source.splits.values())
        need = count * record_bytes(self.size)
        parent = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.exists())
        free = shutil.disk_usage(parent).free
        if need > free:
            raise StoreError(
                f"{count:,} pictures of {self.size} x {self.size} need {need / 1e6:,.1f} MB, and {parent} has "
                f"{free / 1e6:,.1f} MB free: choose a smaller --size or another disk."
            )

    def _paths(self, split: str) -> tuple[Path, Path, Path]:
        return tuple(self.folder / f"{split}.{ending}" for ending in ("records", "labels", "files"))  # type: ignore[return-value]

    def _cut(self, lines: list[dict[str, Any]]) -> None:
        """Bring every file back to where the last line of the progress left it."""
        for split in self.source.splits:
            last = next((line for line in reversed(lines[1:]) if line["split"] == split), {"ends": [0, 0, 0]})
            for path, end in zip(self._paths(split), last["ends"], strict=True):
                _truncate(path, end)
        _truncate(self.folder / SKIPPED, lines[-1].get("skipped_end", 0))
        _truncate(self.folder / PROGRESS, sum(len(json.dumps(line)) + 1 for line in lines))

    def append(self, split: str, block: Encoded) -> None:
        """Write a block, then the line that makes it count."""
        records, labels, files = self._paths(split)
        ends = [
            _append(records, block.records),
            _append(labels, np.array(block.labels, LABEL)),
            _append(files, "".join(f"{_one_line(name)}\n" for name in block.names).encode("utf-8", "surrogateescape")),
        ]
        listed = [json.dumps({"file": name, "reason": reason}) + "\n" for name, reason in block.skipped]
        skipped_end = _append(self.folder / SKIPPED, "".join(listed).encode())
        number = sum(map(len, self.blocks.values())) + 1
        if split == sources.TRAIN:
            self.sums.add(block.sums)
        self.sums.save(self.folder / f"sums.{number}.npz")
        line = {
            "split": split, "records": len(block.labels), "skipped": len(block.skipped), "sha256": block.checksum,
            "ends": ends, "skipped_end": skipped_end,
        }  # fmt: skip
        _append(self.folder / PROGRESS, (json.dumps(line) + "\n").encode())
        (self.folder / f"sums.{number - 1}.npz").unlink(missing_ok=True)
        self.counts[split] += len(block.labels)
        self.skipped += len(block.skipped)
        self.blocks.setdefault(split, []).append((len(block.labels), block.checksum))

    def finish(self) -> None:
        """Check that every class has a picture, write the statistics and the manifest, remove the progress."""
        per_class = {split: self._per_class(split) for split in self.source.splits}
        empty = [name for name, count in zip(self.source.classes, per_class[sources.TRAIN], strict=True) if not count]
        empty += [split for split in self.source.splits if not self.counts[split]]
        if empty:
            raise SourceError(
                f"no readable picture is left to train on or to test with in {', '.join(map(repr, empty))} "
                f"({self.skipped} files were skipped, see {self.folder / SKIPPED}): mend or add files, or remove the class; "
                f"then delete {self.folder} and prepare again."
            )
        mean = io.BytesIO()
        np.save(mean, self.sums.mean_image())
        (self.folder / MEAN).write_bytes(mean.getvalue())
        small = [MEAN, *(path.name for split in self.source.splits for path in self._paths(split)[1:])]
        manifest = {
            "format": FORMAT, "size": self.size, "resize": self.resize, "source": self.source.kind,
            "classes": self.source.classes,
            "splits": {
                split: {"count": self.counts[split], "per_class": per_class[split], "blocks": self.blocks[split]}
                for split in self.source.splits
            },
            "statistics": self.sums.statistics(), "skipped": self.skipped,
            "files": {name: sha256((self.folder / name).read_bytes()) for name in small},
        }  # fmt: skip
        temporary = self.folder / f"{MANIFEST}.tmp"
        temporary.write_text(json.dumps(manifest, indent=1))
        os.replace(temporary, self.folder / MANIFEST)
        for leftover in (*self.folder.glob("sums.*.npz"), self.folder / PROGRESS):
            leftover.unlink(missing_ok=True)

    def _per_class(self, split: str) -> list[int]:
        labels = np.fromfile(self._paths(split)[1], LABEL)
        return np.bincount(labels, minlength=len(self.source.classes)).tolist()


def _one_line(name: str) -> str:
    return name.replace("\n", "\\n")


def _append(path: Path, data: bytes | NDArray[Any]) -> int:
    """Append and return the file's new length."""
    with open(path, "ab") as file:
        file.write(data)  # type: ignore[arg-type]  # arrays are buffers
        return file.tell()


def _truncate(path: Path, length: int) -> None:
    if path.exists() or length:
        if not path.exists() or path.stat().st_size < length:
            raise StoreError(f"{path} is shorter than it was, {length:,} bytes: delete the folder and prepare again.")
        os.truncate(path, length)
