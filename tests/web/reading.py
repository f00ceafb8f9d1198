"""A page's file and a scene's bytes read back, as the page does it."""

import json
import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray


def element(page: str, name: str) -> str:
    """The text of a script of the page."""
    return re.findall(rf'<script type="[^"]+" id="{name}">(.*?)</script>', page, re.DOTALL)[0]


def read(scene: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A scene's bytes as its description and arrays."""
    assert scene[:8] == b"AXSCENE1"
    (length,) = struct.unpack("<I", scene[8:12])
    description = json.loads(scene[12 : 12 + length])
    start = -(-(12 + length) // 16) * 16
    kinds = {"f4": "<f4", "u1": "u1", "i4": "<i4"}
    arrays = {}
    for name, one in description["arrays"].items():
        kind = np.dtype(kinds[one["type"]])
        count = int(np.prod(one["shape"]))
        data = scene[start + one["offset"] :][: count * kind.itemsize]
        if one["planes"]:
            data = np.frombuffer(data, np.uint8).reshape(kind.itemsize, -1).T.tobytes()
        arrays[name] = np.frombuffer(data, kind).reshape(one["shape"])
    return description, arrays
