"""Unpack a published archive of photos into a folder that appears when it is whole.

The archive's hash was compared before, so it is the one that everybody has. It is read all the
same as if it were anybody's: only folders and regular files are made, each by this program and
below the new folder; a link, a device, a pipe or a name that leads elsewhere stops the work and
is named. Archive and members together may not take more bytes than a limit, nor any header more
than a chunk, so that no archive fills the disk or the memory.
"""

import gzip
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from alexnet.errors import FULL_DISK, DownloadError
from alexnet.meter import Meter
from alexnet.published.registry import CHUNK, MB

KB = 1_000
#: What leads out of a folder on some system: Windows takes \ for / and C: for a disk.
ELSEWHERE = re.compile(r"[\\:\0]")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold.

    Attributes:
        members: files and folders.
        bytes: of the tar inside, headers included.
    """

    members: int
    bytes: int


class _Refused(Exception):
    """What is wrong with an archive."""


def unpack(archive: Path, inside: str, folder: Path, limits: Limits) -> None:
    """Unpack `inside`, a folder in a .tgz, so that it becomes `folder`.

    The work is done in a folder beside it, which is removed if it fails. What a killed process
    left there is removed first; so one process at a time may unpack to `folder`.

    Args:
        archive: a tar compressed with gzip.
        inside: name of a folder in it; all else is unpacked too, and dropped.
        folder: must not exist, or be empty.
        limits: an archive with more is refused.

    Raises:
        DownloadError: the archive is damaged, holds what it must not, or does not fit on the disk.
    """
    temporary = folder.with_name(f".{folder.name}.unpacking")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _extract(archive, temporary, limits)
        if not (temporary / inside).is_dir():
            raise _Refused(f"it does not contain the folder {inside}")
        if folder.is_dir():
            folder.rmdir()  # an empty one
        os.replace(temporary / inside, folder)
    except (_Refused, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DownloadError(f"{archive} was not unpacked: {error}. Remove it and pull again.") from error
    except OSError as error:
        raise _unwritten(archive, folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritten(archive: Path, folder: Path, error: OSError) -> DownloadError:
    if error.errno in FULL_DISK:
        free = shutil.disk_usage(archive.parent).free
        return DownloadError(
            f"{archive.name} does not fit unpacked into {folder.parent} ({error.strerror}, {free / MB:.1f} MB are free). The "
            "archive is kept: free some space, or set ALEXNET_CACHE to another disk's folder, and pull again."
        )
    return DownloadError(
        f"{archive} could not be unpacked to {folder} ({error.strerror or error}): make {folder.parent} writable, or set "
        "ALEXNET_CACHE to a writable folder."
    )


def _extract(archive: Path, folder: Path, limits: Limits) -> None:
    """Every member of the archive, below `folder`."""
    with archive.open("rb") as packed, Meter(f"unpacking {archive.name}", -(-archive.stat().st_size // KB), "kB") as meter:
        for number, (tar, member) in enumerate(_members(packed, limits), 1):
            if number > limits.members:
                raise _Refused(f"it has more than {limits.members:,} members")
            place = folder.joinpath(*_parts(member))
            with _naming(member):
                (place if member.isdir() else place.parent).mkdir(parents=True, exist_ok=True)
                if member.isreg():
                    _copy(tar, member, place)
            meter.add(packed.tell() // KB - meter.done)
        meter.add(meter.total - meter.done)


def _members(packed: BinaryIO, limits: Limits) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with gzip.GzipFile(fileobj=packed) as unzipped:
        forward: Any = _Forward(unzipped, limits.bytes)
        with tarfile.open(fileobj=forward, mode="r:") as tar:
            for member in tar:
                yield tar, member
        forward.check_end()


def _parts(member: tarfile.TarInfo) -> tuple[str, ...]:
    """The parts of a member's name, if it is a file or folder that may be unpacked."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or ELSEWHERE.search(member.name):
        raise _Refused(f"its member {member.name!r} would be outside the folder")
    if member.issym() or member.islnk():
        raise _Refused(f"its member {member.name!r} is a link to {member.linkname!r}")
    if member.issparse() or not (member.isdir() or member.isreg()):
        raise _Refused(f"its member {member.name!r} is neither a file nor a folder")
    return path.parts


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    content = tar.extractfile(member)
    assert content is not None  # it is a regular file
    with open(place, "xb") as file:
        shutil.copyfileobj(content, file, CHUNK)
    if place.stat().st_size != member.size:
        raise _Refused(f"its member {member.name!r} is cut short")


@contextmanager
def _naming(member: tarfile.TarInfo) -> Iterator[None]:
    """Name the member that cannot be made for a reason of its own: a full disk is not one."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _Refused(f"its member {member.name!r} is in the place of another one") from error


class _Forward:
    """A stream as a file that is read once, from front to back, and not beyond a limit."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, most: int) -> None:
        self.stream, self.most, self.position, self.last = stream, most, 0, b""

    def tell(self) -> int:
        """Bytes read so far."""
        return self.position

    def seek(self, position: int) -> int:
        """Read on to `position`."""
        while self.position < position and self.read(min(CHUNK, position - self.position)):
            pass
        return self.position

    def read(self, size: int) -> bytes:
        """The next bytes, at most `CHUNK`: tarfile reads a header at once, whatever its size."""
        if not 0 <= size <= CHUNK:
            raise _Refused(f"it has a header of {size:,} bytes")
        if self.position + size > self.most + CHUNK:  # tarfile looks ahead at the end
            raise _Refused(f"it has more than {self.most:,} bytes unpacked")
        self.last = self.stream.read(size)
        self.position += len(self.last)
        return self.last

    def check_end(self) -> None:
        """Refuse a tar that does not end with zeros: tarfile takes an unreadable header, and
        the end of the stream, for its end.
        """
        if len(self.last) < tarfile.BLOCKSIZE or self.last.strip(b"\0"):
            raise _Refused(f"it is damaged or cut short at byte {self.position:,}")
        while self.read(CHUNK):  # gzip compares its checksum at the end
            pass
