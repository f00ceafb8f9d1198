"""The bytes of an item."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.data.sources.idx import idx_array
from alexnet.data.sources.parquet import parquet_row
from alexnet.data.sources.source import Item


def read(item: Item) -> bytes | NDArray[np.uint8]:
    """The bytes of an item's file, or its grey levels (H, W) where the source is an array."""
    match item.kind:
        case "file":
            return Path(item.path).read_bytes()
        case "parquet":
            return parquet_row(item.path, item.place)
        case "idx":
            return idx_array(item.path, 3)[item.place]
        case "span":
            with open(item.path, "rb") as file:
                file.seek(item.place)
                return file.read(item.length)
