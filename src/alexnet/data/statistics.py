"""Mean image, mean colour and principal components of colour, as the network sees the pixels.

A network sees RGB clipped to [0, 255] (`kernels.yuv_to_rgb`); saturated colours leave that range
between YCbCr and RGB. The conversion is linear but for the clipping, so records are summed as they
are, in YUV, and converted once. What clipping adds to a pixel is summed beside it, for the few
pixels that it changes: 1.6 % in 96 photos of ImageNet.

All sums are integers, so any order and any interruption gives the same. Colour uses one pixel in
16, the top left one of each 4 x 4 square (one in 4 would cost 6 % of the work of `prepare`). A
record takes 0.12 ms, 7 % of decoding and shrinking a photo.
"""

import zipfile
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet.data.image import planes, record_bytes
from alexnet.errors import StoreError

#: YCbCr minus (0, 128, 128) to RGB, as in `kernels.yuv_to_rgb`.
TO_RGB = np.array([[1.0, 0.0, 1.402], [1.0, -0.344136286, -0.714136286], [1.0, 1.772, 0.0]])
#: Bits behind the point: of what clipping adds to a pixel, and of the same in products,
#: which must not overflow.
BITS, PRODUCT_BITS = 16, 4
WHITE = 255 << BITS
#: Pictures whose clipped pixels are looked at together: those of 32 stay in the processor's cache.
TOGETHER = 32
#: Most records in one `Sums.of`: 256 values of at most 255 fit into 16 bits.
MOST = 256


@dataclass
class Sums:
    """Sums over records.

    Attributes:
        count: records.
        image: (record bytes,) sum of records, the mean image before division.
        colour: (3,) sum over sampled pixels of Y, U, V.
        products: (3, 3) sum of their products.
        pixels: sampled pixels.
        clipped_image: (3, S, S) sum of what clipping adds to R, G, B, times 2^BITS.
        clipped_colour: (3,) the same over the sampled pixels.
        clipped_products: (3, 3) what clipping adds to the products of R, G, B
            there, times 4^PRODUCT_BITS.
    """

    count: int
    image: NDArray[np.int64]
    colour: NDArray[np.int64]
    products: NDArray[np.int64]
    pixels: int
    clipped_image: NDArray[np.int64]
    clipped_colour: NDArray[np.int64]
    clipped_products: NDArray[np.int64]

    @classmethod
    def none(cls, size: int) -> "Sums":
        """Sums of no record yet, for pictures of side `size`."""
        zeros = {name: np.zeros(shape, np.int64) for name, shape in _shapes(size).items()}
        return cls(count=0, pixels=0, **zeros)

    @classmethod
    def of(cls, records: NDArray[np.uint8]) -> "Sums":
        """Sums of (N, record bytes), N at most `MOST`."""
        assert len(records) <= MOST
        image = records.sum(axis=0, dtype=np.uint16).astype(np.int64)
        colour, products, pixels = np.zeros(3), np.zeros((3, 3)), 0
        for record in records:
            y, u, v = planes(record)
            sample = np.stack([y[::4, ::4], u[::2, ::2], v[::2, ::2]]).reshape(3, -1).astype(np.float64)
            colour += sample.sum(axis=1)  # float64 holds sums of products below 2^53 exactly
            products += sample @ sample.T
            pixels += sample.shape[1]
        size = planes(records)[0].shape[-1]
        clipped = [np.zeros(_shapes(size)[f"clipped_{what}"], np.int64) for what in ("image", "colour", "products")]
        for start in range(0, len(records), TOGETHER):
            for total, part in zip(clipped, _clipping(records[start : start + TOGETHER]), strict=True):
                total += part
        return cls(len(records), image, colour.astype(np.int64), products.astype(np.int64), pixels, *clipped)

    def add(self, other: "Sums") -> None:
        """Add the sums of other records."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def mean_image(self, clipped: bool = True) -> NDArray[np.float32]:
        """(3, S, S) float32, RGB in [0, 255]; without `clipped` as in stores of earlier versions,
        where it may leave that."""
        y, u, v = planes(self.image / self.count)
        yuv = np.stack([y, *(plane.repeat(2, axis=0).repeat(2, axis=1) - 128 for plane in (u, v))])
        mean = np.tensordot(TO_RGB, yuv, 1)
        if clipped:
            mean = (mean + self.clipped_image / (self.count << BITS)).clip(0, 255)
        return mean.astype(np.float32)

    def mean_colour(self, clipped: bool = True) -> NDArray[np.float64]:
        """(3,) RGB."""
        mean = TO_RGB @ (self.colour / self.pixels - [0, 128, 128])
        return mean + self.clipped_colour / (self.pixels << BITS) if clipped else mean

    def covariance(self, clipped: bool = True) -> NDArray[np.float64]:
        """(3, 3) of RGB over the sampled pixels."""
        mean = self.colour / self.pixels
        covariance: NDArray[np.float64] = TO_RGB @ (self.products / self.pixels - np.outer(mean, mean)) @ TO_RGB.T
        if not clipped:
            return covariance
        before, after = self.mean_colour(clipped=False), self.mean_colour()
        added = self.clipped_products / (self.pixels << 2 * PRODUCT_BITS)
        return covariance + added - (np.outer(after, after) - np.outer(before, before))

    def statistics(self) -> dict[str, Any]:
        """The fields of `store.Statistics`, as lists."""
        covariance = self.covariance()
        values, axes = np.linalg.eigh(covariance)
        return {
            "mean_colour": self.mean_colour().tolist(),
            "deviation": np.sqrt(np.diag(covariance).clip(0)).tolist(),
            "axes": axes[:, ::-1].tolist(),
            "axis_deviations": np.sqrt(values[::-1].clip(0)).tolist(),
        }

    def save(self, path: Path) -> None:
        """Write a file that `load` reads."""
        # Not np.save: on a full disk it forgets the reason.
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path, size: int, count: int) -> "Sums":
        """Read what `save` wrote for `count` records of S = `size`.

        Raises:
            StoreError: it is missing, damaged, or of other records.
        """
        try:
            return cls(**_read(path, size, count))
        except Exception as error:  # of `zipfile`, and of NumPy, to which a header is Python source
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise StoreError(f"{path} is damaged: {reason}. Delete {path.parent} and prepare again.") from error


def _shapes(size: int) -> dict[str, tuple[int, ...]]:
    return {
        "image": (record_bytes(size),),
        "colour": (3,),
        "products": (3, 3),
        "clipped_image": (3, size, size),
        "clipped_colour": (3,),
        "clipped_products": (3, 3),
    }


def _read(path: Path, size: int, count: int) -> dict[str, Any]:
    samples = (-(-size // 4)) ** 2
    shapes = {**_shapes(size), "count": (), "pixels": ()}
    with zipfile.ZipFile(path) as archive:
        if any(
            entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size for entry in archive.infolist()
        ):
            raise ValueError("it is compressed, which alexnet never does")
        if missing := [name for name in shapes if f"{name}.npy" not in archive.namelist()]:
            raise ValueError(f"it lacks {missing[0]}")
    arrays = {}
    with np.load(path) as saved:
        for name, shape in shapes.items():
            arrays[name] = saved[name]
            if arrays[name].shape != shape or arrays[name].dtype != np.int64:
                raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, but must be int64 {shape}")
    values = {**arrays, "count": int(arrays["count"]), "pixels": int(arrays["pixels"])}
    if values["count"] != count or values["pixels"] != count * samples:
        raise ValueError(f"it covers {values['count']} records, but {count} are written")
    if values["image"].min(initial=0) < 0 or values["image"].max(initial=0) > 255 * count:
        raise ValueError(f"image cannot be a sum of {count} values in [0, 255]")
    return values


# --- what clipping adds ---------------------------------------------------------------------------


class _Tables(NamedTuple):
    """Chroma to RGB, times 2^BITS, and where clipping begins.

    Attributes:
        red, green_u, green_v, blue: (256,) int32, what V, U, V, U add to Y.
        high, low: (65536,) uint16 by 256 U + V: Y above `high` or below `low` makes some channel
            leave [0, 255]. Each holds the byte twice, for two pixels that share a chroma.
    """

    red: NDArray[np.int32]
    green_u: NDArray[np.int32]
    green_v: NDArray[np.int32]
    blue: NDArray[np.int32]
    high: NDArray[np.uint16]
    low: NDArray[np.uint16]


@cache
def _tables() -> _Tables:
    chroma = np.arange(256) - 128.0
    factors = TO_RGB[0, 2], TO_RGB[1, 1], TO_RGB[1, 2], TO_RGB[2, 1]
    red, green_u, green_v, blue = (np.rint(factor * chroma * 2**BITS).astype(np.int32) for factor in factors)
    added = np.stack(np.broadcast_arrays(red[None], green_u[:, None] + green_v[None], blue[:, None]))
    high = (WHITE - added.max(axis=0)) >> BITS
    low = -(added.min(axis=0) >> BITS)
    return _Tables(red, green_u, green_v, blue, *((bound.reshape(-1) * 257).astype(np.uint16) for bound in (high, low)))


def _clipping(records: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The effect of clipping on (N, record bytes): `clipped_image`, `clipped_colour`,
    `clipped_products`.
    """
    size = planes(records)[0].shape[-1]
    tables = _tables()
    place, y, u, v = (np.concatenate(parts) for parts in zip(*map(_suspects, records), strict=True))
    luma = y.astype(np.int32) << BITS
    image = np.empty((3, size * size), np.int64)
    sampled = np.flatnonzero(_grid(size)[place])
    raw = np.empty((3, len(sampled)), np.int32)
    for channel, added in enumerate((tables.red[v], tables.green_u[u] + tables.green_v[v], tables.blue[u])):
        added += luma
        raw[channel] = added[sampled]
        difference = np.minimum(np.maximum(added, 0), WHITE)
        difference -= added
        changed = np.flatnonzero(difference)
        # float64 holds these sums exactly: at most 32 times 180 << 16.
        image[channel] = np.bincount(place[changed], difference[changed], size * size)
    seen = raw.clip(0, WHITE)
    colour = (seen - raw).sum(axis=1, dtype=np.int64)
    clipped, unclipped = (_coarse(values) for values in (seen, raw))
    products = clipped @ clipped.T - unclipped @ unclipped.T  # sums below 2^53, exact
    return image.reshape(3, size, size), colour, products.astype(np.int64)


@cache
def _grid(size: int) -> NDArray[np.bool_]:
    """(S * S,): which pixels colour is taken from."""
    grid = np.zeros((size, size), np.bool_)
    grid[::4, ::4] = True
    return grid.reshape(-1)


def _coarse(values: NDArray[np.int32]) -> NDArray[np.float64]:
    """From `BITS` behind the point to `PRODUCT_BITS`, rounded."""
    dropped = BITS - PRODUCT_BITS
    return ((values + (1 << dropped - 1)) >> dropped).astype(np.float64)


def _suspects(record: NDArray[np.uint8]) -> tuple[NDArray[Any], ...]:
    """Find the pixels that clipping may change, two rows at a time: place in the picture, Y, U and
    V of each.
    """
    tables = _tables()
    y, u, v = planes(record)
    size = len(y)
    index = (u.astype(np.uint16) << 8) | v
    upper, lower = y[0::2], y[1::2]
    suspect = np.maximum(upper, lower) > tables.high.take(index).view(np.uint8)
    suspect |= np.minimum(upper, lower) < tables.low.take(index).view(np.uint8)
    suspects = np.flatnonzero(suspect)  # in (S / 2, S)
    place = suspects // size * size + suspects
    place = np.concatenate([place, place + size])
    chroma = suspects >> 1  # as S is even
    chroma = np.concatenate([chroma, chroma])
    return place, y.reshape(-1)[place], u.reshape(-1)[chroma], v.reshape(-1)[chroma]
