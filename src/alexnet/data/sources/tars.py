"""Tars: their members, in place, and WebDataset shards."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet.data.sources.source import IMAGE_ENDINGS, Item, Source, by_split, class_names, numbered
from alexnet.errors import SourceError


def members_of(path: Path, offset: int = 0, length: int | None = None) -> list[tarfile.TarInfo]:
    """The files of an uncompressed tar, or of one that is a member of another; offsets count from the outer start."""
    try:
        with open(path, "rb") as file:
            inner = _Span(file, offset, length if length is not None else path.stat().st_size)
            with tarfile.open(fileobj=inner, mode="r:") as tar:
                members = [member for member in tar if member.isfile()]
                # tarfile takes a header that it cannot read for the end.
                inner.seek(tar.offset)
                if inner.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError(f"damaged at byte {offset + tar.offset}")
    except tarfile.ReadError as error:
        raise SourceError(
            f"{path} is no uncompressed tar ({error}): unpack a compressed one first, download a damaged one again."
        ) from error
    for member in members:
        member.offset_data += offset
    return members


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


def webdataset(contents: dict[Path, list[tarfile.TarInfo]]) -> Source:
    """Shards of KEY.jpg and KEY.cls pairs; the class is a number."""
    splits: dict[str, list[Item]] = {}
    names: list[str] = []
    for split, shards in by_split(list(contents)).items():
        for shard in shards:
            pictures, labels = _pairs(shard, contents[shard])
            splits.setdefault(split, []).extend(
                Item(f"{shard.name}/{member.name}", labels[key], str(shard), "span", member.offset_data, member.size)
                for key, member in pictures.items()
            )
            names = names or class_names(shard.parent) or class_names(shard.parent.parent)
    return Source("WebDataset shards", numbered(splits, names), splits)


def _pairs(shard: Path, members: Sequence[tarfile.TarInfo]) -> tuple[dict[str, tarfile.TarInfo], dict[str, int]]:
    pictures: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    with open(shard, "rb") as file:
        for member in members:
            key, _, ending = member.name.rpartition(".")
            if f".{ending.lower()}" in IMAGE_ENDINGS:
                pictures[key] = member
            elif ending == "cls":
                file.seek(member.offset_data)
                text = file.read(member.size).decode(errors="replace").strip()
                if not text.isdigit():
                    raise SourceError(f"{shard}: {member.name} holds {text[:20]!r} instead of a class number.")
                labels[key] = int(text)
    if not pictures or (missing := [key for key in pictures if key not in labels]):
        what = f"{missing[0]!r} has no .cls with its class" if pictures else "no pictures"
        raise SourceError(f"{shard} is no WebDataset shard: {what}.")
    return pictures, labels
