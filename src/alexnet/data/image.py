"""Turn one picture into one record: decode, shrink, crop to a square, store as YUV 4:2:0.

A record is what a photograph's JPEG holds too: full-range YCbCr (JFIF, ITU-R BT.601), brightness at
every pixel and colour at every second one. 256 x 256 pixels are 98,304 bytes, half of RGB. Two
things make it fast: the JPEG decoder gives YCbCr at the smallest scale (1, 1/2, 1/4, 1/8)
that is large enough, so no colour conversion happens at all, and the picture is shrunk by PyTorch's
vectorised antialiased bilinear filter (same results as Pillow's to one grey level).
"""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.data import formats, profile
from alexnet.data.formats import FORMATS, Unreadable
from alexnet.data.limits import MAX_PIXELS

__all__ = ["FORMATS", "MAX_PIXELS", "Photo", "Resize", "Unreadable", "decode", "encode", "photo", "planes", "record_bytes"]

Resize = Literal["short-side", "squash"]
#: Pixels that are converted at a time: a large picture is in memory as Pillow's
#: and as the result only.
BAND = 1 << 22
#: EXIF orientations of which width and height change places.
SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Photo:
    """A whole photo, upright and made small, for showing it.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, sRGB.
        width, height: the file's own, once it is upright.
        frames: pictures in the file; of more than one, the first is shown.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    frames: int


def record_bytes(size: int) -> int:
    """Bytes of one record: S * S of Y, a quarter of that each of U and V."""
    return size * size * 3 // 2


def encode(
    picture: bytes | NDArray[np.uint8], size: int, resize: Resize = "short-side", max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Turn a picture into a record.

    Args:
        picture: a file's bytes in one of `FORMATS`, or (H, W) grey levels.
        size: S, side of the stored square, even.
        resize: scale the short side to S and keep the centre square, or squash the whole picture.
        max_pixels: a file that takes more pixels of memory is refused; a JPEG takes those that its
            decoder gives out, which shrinks by up to 8.

    Returns:
        (S * S * 3 / 2,) uint8: planes Y (S, S), U and V (S / 2, S / 2).

    Raises:
        Unreadable: empty, not an image, truncated, too large, pixels of no certain meaning.
    """
    opened = _opened(picture, size, max_pixels)
    return _pack(_small(opened, _decoded(opened, resize), (size, size)))


def photo(picture: bytes | NDArray[np.uint8], longest: int, max_pixels: int = MAX_PIXELS) -> Photo:
    """A whole picture, at most `longest` pixels wide and high; it is not enlarged.

    Args and errors as in `encode`.
    """
    opened = _opened(picture, longest, max_pixels)
    pixels = _decoded(opened, "squash")
    width, height = opened.sides or (pixels.shape[1], pixels.shape[0])
    shrink = min(1.0, longest / max(width, height))
    small = _small(opened, pixels, (max(1, round(height * shrink)), max(1, round(width * shrink))))
    if opened.orientation in SIDEWAYS:
        width, height = height, width
    image = Image.frombytes("YCbCr", small.shape[1::-1], np.ascontiguousarray(small).tobytes()).convert("RGB")
    return Photo(np.asarray(image), width, height, getattr(opened.image, "n_frames", 1))


def _opened(picture: bytes | NDArray[np.uint8], size: int, max_pixels: int) -> formats.OpenedPicture:
    if isinstance(picture, bytes):
        return formats.read(picture, size, max_pixels)
    return formats.OpenedPicture(Image.fromarray(picture))


def _decoded(opened: formats.OpenedPicture, resize: Resize) -> NDArray[np.uint8]:
    """`_pixels`, with every error of a decoder as `Unreadable`."""
    try:
        return _pixels(opened, resize)
    except Unreadable:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, ValueError, SyntaxError, struct.error, EOFError ... on damage
        raise Unreadable(f"truncated or damaged: {formats.reason(error)}") from error


def _small(opened: formats.OpenedPicture, pixels: NDArray[np.uint8], sides: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) YCbCr, upright; `sides` are height and width before it is turned."""
    shrunk = _shrink(pixels, sides)
    if opened.profile:
        shrunk = profile.convert(shrunk, opened.profile, opened.image.mode)
    return _orient(shrunk, opened.orientation)


def decode(record: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A record as a picture: (S, S, 3) uint8, RGB. For looking at; training reads
    records with `kernels.augment`."""
    y, u, v = planes(record)
    chroma = [plane.repeat(2, axis=0).repeat(2, axis=1) for plane in (u, v)]
    ycbcr = np.stack([y, *chroma], axis=-1)
    return np.asarray(Image.frombytes("YCbCr", y.shape[::-1], ycbcr.tobytes()).convert("RGB"))


def planes(records: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Y (..., S, S), U and V (..., S / 2, S / 2) of (..., S * S * 3 / 2) records; views."""
    size = round((records.shape[-1] / 1.5) ** 0.5)
    half, area, lead = size // 2, size * size, records.shape[:-1]
    quarter = area // 4
    return (
        records[..., :area].reshape(*lead, size, size),
        records[..., area : area + quarter].reshape(*lead, half, half),
        records[..., area + quarter :].reshape(*lead, half, half),
    )


def _pixels(picture: formats.OpenedPicture, resize: Resize) -> NDArray[np.uint8]:
    """The part that becomes the square: (H, W, 3) YCbCr, or (H, W, 4) CMYK that has a profile."""
    image = picture.image
    image.load()
    (width, height), side = image.size, min(image.size)
    left, top = ((width - side) // 2, (height - side) // 2) if resize == "short-side" else (0, 0)
    right, bottom = (left + side, top + side) if resize == "short-side" else (width, height)
    if image.mode == "YCbCr" or (image.mode == "CMYK" and profile.to_srgb(picture.profile, "CMYK")):
        return np.asarray(image)[top:bottom, left:right]
    pixels = np.empty((bottom - top, right - left, 3), np.uint8)
    rows = max(1, BAND // (right - left))
    for start in range(top, bottom, rows):
        band = image.crop((left, start, right, min(start + rows, bottom)))
        pixels[start - top : start - top + rows] = np.asarray(_to_ycbcr(band))
    return pixels


def _to_ycbcr(image: Image.Image) -> Image.Image:
    """Any mode to YCbCr: 16-bit grey by its high byte, transparency over white."""
    if image.mode == "F":
        raise Unreadable("floating-point pixels have no defined white")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("1", "L") and not image.has_transparency_data:
        grey = image.convert("L")
        neutral = Image.new("L", grey.size, 128)
        return Image.merge("YCbCr", (grey, neutral, neutral))  # exact; by way of RGB, Pillow rounds down
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode == "La" else image.mode).convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB").convert("YCbCr")


def _shrink(pixels: NDArray[np.uint8], sides: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, C) to height and width `sides`."""
    interpolate, from_numpy = _torch()
    batch = from_numpy(pixels).permute(2, 0, 1)[None]
    shrunk = interpolate(batch, sides, mode="bilinear", antialias=True)
    return np.asarray(shrunk[0].permute(1, 2, 0))


@cache
def _torch() -> tuple[Any, Any]:
    """`F.interpolate` and `torch.from_numpy`, imported at first use: reading
    a store needs no PyTorch.

    Pillow's buffers are read-only, of which PyTorch warns once in a process; they are only read
    here, so that is done at once.
    """
    import torch
    import torch.nn.functional as F

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.from_numpy(np.frombuffer(b"read-only", np.uint8))
    return F.interpolate, torch.from_numpy


def _orient(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo a camera's rotation (EXIF orientation 1-8)."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _pack(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(S, S, 3) YCbCr to a record: chroma is the rounded mean of each 2 x 2 square."""
    chroma = np.add(pixels[0::2, :, 1:], pixels[1::2, :, 1:], dtype=np.uint16)
    chroma = (chroma[:, 0::2] + chroma[:, 1::2] + 2) >> 2
    parts = (pixels[..., 0], chroma[..., 0], chroma[..., 1])
    return np.concatenate([part.astype(np.uint8, copy=False).reshape(-1) for part in parts])
