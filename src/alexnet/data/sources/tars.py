"""Tars and their members, read in place."""

import io
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from alexnet.data.sources.walk import LeftOut, passed_over
from alexnet.errors import SourceError
from alexnet.files import open_regular

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def members_of(path: Path, left_out: LeftOut, offset: int = 0, length: int | None = None) -> list[tarfile.TarInfo]:
    """The files of an uncompressed tar, or of one that is a member of another; offsets
    count from the outer start.

    Raises:
        SourceError: it is compressed, damaged or cut short.
    """
    try:
        with open_regular(path) as file:
            _check_uncompressed(file, path)
            inner = _Span(file, offset, length if length is not None else path.stat().st_size)
            with tarfile.open(fileobj=inner, mode="r:") as tar:
                members = [member for member in tar if _taken(member, f"{path.name}/{member.name}", left_out)]
                _check_end(inner, tar.offset, offset)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from error
    except tarfile.ReadError as error:
        raise SourceError(f"{path} is an incomplete or damaged tar ({error}): download it again.") from error
    for member in members:
        member.offset_data += offset
    return members


def _check_uncompressed(file: BinaryIO, path: Path) -> None:
    head = file.read(6)
    if kind := next((name for magic, name in COMPRESSED.items() if head.startswith(magic)), None):
        raise SourceError(
            f"{path} is compressed with {kind}, so its pictures cannot be reached one by one: unpack it first, or store it as "
            "a plain tar."
        )


def _taken(member: tarfile.TarInfo, name: str, left_out: LeftOut) -> bool:
    """Whether a member is a regular file, and not one that a system left there."""
    if member.isdir():
        return False
    if any(map(passed_over, PurePosixPath(member.name).parts)):
        left_out.add("hidden file{s} or system file{s} in tars", name)
    elif not member.isfile() or member.issparse():
        left_out.add("link{s}, device{s} or sparse file{s} in tars", name)
    else:
        return True
    return False


def _check_end(tar: "_Span", end: int, start: int) -> None:
    """A tar ends with blocks of zeros. tarfile takes a header that it cannot read, and the end of
    the file, for that too."""
    tar.seek(end)
    block = tar.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {start + end}")
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"cut short at byte {start + end}, as the two blocks of zeros at its end are missing")


class _Span(io.RawIOBase):
    """Part of an open file as a file: a tar within a tar is read in place."""

    def __init__(self, file: Any, offset: int, length: int) -> None:
        self.file, self.offset, self.length, self.position = file, offset, length, 0

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence]
        self.position = base + position
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.length - self.position)
        self.file.seek(self.offset + self.position)
        data: bytes = self.file.read(left if size < 0 else min(size, left))
        self.position += len(data)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
