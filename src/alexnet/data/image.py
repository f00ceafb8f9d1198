"""One picture to one record: decode, shrink, crop to a square, keep as YUV 4:2:0.

A record is what a photograph's JPEG holds too: full-range YCbCr (JFIF, ITU-R BT.601), brightness at every pixel and colour at
every second one. 256 x 256 pixels are 98,304 bytes, half of RGB. Two things make it fast: the JPEG decoder is asked for YCbCr
at the smallest scale (1, 1/2, 1/4, 1/8) that is large enough, so no colour conversion happens at all, and the picture is
shrunk by PyTorch's vectorised antialiased bilinear filter (same results as Pillow's to one grey level).
"""

import io
import warnings
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Resize = Literal["short-side", "squash"]

Image.init()
#: Formats that are decoded. Others that Pillow knows would start programs (EPS) or are no photographs.
FORMATS = tuple({"JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM"} & set(Image.OPEN))
#: A larger picture is refused as a decompression bomb. Pillow's own limit.
MAX_PIXELS = 89_478_485
ORIENTATION_TAG = 0x0112

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # we refuse at the same size, and say so


class Unreadable(Exception):
    """A file that is no usable picture; the text is the reason."""


def record_bytes(size: int) -> int:
    """Bytes of one record: S * S of Y, a quarter of that each of U and V."""
    return size * size * 3 // 2


def encode(picture: bytes | NDArray[np.uint8], size: int, resize: Resize = "short-side") -> NDArray[np.uint8]:
    """Turn a picture into a record.

    Args:
        picture: a file's bytes in one of `FORMATS`, or (H, W) grey levels.
        size: S, side of the stored square, even.
        resize: scale the short side to S and keep the centre square, or squash the whole picture.

    Returns:
        (S * S * 3 / 2,) uint8: planes Y (S, S), U and V (S / 2, S / 2).

    Raises:
        Unreadable: empty, not an image, truncated, too large.
    """
    image = _open(picture) if isinstance(picture, bytes) else Image.fromarray(picture)
    try:
        image.draft(None if _stores_rgb(image) else "YCbCr", (size, size))  # JPEG only; a no-op elsewhere
        pixels = np.asarray(_to_ycbcr(image))  # (H, W, 3)
        # After decoding: for a TIFF, Pillow has turned the picture by then and removed the tag.
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Unreadable:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, ValueError, SyntaxError, struct.error, EOFError ... on damage
        raise Unreadable(f"truncated or damaged: {error}") from error
    return _pack(_orient(_shrink(pixels, size, resize), orientation))


def decode(record: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A record as a picture: (S, S, 3) uint8, RGB. For looking at; training reads records with `kernels.augment`."""
    y, u, v = planes(record)
    chroma = [plane.repeat(2, axis=0).repeat(2, axis=1) for plane in (u, v)]
    return np.asarray(Image.fromarray(np.stack([y, *chroma], axis=-1), "YCbCr").convert("RGB"))


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


def _open(data: bytes) -> Image.Image:
    if not data:
        raise Unreadable("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise Unreadable("not an image in a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # the latter where warnings are errors
        raise Unreadable(f"more than {MAX_PIXELS:,} pixels: taken for a decompression bomb") from None
    except Exception as error:
        raise Unreadable(f"truncated or damaged: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"{image.width} x {image.height} are more than {MAX_PIXELS:,} pixels: a decompression bomb")
    return image


def _stores_rgb(image: Image.Image) -> bool:
    """Whether a JPEG holds RGB, which libjpeg cannot turn into YCbCr; libjpeg's own rule."""
    identifiers = [layer[0] for layer in getattr(image, "layer", [])]
    return "jfif" not in image.info and (image.info.get("adobe_transform") == 0 or bytes(identifiers) == b"RGB")


def _to_ycbcr(image: Image.Image) -> Image.Image:
    """Any mode to YCbCr: 16-bit grey by its high byte, transparency over white."""
    if image.mode == "YCbCr":
        return image
    if image.mode == "F":
        raise Unreadable("floating-point pixels have no defined white")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("1", "L") and not image.has_transparency_data:
        grey = image.convert("L")
        neutral = Image.new("L", grey.size, 128)
        return Image.merge("YCbCr", (grey, neutral, neutral))  # exact; by way of RGB, Pillow rounds down
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB").convert("YCbCr")


def _shrink(pixels: NDArray[np.uint8], size: int, resize: Resize) -> NDArray[np.uint8]:
    """(H, W, 3) to (S, S, 3)."""
    interpolate, from_numpy = _torch()
    height, width, _ = pixels.shape
    if resize == "short-side":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    batch = from_numpy(pixels).permute(2, 0, 1)[None]
    shrunk = interpolate(batch, (size, size), mode="bilinear", antialias=True)
    return np.asarray(shrunk[0].permute(1, 2, 0))


@cache
def _torch() -> tuple[Any, Any]:
    """`F.interpolate` and `torch.from_numpy`, imported at first use: reading a store needs no PyTorch.

    Pillow's buffers are read-only, of which PyTorch warns once in a process; they are only read here, so that is done at once.
    """
    import torch
    import torch.nn.functional as F

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.from_numpy(np.frombuffer(b"read-only", np.uint8))
    return F.interpolate, torch.from_numpy


def _orient(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo a camera's rotation (EXIF orientation 1-8) on a square."""
    if orientation in (5, 6, 7, 8):
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
