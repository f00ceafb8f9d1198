"""Colour profiles: convert a picture's colours to sRGB.

A picture without a profile is taken for sRGB, and one whose profile says sRGB stays unchanged, to
the bit. Another one (Display P3 of phones, Adobe RGB of cameras, CMYK of print) is converted by
LittleCMS after it has been shrunk. That takes 2 ms and leaves the fast way of decoding alone. A
profile that is damaged, or for another kind of pixels, is left out, as browsers do. Colours that
are described in other ways (PNG's gAMA and cHRM, EXIF's colour space, the numbers in AVIF and
HEIC) are taken for sRGB.

Of the 32 profiles in 96 photos of ImageNet, those that call themselves sRGB move no colour by more
than 1 of 255 levels. The 12 others move some by 64 and more, and the photos by 2 to 16 on average.
"""

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from alexnet.data.formats import Unreadable
from alexnet.data.limits import MAX_METADATA

#: A profile that moves no colour by more levels is sRGB; each maker writes its
#: curve a bit differently.
SAME = 2
#: The colour space that a profile is for, by Pillow's mode.
SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


@lru_cache(maxsize=16)
def to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from pixels of a mode ("RGB", "L", "CMYK") to sRGB; None if nothing is to be done.

    Raises:
        Unreadable: this Pillow has no LittleCMS, so the colours are unknown.
    """
    if not 0 < len(profile) <= MAX_METADATA:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != SPACES[mode]:
            return None
        way = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    except ImportError:
        raise Unreadable(
            "a picture with a colour profile, for which this Pillow lacks LittleCMS: pip install --force-reinstall pillow"
        ) from None
    return None if _changes_nothing(way, mode) else way


def _changes_nothing(way: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether it leaves colours as they are, by 16 levels of each channel (17 steps apart)."""
    if mode == "CMYK":
        return False
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    colours = levels[None] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    image = Image.fromarray(colours)
    return int(np.abs(_apply(way, image).astype(int) - np.asarray(image.convert("RGB"))).max()) <= SAME


def convert(pixels: NDArray[np.uint8], profile: bytes, mode: str) -> NDArray[np.uint8]:
    """Pixels in sRGB.

    Args:
        pixels: (H, W, 3) uint8, YCbCr; or (H, W, 4) CMYK, whose profile `to_srgb` knows.
        profile: an ICC profile.
        mode: Pillow's mode of the picture they come from. A profile for other pixels is left out.

    Returns:
        (H, W, 3) uint8, YCbCr.
    """
    size = pixels.shape[1], pixels.shape[0]
    if pixels.shape[-1] == 4:
        way = to_srgb(profile, "CMYK")
        assert way
        return _to_ycbcr(_apply(way, Image.frombytes("CMYK", size, pixels.tobytes())))
    if mode in ("CMYK", "LAB"):
        return pixels
    grey = mode[0] in "1LI"
    if grey and (way := to_srgb(profile, "L")):
        return _to_ycbcr(_apply(way, Image.fromarray(np.ascontiguousarray(pixels[..., 0]))))
    if way := to_srgb(profile, "RGB"):  # of a scanner for colour, grey pictures have it too
        return _to_ycbcr(_apply(way, Image.frombytes("YCbCr", size, pixels.tobytes()).convert("RGB")))
    return pixels


def _apply(way: ImageCms.ImageCmsTransform, image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(way.apply(image))


def _to_ycbcr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(rgb).convert("YCbCr"))
