"""Turn photos into a store: `alexnet prepare photos/ store/`.

The items of a source are taken in order, 256 at a time; all cores decode, one process writes. After
each block one line goes to `progress.jsonl`: how many records are good up to here. A process that
is killed leaves at most an unfinished block behind that line; the same command cuts it off and goes
on, and the store ends with the same bytes. The manifest comes last.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from alexnet import paper
from alexnet.console import say
from alexnet.data import sources
from alexnet.data.hold_out import check_share, split_off
from alexnet.data.image import MAX_PIXELS, Resize, Unreadable, encode, record_bytes
from alexnet.data.sources import TRAIN, Item, Source
from alexnet.data.sources.source import blocks
from alexnet.data.statistics import Sums
from alexnet.data.store import BLOCK, Store, sha256
from alexnet.data.workers import WorkerDied, Workers, check_workers, open_workers, sigterm_as_ctrl_c
from alexnet.data.writer import Encoded, Writer, check_free
from alexnet.errors import FULL_DISK, SourceError, StoreError
from alexnet.meter import Meter
from alexnet.published import data

HOLD_OUT = 0.1
#: Limits for the side of stored squares, in pixels. ImageNet is stored at 256.
SMALLEST, LARGEST = 2, 4096


def prepare(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]] | Source,
    store: str | PathLike[str],
    *,
    train: str | PathLike[str] | None = None,
    test: str | PathLike[str] | None = None,
    labels: str | PathLike[str] | None = None,
    image: str | None = None,
    size: int = paper.STORED_SIZE,
    resize: Resize = "short-side",
    hold_out: float = HOLD_OUT,
    seed: int = 0,
    shuffle: bool = False,
    strict: bool = False,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Store:
    """Decode, shrink and write every picture of a source.

    Args:
        paths: the source, see `sources.find`: one path, or several; empty if its parts are named.
            The name of a published data set stands for its folder; what is not here is downloaded.
            What `find` has found is taken as it is.
        train, test: the parts of the source by hand, see `sources.find`.
        labels: a table with the class of each photo, see `sources.table`.
        image: which picture of a key of a WebDataset shard to take, see `sources.find`.
        store: folder to write; it must be new, empty, or an unfinished store of the
            same source and settings.
        size: side of the stored squares in pixels, even.
        resize: how a picture becomes a square.
        hold_out: share of each class that becomes `val` if the source has no
            second split, see `hold_out.split_off`.
        seed: of that draw, and of the order of `shuffle`.
        shuffle: store the training pictures in random order instead of the source's, as
            `loader.block_shuffle` needs.
        strict: stop at the first file that is not a usable picture.
        workers: processes that decode; all cores if None.
        max_pixels: a picture that takes more pixels of memory is skipped, see `image.encode`.

    Raises:
        SourceError: the source cannot be used, or `strict` met a bad file.
        StoreError: an argument is out of range, the folder is in the way, or the disk is full.
    """
    found = paths if isinstance(paths, Source) else None
    source_paths, folder = _paths(() if isinstance(paths, Source) else paths), _path("store", store)
    parts = {name: _path(name, part) for name, part in (("train", train), ("test", test)) if part is not None}
    if not source_paths and not parts and not found:
        raise SourceError(f"paths (={paths!r}) names no source: name a folder of photos, or files.")
    _check_form(size, resize)
    if not _whole(seed):
        raise StoreError(f"seed (={seed!r}) must be a whole number.")
    if not _whole(max_pixels) or max_pixels < 1:
        raise StoreError(f"max_pixels (={max_pixels!r}) must be a whole number of at least 1.")
    check_workers(workers)
    check_share(hold_out)
    with _saying_how_to_go_on(), sigterm_as_ctrl_c(), _without_tracebacks(folder):
        if any(str(path) in data.names() for path in source_paths):
            check_free(folder)  # before anything is downloaded for it
        source_paths = [data.source_of(path) for path in source_paths]
        check_apart(folder, [*source_paths, *parts.values()])
        table = None if labels is None else _path("labels", labels)
        source = found or sources.find(source_paths, **parts, labels=table, image=image)
        check_free(folder)
        with open_workers(workers, sum(map(len, source.splits.values()))) as processes:
            if len(source.splits) == 1:
                readable = partial(_readable, size=int(size), resize=resize, max_pixels=int(max_pixels))
                source = split_off(source, hold_out, int(seed), readable, processes.each)
            source = _shuffled(source, int(seed)) if shuffle else source
            jobs = [(split, block) for split, items in source.splits.items() for block in blocks(items, BLOCK)]
            with Writer(folder, source, int(size), resize, int(max_pixels), jobs) as writer:
                _write(writer, processes, strict)
    return Store(folder)


def _check_form(size: int, resize: str) -> None:
    """Refuse a size or a resize rule that no store has."""
    if not _whole(size) or not SMALLEST <= size <= LARGEST or size % 2:
        raise StoreError(
            f"size (={size!r}) must be an even number of pixels from {SMALLEST} to {LARGEST:,}: colour is stored at half "
            "resolution."
        )
    if resize not in get_args(Resize):
        raise StoreError(f"resize (={resize!r}) must be {' or '.join(get_args(Resize))}.")


def _shuffled(source: Source, seed: int) -> Source:
    """The source with its training pictures in random order."""
    items = source.splits[TRAIN]
    order = np.random.default_rng(seed).permutation(len(items))
    return replace(source, splits={**source.splits, TRAIN: [items[place] for place in order]})


def _paths(given: object) -> list[Path]:
    listed = [given] if isinstance(given, str | PathLike) else given
    if not isinstance(listed, Sequence):
        raise SourceError(f"paths (={given!r}) must be a path or a list of paths.")
    return [_path("paths", path) for path in listed]


def _path(name: str, given: object) -> Path:
    if not isinstance(given, str | PathLike):
        raise (StoreError if name == "store" else SourceError)(f"{name} (={given!r}) must be a path.")
    return Path(given)


def check_apart(store: Path, source: Sequence[Path]) -> None:
    """Refuse a store inside the folder that it is made of.

    Raises:
        StoreError: it is.
    """
    above = store.resolve().parents
    if inside := [path for path in source if path.is_dir() and path.resolve() in above]:
        raise StoreError(f"the store {store} would be inside its source {inside[0]}: name a folder elsewhere.")


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _write(writer: Writer, processes: Workers, strict: bool) -> None:
    jobs = writer.blocks
    encode_one = partial(encode_block, size=writer.size, resize=writer.resize, max_pixels=writer.max_pixels)
    with Meter("preparing", sum(len(block) for _, block in jobs), "images") as meter:
        done = writer.open()
        meter.skip(sum(len(block) for _, block in jobs[:done]))
        encoded = processes.each(encode_one, jobs[done:])
        for (split, block), result in zip(jobs[done:], encoded, strict=True):
            if strict and result.skipped:
                name, reason = result.skipped[0]
                raise SourceError(f"{name}: {reason}. Remove or replace it, or drop --strict to skip and list such files.")
            writer.append(split, result)
            meter.add(len(block), f"{writer.skipped} skipped" if writer.skipped else "")
        writer.finish()


# --- what may go wrong ----------------------------------------------------------------------------


@contextmanager
def _saying_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say("Interrupted: run the same command to continue.")
        raise


@contextmanager
def _without_tracebacks(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise StoreError(
            f"no space left for {store} ({error.strerror}). The work done so far is kept: free "
            "some space and run the same command again."
        ) from error
    except WorkerDied as error:
        raise StoreError(
            "a decoding process died, perhaps for lack of memory. The work done so far is kept: "
            "run the same command again, with fewer --workers."
        ) from error


# --- decoding -------------------------------------------------------------------------------------


def encode_block(job: tuple[str, Sequence[Item]], size: int, resize: Resize, max_pixels: int = MAX_PIXELS) -> Encoded:
    """Read and encode the items of one block; `job` is its split and they."""
    split, items = job
    records = np.empty((len(items), record_bytes(size)), np.uint8)
    good: list[Item] = []
    skipped: list[tuple[str, str]] = []
    for item in items:
        try:
            records[len(good)] = _encode(item, size, resize, max_pixels)
            good.append(item)
        except Unreadable as reason:
            skipped.append((item.name, str(reason)))
    records = records[: len(good)]
    sums = Sums.of(records) if split == TRAIN else None
    return Encoded(records, [item.label for item in good], [item.name for item in good], skipped, sha256(records), sums)


def _encode(item: Item, size: int, resize: Resize, max_pixels: int) -> NDArray[np.uint8]:
    try:
        return encode(sources.read(item), size, resize, max_pixels)
    except OSError as error:  # a file that vanished or may not be read
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error


def _readable(item: Item, size: int, resize: Resize, max_pixels: int) -> bool:
    try:
        _encode(item, size, resize, max_pixels)
    except Unreadable:
        return False
    return True
