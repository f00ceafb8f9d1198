"""Resample a store to pictures of another size, once; the copy is kept inside the store.

`alexnet prepare photos store` keeps 256 pixels, and a recipe may need 144. Decoding thousands of
photos again is slow, and the photos may be gone; shrinking the records takes seconds. The copy is
a store like any other, in STORE/144px: it is deleted, moved and copied together with the store
that it was made from, changes nothing in it, and is made anew when that store has changed. The copy
of a remote store is made in the cache, beside its small files, and reads each block once; it does
not count towards the cache's limit.

Y, U and V are shrunk by the antialiased bilinear filter that `prepare` uses, each in its own
resolution. A picture that is shrunk twice is a little softer than one that is shrunk once: over 96
ImageNet photos, 256 to 144 pixels beside 144 at once, values differ by 2.6 of 255 grey levels in
the mean and by at most 22 in 99 % of the pixels, nearly all at edges; the mean colour of a picture
moves by 0.6 at most. One core shrinks 6,800 pictures a second.

Pictures are enlarged by the same filter where a network was trained on larger ones; that adds no
detail.
"""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet.address import is_address
from alexnet.console import say
from alexnet.data.image import planes, record_bytes
from alexnet.data.sources import TRAIN
from alexnet.data.statistics import Sums
from alexnet.data.store import MANIFEST, MEAN, SKIPPED, Store, seal, sha256
from alexnet.errors import StoreError
from alexnet.files import alone
from alexnet.meter import Meter
from alexnet.schema import read_json

ORIGIN = "origin.json"


@dataclass(frozen=True)
class Origin:
    """The source of a copy: `fingerprint` of the larger store, `size` of its pictures."""

    fingerprint: str
    size: int


def resampled(store: Store, size: int) -> Store:
    """The store's pictures at `size` pixels.

    Args:
        store: as prepared.
        size: side of the pictures in the copy.

    Returns:
        The copy in pictures of this size, made now if it is not there; the store itself if its
        pictures have this size, or if no store can.

    Raises:
        StoreError: the copy cannot be written, or the store is damaged.
    """
    if store.size == size or size < 2 or size % 2:
        return store
    copy = _copy(store, size)
    if is_address(store.address):  # a folder of the cache means nothing to the user
        copy.address, copy.given = store.address, store.given
    return copy


def _copy(store: Store, size: int) -> Store:
    folder = store.folder / f"{size}px"
    copy = _open(folder, store)
    if copy:
        say(f"Using {folder}: the pictures of {store.address}, resampled earlier from {store.size} to {size} pixels.")
        return copy
    try:
        with alone(store.folder, lambda: say(f"Another process is resampling {store.address}: waiting for it.")):
            return _open(folder, store) or _make(store, size, folder)  # another process may have made it by now
    except OSError as error:
        raise StoreError(
            f"{folder} could not be written ({error.strerror or error}). Training needs the "
            f"pictures of {store.address} ({store.size} pixels) at {size} pixels, "
            f"{_megabytes(store, size)}: free space there or make the folder writable, or prepare "
            f"a store of that size: alexnet prepare PHOTOS STORE --size {size}"
        ) from error


def origin(store: Store) -> str:
    """A remote store's address, or the absolute path of a local one; for a resampled copy, that of
    the store it was made from.
    """
    if is_address(store.address):
        return store.address
    return str((store.folder.parent if (store.folder / ORIGIN).exists() else store.folder).absolute())


def shrink(records: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(N, bytes) uint8 records to records of `size` pixels, (N, size * size * 3 / 2) uint8."""
    shrunk = [
        F.interpolate(torch.from_numpy(np.ascontiguousarray(plane))[:, None], (side, side), mode="bilinear", antialias=True)
        for plane, side in zip(planes(records), (size, size // 2, size // 2), strict=True)
    ]
    return np.concatenate([plane.reshape(len(records), -1).numpy() for plane in shrunk], axis=1)


def _open(folder: Path, store: Store) -> Store | None:
    """The copy, if it is undamaged and matches the store's present content."""
    if not (folder / ORIGIN).exists():
        return None
    try:
        origin = read_json(folder / ORIGIN, Origin, StoreError, "It is made again.")
        copy = Store(folder)
    except StoreError:
        return None
    return copy if origin == Origin(store.fingerprint, store.size) else None


def _make(store: Store, size: int, folder: Path) -> Store:
    """Write the copy under a temporary name and rename it, so that it is never half written."""
    say(
        f"The pictures of {store.address} are resampled from {store.size} to {size} pixels, once: {folder}, "
        f"{_megabytes(store, size)}."
    )
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    if record_bytes(size) * _pictures(store) > shutil.disk_usage(store.folder).free:
        raise OSError("too little space is free")
    try:
        temporary.mkdir()
        _write(store, size, temporary)
        if folder.exists():
            _retire(folder, store)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Store(folder)


def _retire(folder: Path, store: Store) -> None:
    """Take an older copy out of the way. Whoever reads it now keeps the files that are open."""
    if not (folder / ORIGIN).exists():
        raise StoreError(
            f"{folder} is where the resampled copy of {store.address} goes, and holds something else: move it elsewhere."
        )
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _write(store: Store, size: int, folder: Path) -> None:
    manifest: dict[str, Any] = json.loads((store.folder / MANIFEST).read_bytes())
    sums = Sums.none(size)
    with Meter("resampling", _pictures(store), "images") as meter:
        for name in store.splits:
            blocks = []
            for small in _shrunk(folder / f"{name}.records", _blocks(store, name, manifest), size):
                blocks.append((len(small), sha256(small)))
                if name == TRAIN:
                    sums.add(Sums.of(small))
                meter.add(len(small))
            manifest["splits"][name]["blocks"] = blocks
    for name in (SKIPPED, *(f"{name}.{ending}" for name in store.splits for ending in ("labels", "files"))):
        if (store.folder / name).exists():
            shutil.copyfile(store.folder / name, folder / name)
            manifest["files"].setdefault(name, sha256((folder / name).read_bytes()))  # earlier versions left one out
    mean = io.BytesIO()
    np.save(mean, sums.mean_image())
    (folder / MEAN).write_bytes(mean.getvalue())
    manifest |= {"size": size, "statistics": sums.statistics(), "clipped": True}
    manifest["files"][MEAN] = sha256(mean.getvalue())
    (folder / ORIGIN).write_text(json.dumps({"fingerprint": store.fingerprint, "size": store.size}))
    (folder / MANIFEST).write_text(json.dumps(seal(manifest), indent=1))


def _shrunk(path: Path, blocks: Iterator[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """Each block at the new size, once it is written."""
    with open(path, "wb") as file:
        for records in blocks:
            small = shrink(records, size)
            file.write(small.data)
            yield small


def _blocks(store: Store, name: str, manifest: dict[str, Any]) -> Iterator[NDArray[np.uint8]]:
    """A split's records, block by block, each compared with its checksum: a copy must not hide
    damage.
    """
    start = 0
    for count, expected in manifest["splits"][name]["blocks"]:
        store.splits[name].check()
        records = store.splits[name].records[start : start + count]
        if sha256(records) != expected:
            raise StoreError(
                f"{store.folder / name}.records: records {start} to {start + count - 1} are damaged: prepare the store again."
            )
        yield records
        start += count


def _pictures(store: Store) -> int:
    return sum(map(len, store.splits.values()))


def _megabytes(store: Store, size: int) -> str:
    return f"{record_bytes(size) * _pictures(store) / 1e6:,.1f} MB"
