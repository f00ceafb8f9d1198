"""IDX files of bytes, the format of MNIST and its family."""

import gzip
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.data.sources.source import Item, Source, by_split, class_names, numbered
from alexnet.errors import SourceError


def idx(images: Sequence[Path]) -> Source:
    splits: dict[str, list[Item]] = {}
    for split, members in by_split(images).items():
        for path in members:
            labels = idx_array(str(_idx_labels(path)), 1)
            count = len(idx_array(str(path), 3))
            if len(labels) != count:
                raise SourceError(f"{path} holds {count} pictures, its label file {len(labels)}.")
            splits.setdefault(split, []).extend(
                Item(f"{path.name}[{row}]", int(label), str(path), "idx", row) for row, label in enumerate(labels)
            )
    return Source("IDX files", numbered(splits, class_names(images[0].parent)), splits)


def _idx_labels(images: Path) -> Path:
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    for candidate in (images.with_name(name), images.with_name(name.removesuffix(".gz")), images.with_name(name + ".gz")):
        if candidate.is_file():
            return candidate
    raise SourceError(f"{images} has no labels beside it: {name} is missing.")


@lru_cache(maxsize=2)
def idx_array(path: str, dimensions: int) -> NDArray[np.uint8]:
    """An IDX file of bytes: magic 0x0000 08 ndim, big-endian sizes, data."""
    try:
        data = Path(path).read_bytes()
        data = gzip.decompress(data) if path.endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < 4 + 4 * dimensions:
        raise SourceError(f"{path} is no IDX file of bytes in {dimensions} dimensions.")
    shape = tuple(int(side) for side in np.frombuffer(data, ">i4", dimensions, 4))
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    if body.size != np.prod(shape):
        raise SourceError(f"{path} is cut short or too long: {body.size} bytes for an array of shape {shape}.")
    return body.reshape(shape)
