"""Read the bytes of an item. A file may have changed since it was found, so each one is checked
again before it is read.
"""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet.data.formats import AVIF_BRANDS, HEIF_BRANDS, Unreadable
from alexnet.data.sources.idx import idx_row
from alexnet.data.sources.parquet import parquet_row
from alexnet.data.sources.source import Item
from alexnet.files import open_regular

#: A larger file is not read: 89 megapixels of 16-bit RGBA without compression are 0.7 GiB.
MAX_FILE_BYTES = 2**30
#: How files of the formats in `image.FORMATS` begin.
SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"II\0*",
    b"MM*\0",
    *(b"P%d" % number for number in range(1, 7)),
)
#: The last two do not say how a picture is coded.
PICTURE_BRANDS = AVIF_BRANDS | HEIF_BRANDS | {b"miaf", b"heif"}
HEAD_BYTES = 16


def read(item: Item) -> bytes | NDArray[np.uint8]:
    """The bytes of an item's file, or its grey levels (H, W) where the source is an array.

    Raises:
        Unreadable: it does not begin like a picture, or is too large to be one.
        OSError: it cannot be read, or is no longer a regular file.
    """
    match item.kind:
        case "file":
            return read_picture(item.path)
        case "parquet":
            return parquet_row(item.path, item.place)
        case "idx":
            return idx_row(item.path, item.place)
        case "span":
            with open_regular(item.path) as file:
                return _checked(file, item.place, item.length)


def read_picture(path: str | Path) -> bytes:
    """The bytes of a picture's file; only what begins like a picture is read whole.

    Raises:
        Unreadable: it does not begin like a picture, or is larger than `MAX_FILE_BYTES`.
        OSError: it cannot be opened, or is a folder, pipe, socket or device.
    """
    with open_regular(path) as file:
        return _checked(file, 0, os.fstat(file.fileno()).st_size)


def starts_like_a_picture(head: bytes) -> bool:
    """Whether the first `HEAD_BYTES` are those of a picture in a format that we know."""
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in PICTURE_BRANDS
    return head.startswith(SIGNATURES)


def _checked(file: BinaryIO, start: int, length: int) -> bytes:
    """`length` bytes from `start` on, if they begin like a picture."""
    file.seek(start)
    head = file.read(min(HEAD_BYTES, length))
    if head and not starts_like_a_picture(head):
        raise Unreadable("not an image in a known format")
    if length > MAX_FILE_BYTES:
        raise Unreadable(f"{length:,} bytes, more than the limit of {MAX_FILE_BYTES:,} for one picture")
    file.seek(start)
    return file.read(length)
