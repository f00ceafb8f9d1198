"""The units on the page: of every convolution the kernels that answer this picture most, what each
saw here, and, where a store is given, what it likes.
"""

import io
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from alexnet.arithmetic import Conv
from alexnet.data.store import TRAIN, Split, Store
from alexnet.inspect import patches
from alexnet.inspect.deconvolution import deconvolve, strongest
from alexnet.inspect.patches import Patches
from alexnet.web.shown import Shown

#: Kernels of each convolution, pixels of the longer side of a patch, and JPEG quality: together
#: with patches they take less than a megabyte.
SHOWN, PATCH_SIDE, QUALITY = 6, 72, 80
MIDDLE = 128  # of a projection drawn in bytes: no activation
BRIGHT = 0.998  # share of its values that are drawn in proportion
PROJECTION_QUALITY = 92


@dataclass(frozen=True)
class Liked:
    """The best patches of a network's kernels.

    Attributes:
        patches: by convolution.
        pictures: what they are numbers of.
    """

    patches: Mapping[str, Patches]
    pictures: Split

    @classmethod
    def of(cls, shown: Shown, store: Store) -> "Liked":
        """Those of the pictures that a store is trained on; looked for once, then in the cache.

        Raises:
            CheckpointError: the store does not fit the network.
        """
        last = [op.name for op in shown.ops if isinstance(op, Conv)][-1]
        found = patches.kept_patches(shown.model, shown.preprocessing, store, shown.hash, TRAIN, last)
        return cls(found, patches.fitting(store, shown.preprocessing).split(TRAIN))


def units(shown: Shown, stages: Mapping[str, Tensor], liked: Liked | None) -> dict[str, list[dict[str, Any]]]:
    """The strongest kernels of every convolution, what they saw and what they like.

    Args:
        shown: the network.
        stages: its stages on one picture, (1, C, H, W) each.
        liked: what its kernels like.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for op in shown.ops:
        if not isinstance(op, Conv):
            continue
        found[op.name] = []
        for channel, row, column, value in strongest(stages, op.name, SHOWN):
            projection = deconvolve(shown.model, stages, op.name, channel, row, column)
            drawn = jpeg(as_bytes(projection.pixels), quality=PROJECTION_QUALITY)
            liking = _patches(shown, liked, op.name, channel) if liked else []
            cell = {"channel": channel, "cell": [row, column], "value": value}
            found[op.name].append({**cell, "deconv": drawn, "deconv_box": projection.box, "patches": liking})
    return found


def _patches(shown: Shown, liked: Liked, layer: str, channel: int) -> list[dict[str, Any]]:
    best = liked.patches[layer]
    found = []
    for place, box in enumerate(patches.boxes(shown.model, best, channel)):
        pixels = patches.picture(shown.preprocessing, liked.pictures, int(best.records[channel, place]), box)
        found.append({"jpeg": jpeg(pixels, PATCH_SIDE), "value": float(best.values[channel, place]), "box": box})
    return found


def as_bytes(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A projection as a picture of bytes: 128 is zero; the few largest magnitudes, which would make
    all others look grey, are cut off at 1 and 255.
    """
    most = float(np.quantile(np.abs(pixels), BRIGHT))
    shares = np.clip(pixels / most, -1, 1) if most else np.zeros_like(pixels)
    return np.rint(MIDDLE + (MIDDLE - 1) * shares).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], longest: int | None = None, quality: int = QUALITY) -> str:
    """A picture as a JPEG in base64.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        longest: shrink it to so many pixels on its longer side.
        quality: 0 to 100; above `QUALITY`, colours are at full resolution too.
    """
    image, file = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    if longest:
        image.thumbnail((longest, longest))
    image.save(file, "JPEG", quality=quality, subsampling="4:4:4" if quality > QUALITY else "4:2:0", optimize=True)
    return b64encode(file.getvalue()).decode()
