"""A cache on the disk for blocks of remote stores, limited in size.

A block is a run of records under one checksum of the manifest. The checksum names its file, so
stores share blocks, a changed store has other ones, and a process can use what another one fetched;
if several need a block at the same time, one of them fetches it. A file is written under another
name and renamed, so it is always complete, and each process verifies it before its first use. When
a new block does not fit, the least recently used ones are removed.
"""

import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from alexnet.console import say
from alexnet.errors import StoreError
from alexnet.files import LEFT_BEHIND, alone

GB = 1_000_000_000
#: Size of the cache by default.
CACHE_GB = 50.0
LIMIT_VARIABLE = "ALEXNET_CACHE_GB"
#: The share of the cache that is freed at a time, as finding what to remove lists the whole folder.
FREED = 1 / 64
#: Bytes of the disk that the cache leaves free.
LEFT_FREE = GB


def limit_in_gb(given: float | None = None) -> float:
    """The size of the cache in GB (10^9 bytes): as given, else $ALEXNET_CACHE_GB, else `CACHE_GB`.

    Raises:
        StoreError: it is not a number above 0.
    """
    text = os.environ.get(LIMIT_VARIABLE, CACHE_GB) if given is None else given
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < 1e9:
        name = "cache_gb" if given is not None else LIMIT_VARIABLE
        raise StoreError(f"{name} (={text}) must be a number of GB above 0, such as {CACHE_GB:g}.")
    return value


class BlockCache:
    """Blocks on the disk, by their checksums.

    Safe with several processes: each removes the least recently used blocks, and fetches again what
    another one removed. Each process after the first may exceed the limit by `FREED` of it.

    Attributes:
        limit: bytes that it may take: as requested, or what the disk has room for.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        used = sum(size for _, size, _ in self._files())
        self.limit = max(0, min(limit, used + free - LEFT_FREE))
        self._lock, self._room = threading.Lock(), 0
        self._written = 0  # bytes of blocks that are being written, whose files do not count yet
        self._verified: dict[str, int] = {}  # inodes by checksum: a new file of the same name is verified, too

    def holds(self, block: int) -> int:
        """How many blocks of `block` bytes remain after making room for another one."""
        return (self.limit - self._freed(block)) // block

    def _freed(self, block: int) -> int:
        return max(block, int(self.limit * FREED))

    def __contains__(self, name: str) -> bool:
        return (self.folder / name).exists()

    def open(self, name: str) -> BinaryIO | None:
        """A block's file, verified; None if it is not here."""
        path = self.folder / name
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        inode = os.fstat(file.fileno()).st_ino
        if self._verified.get(name) != inode:
            if hashlib.file_digest(file, "sha256").hexdigest() != name:
                say(f"{path} is damaged and will be downloaded again.")
                file.close()
                self.drop(name)
                return None
            self._verified[name] = inode
        with suppress(OSError):  # a read-only cache
            _touch(path)
        return file

    def put(self, name: str, data: bytes) -> None:
        """Keep a verified block, unless it exceeds the limit, alone or with those that other
        threads are writing.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        if not self._make_room(len(data)):
            return
        temporary = self.folder / f".{name}.{secrets.token_hex(6)}.tmp"
        with self._writing():
            try:
                temporary.write_bytes(data)
                inode = temporary.stat().st_ino
                _touch(temporary)
                os.replace(temporary, self.folder / name)
            finally:
                temporary.unlink(missing_ok=True)
                with self._lock:
                    self._written -= len(data)
        self._verified[name] = inode

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """A lock on a block, held while it is fetched: other processes wait for it."""
        with ExitStack() as stack:
            with self._writing():
                stack.enter_context(alone(self.folder, name=f".{name}.lock"))
            yield

    def drop(self, name: str) -> None:
        """Remove a block."""
        with suppress(OSError):
            (self.folder / name).unlink()

    def _make_room(self, size: int) -> bool:
        """Whether there is room for a block now, which the caller then writes."""
        with self._lock:
            if self._written + size > self.limit:
                return False
            if self._room < size:
                self._room = self._freed(size)
                self._free(self.limit - self._room - self._written)
            self._room -= size
            self._written += size
        return True

    def _free(self, most: int) -> None:
        """Remove the blocks used least recently, until the others have `most` bytes."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, name in files:
            if total <= most:
                return
            self.drop(name)
            self._verified.pop(name, None)
            total -= size

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """Time of the last use, bytes and name of each block. What a killed process left behind is
        removed after a day.
        """
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process removed it
                    status = entry.stat()
                    if not entry.name.startswith("."):
                        yield status.st_mtime, status.st_size, entry.name
                    elif time.time() - status.st_mtime > LEFT_BEHIND:
                        Path(entry.path).unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn an error of the disk into the user's."""
        try:
            yield
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            f"the cache {self.folder} cannot be used ({error.strerror or error}): free space there, set ALEXNET_CACHE to "
            f"another folder, or {LIMIT_VARIABLE} to a smaller size."
        )


def _touch(path: Path) -> None:
    """Set a file's time of last use to now, more precisely than the kernel would."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))
