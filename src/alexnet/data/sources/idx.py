"""IDX files of bytes, the format of MNIST and its family: NAME-images-idx3-ubyte[.gz] and
NAME-labels-idx1-ubyte[.gz]."""

import errno
import gzip
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet.data.sources.numbered import class_names, numbered
from alexnet.data.sources.source import Item, Source
from alexnet.data.sources.splits import split_of
from alexnet.data.sources.walk import LeftOut
from alexnet.errors import SourceError
from alexnet.files import open_regular

IMAGES = re.compile(r"images[-.]idx3-ubyte(\.gz)?$")
#: A compressed file is unpacked into memory, in every process that decodes.
MAX_UNPACKED_BYTES = 2**31


def without_copies(files: Sequence[Path], left_out: LeftOut) -> list[Path]:
    """Picture files, without each .gz that is next to its unpacked copy."""
    there = set(files)
    for file in files:
        if file.suffix == ".gz" and file.with_suffix("") in there:
            left_out.add("compressed file{s} next to the same file unpacked", str(file))
    return [file for file in files if not (file.suffix == ".gz" and file.with_suffix("") in there)]


def check_one_set(files: Sequence[Path]) -> None:
    """Refuse files of several data sets: EMNIST has six in one folder.

    Raises:
        SourceError: their names differ in more than the split.
    """
    sets: dict[str, Path] = {}
    for file in files:
        words = [word for word in re.split(r"[-_.]", IMAGES.sub("", file.name)) if word and split_of(word) is None]
        sets.setdefault("-".join(words), file)
    if len(sets) > 1:
        names = sorted(name or "(no name)" for name in sets)
        first = next(file for name, file in sets.items() if name == (names[0] if names[0] != "(no name)" else ""))
        folder = first.parent
        example = f"{folder}/*{names[-1]}*images*" if names[-1] != "(no name)" else str(first)
        raise SourceError(
            f"{folder} holds {len(sets)} data sets ({', '.join(names)}): name the picture files of one of them, such as "
            f"alexnet prepare {example} STORE"
        )


def idx(splits: Mapping[str, Sequence[Path]], left_out: LeftOut) -> Source:
    """The source of IDX files.

    Args:
        splits: the files of pictures of each split.
        left_out: counts what is passed over.

    Raises:
        SourceError: a file is damaged, or has no labels beside it.
    """
    idx_array.cache_clear()  # files may have changed since they were read for another source
    items: dict[str, list[Item]] = {}
    for split, files in splits.items():
        for path in files:
            labels = idx_array(str(_labels_of(path)), 1)
            count = _shape_of(path)[0]
            if len(labels) != count:
                raise SourceError(f"{path} holds {count} pictures, but its label file has {len(labels)}: download both again.")
            items.setdefault(split, []).extend(
                Item(f"{path.name}[{row}]", int(label), str(path), "idx", row) for row, label in enumerate(labels)
            )
    folders = {path.parent: None for files in splits.values() for path in files}
    return numbered("IDX files", items, class_names(*folders), left_out)


def _labels_of(images: Path) -> Path:
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    for candidate in (images.with_name(name), images.with_name(name.removesuffix(".gz")), images.with_name(name + ".gz")):
        if candidate.is_file():
            return candidate
    raise SourceError(f"{images} has no label file next to it: {name} is missing.")


def _shape_of(path: Path) -> tuple[int, ...]:
    """The shape of an array of pictures, whose length is checked."""
    return idx_array(str(path), 3).shape


def idx_row(path: str, row: int) -> NDArray[np.uint8]:
    """(H, W) grey levels of one picture.

    Raises:
        OSError: the file has changed.
    """
    try:
        return idx_array(path, 3)[row]
    except (SourceError, IndexError) as error:
        raise OSError(errno.EIO, f"changed since it was found ({error})", path) from error


@lru_cache(maxsize=2)
def idx_array(path: str, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of bytes: magic 0x0000 08 ndim, big-endian sizes, data.

    Raises:
        SourceError: it cannot be read, or is not such a file.
    """
    try:
        with open_regular(path) as file:
            if path.endswith(".gz"):
                with gzip.open(file) as unpacked:
                    return _array(unpacked, path, dimensions)  # type: ignore[arg-type]  # it reads like a file
            return _array(file, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def _array(file: BinaryIO, path: str, dimensions: int) -> NDArray[np.uint8]:
    length = 4 + 4 * dimensions
    header = file.read(length)
    if header[:4] != bytes([0, 0, 8, dimensions]) or len(header) < length:
        raise SourceError(f"{path} is not an IDX file of bytes in {dimensions} dimensions: download it again.")
    shape = tuple(int(side) for side in np.frombuffer(header, ">u4", dimensions, 4))
    expected = math.prod(shape)
    if 0 in shape[1:]:
        raise SourceError(f"{path} holds empty pictures: its array has the shape {shape}.")
    if expected > MAX_UNPACKED_BYTES and path.endswith(".gz"):
        raise SourceError(f"{path} is too large to read compressed ({expected:,} bytes unpacked): unpack it with gunzip first.")
    body = _read(file, expected + 1)
    if len(body) != expected:
        size = f"more than {expected:,}" if len(body) > expected else f"{len(body):,}"
        raise SourceError(f"{path} is cut short or too long: {size} bytes for an array of shape {shape}. Download it again.")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _read(file: BinaryIO, length: int) -> bytes:
    """Read up to `length` bytes, never taking more memory than the file has bytes."""
    pieces = []
    while length and (piece := file.read(min(length, 2**24))):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
