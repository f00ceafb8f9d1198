"""Decode picture files, format by format, so that every pixel means what it should.

Pillow decodes, and pi-heif decodes HEIC. Pillow misreads some kinds without a word: 16-bit TIFFs
that are white at zero or have a plane for each colour, transparent colours of PNGs of other than
8 bits, BMPs whose alpha was never filled in. Those are put right here. Kinds whose white is not
defined, or that Pillow decodes wrongly for good, are refused. What a file says beside its pixels is
in `metadata`.

The limit of pixels counts what has to be in memory. A JPEG is decoded at 1/2, 1/4 or 1/8 of its
sides straight from its coefficients, so one of 400 megapixels needs no more memory than another
of 6, unless it comes in several scans.
"""

import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from PIL import Image, ImageChops, TiffImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from alexnet.data import metadata
from alexnet.data.limits import MAX_FRAMES, MAX_JPEG_PIXELS, MAX_PIXELS, MAX_SCANS

Image.init()
#: Pillow's formats that are decoded. Others would start programs (EPS) or are not for photographs.
BY_PILLOW = tuple(name for name in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM") if name in Image.OPEN)
#: Formats that are read.
FORMATS = (*BY_PILLOW, "HEIF")

#: What ISO media files of pictures say that they are; videos say something else.
AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_PREVIEW, _MASK = 1, 4  # bits of TIFF's NewSubfileType
_SIGNED = 2  # a TIFF's SampleFormat
_NEW_SUBFILE_TYPE, _SUB_IFDS = 254, TiffImagePlugin.SUBIFD

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # we refuse at the same size, and say so
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of damaged metadata, which does not matter here
logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it says of damaged files, the reason says too


class Unreadable(Exception):
    """A file that is not a usable picture; the text is the reason."""


class UnknownFormat(Unreadable):
    """It is not a picture in a format that is read."""


class TooManyPixels(Unreadable):
    """It would take more memory than the limit allows."""


@dataclass(frozen=True)
class OpenedPicture:
    """A picture, not always decoded yet.

    Attributes:
        image: Pillow's.
        orientation: EXIF orientation 1-8 that is still to be undone.
        profile: ICC profile, empty without one.
        sides: width and height in the file, where the decoder gives a smaller picture.
    """

    image: Image.Image
    orientation: int = metadata.UPRIGHT
    profile: bytes = b""
    sides: tuple[int, int] | None = None


def read(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> OpenedPicture:
    """Open a file of any of `FORMATS`, recognised by its content.

    Args:
        data: the file's bytes.
        size: a JPEG is decoded at the smallest scale at which both sides have that many pixels.
        max_pixels: a picture that takes more in memory is refused.

    Raises:
        Unreadable: empty, not an image, damaged, too large, or of a kind whose pixels have no
            certain meaning. Pixels that are damaged may raise Pillow's errors later, on decoding.
    """
    if not data:
        raise Unreadable("empty file")
    if max_pixels > MAX_PIXELS and (Image.MAX_IMAGE_PIXELS or max_pixels) < max_pixels:
        Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow looks once more, at twice its own limit
    kind = _recognise(data)
    try:
        return _read_jpeg(data, size, max_pixels) if kind == "JPEG" else _READERS[kind](data, max_pixels)
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # the latter where warnings are errors
        raise _too_large(None, max_pixels) from None
    except SyntaxError as error:  # what plugins raise for kinds that they do not know, and for damage
        raise Unreadable(f"truncated or damaged, or a kind of {kind} that is not supported: {reason(error)}") from error
    except Exception as error:  # OSError, ValueError, struct.error, EOFError, IndexError, MemoryError ... on damage
        raise Unreadable(f"truncated or damaged: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What a decoder says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _recognise(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        brands = _brands(data)
        if brands & AVIF_BRANDS:
            return "AVIF"
        if brands & HEIF_BRANDS:
            return "HEIF"
    for name in BY_PILLOW:
        accept = Image.OPEN[name][1]
        if name != "AVIF" and accept and accept(data[:16]) is True:
            return name
    raise UnknownFormat("not an image in a known format")


def _brands(data: bytes) -> set[bytes]:
    """What the first box of an ISO media file says that it is."""
    end = min(int.from_bytes(data[:4]), 256)
    return {data[8:12], *(data[start : start + 4] for start in range(16, end, 4))}


def _check(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_large((width, height), max_pixels)


def _too_large(sides: tuple[int, int] | None, max_pixels: int) -> TooManyPixels:
    what = f"{sides[0]} x {sides[1]} are more than" if sides else "more than"
    return TooManyPixels(f"{what} {max_pixels:,} pixels: refused as a decompression bomb (--max-pixels sets the limit)")


def _info(image: Image.Image, name: str) -> bytes:
    """A block of metadata that a plugin found; empty without one, or if it is of a wrong
    type."""
    block = image.info.get(name)
    return block if isinstance(block, bytes) else b""


# --- JPEG -----------------------------------------------------------------------------------------


def _read_jpeg(data: bytes, size: int, max_pixels: int) -> OpenedPicture:
    parts = metadata.jpeg(data)
    image = JpegImageFile(io.BytesIO(parts.pixels))
    sides = image.size
    _check(*sides, max(max_pixels, MAX_JPEG_PIXELS))
    if parts.multiscan:
        _check(*image.size, max_pixels)
        if (scans := parts.pixels.count(b"\xff\xda")) > MAX_SCANS:
            raise Unreadable(
                f"a JPEG in {scans:,} scans: refused, as more than {MAX_SCANS} serve only to slow the decoder down"
            )
    image.draft(None if _stores_rgb(image) else "YCbCr", (size, size))
    _check(*image.size, max_pixels)
    return OpenedPicture(image, metadata.orientation(parts.exif, parts.xmp), parts.profile, sides)


def _stores_rgb(image: JpegImageFile) -> bool:
    """Whether a JPEG holds RGB, which libjpeg cannot turn into YCbCr; libjpeg's own rule."""
    identifiers = [layer[0] for layer in image.layer]
    return "jfif" not in image.info and (image.info.get("adobe_transform") == 0 or bytes(identifiers) == b"RGB")


# --- PNG ------------------------------------------------------------------------------------------


def _read_png(data: bytes, max_pixels: int) -> OpenedPicture:
    parts = metadata.png(data)
    image: Image.Image = PngImageFile(io.BytesIO(parts.pixels))
    _check(*image.size, max_pixels)
    depth, transparent = data[24], image.info.get("transparency")
    if transparent is not None:
        if image.mode == "RGB" and depth == 16:
            image = _transparent_colour_of_48_bits(image, transparent, parts.pixels)
        elif image.mode.startswith("I"):
            image = _transparent_level_of_16_bits(image, transparent)
        elif image.mode == "L":  # Pillow has scaled the levels to 8 bits, but not the transparent one
            image.info["transparency"] = transparent % (1 << depth) * (255 // ((1 << depth) - 1))
    return OpenedPicture(image, metadata.orientation(parts.exif, parts.xmp), parts.profile)


def _transparent_level_of_16_bits(image: Image.Image, transparent: int) -> Image.Image:
    levels = np.asarray(image)
    alpha = np.where(levels == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray((levels >> 8).astype(np.uint8)), Image.fromarray(alpha)))


def _transparent_colour_of_48_bits(image: Image.Image, transparent: tuple[int, ...], data: bytes) -> Image.Image:
    """Pillow keeps the high bytes. The low ones count too for what is transparent: they come by
    reading the pixels in the other byte order."""
    low = PngImageFile(io.BytesIO(data))
    low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
    equal = [_equal(image, band, level >> 8) for band, level in enumerate(transparent)]
    equal += [_equal(low, band, level & 255) for band, level in enumerate(transparent)]
    del image.info["transparency"]
    image.putalpha(ImageChops.invert(reduce(ImageChops.darker, equal)))
    return image


def _equal(image: Image.Image, band: int, level: int) -> Image.Image:
    """255 where a band has this level, 0 elsewhere."""
    return image.getchannel(band).point([255 * (value == level) for value in range(256)])


# --- TIFF -----------------------------------------------------------------------------------------


def _read_tiff(data: bytes, max_pixels: int) -> OpenedPicture:
    """Pillow turns TIFFs upright itself."""
    image = TiffImageFile(io.BytesIO(data))
    _seek_full_picture(image)
    _check(*image.size, max_pixels)
    _check_tiff(image)
    profile, bits = _info(image, "icc_profile"), image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0]
    if image.mode.startswith("I;16"):
        return OpenedPicture(_grey_tiff(image, bits), profile=profile)
    if _is_planar(image) and bits == 16 and not image.use_load_libtiff:
        image.tile = [tile._replace(args=_plane(tile.args, image.tag_v2.prefix)) for tile in image.tile]
    return OpenedPicture(image, profile=profile)


def _check_tiff(image: TiffImageFile) -> None:
    """Refuse kinds that Pillow decodes to something else, or whose white is not defined."""
    subsampling = image.tag_v2.get(TiffImagePlugin.YCBCRSUBSAMPLING, (2, 2))
    if image.mode == "I" or _SIGNED in image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, ()):  # Pillow takes int8 for uint8
        raise Unreadable("a TIFF of signed or 32-bit integers, which do not define white: save it with 8 or 16 bits")
    if image.mode == "YCbCr" and subsampling != (1, 1):
        raise Unreadable("an uncompressed TIFF with colour at lower resolution, which Pillow does not decode: save it as RGB")
    if _is_planar(image):
        # Without compression Pillow needs a raw mode for each plane; 16-bit CMYK has none.
        planes = set() if image.use_load_libtiff else {(tile.args or " ")[0] for tile in image.tile}
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0]
        if image.mode not in ("RGB", "RGBA", "CMYK") or not planes <= set("RGBA" if bits == 16 else "RGBACMYK"):
            raise Unreadable(f"a TIFF with a plane of {bits} bits a channel, which Pillow does not decode: save it without")


def _is_planar(image: TiffImageFile) -> bool:
    return image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2


def _seek_full_picture(image: TiffImageFile) -> None:
    """Go to the first picture that is neither a preview of another one nor a mask."""
    for frame in range(MAX_FRAMES):
        try:
            image.seek(frame)
        except EOFError:
            break
        if not _subfile(image) & (_PREVIEW | _MASK):
            return
    image.seek(0)
    if _SUB_IFDS in image.tag_v2:
        raise Unreadable("a preview only: the full picture is camera raw data. Save it as JPEG, PNG or plain TIFF")


def _subfile(image: TiffImageFile) -> int:
    kind = image.tag_v2.get(_NEW_SUBFILE_TYPE, 0)
    return kind if isinstance(kind, int) else 0


def _plane(args: Any, prefix: bytes) -> tuple[Any, ...]:
    """Arguments of Pillow's raw decoder for a plane of 16 bits a sample, which it takes for 8."""
    band, stride, direction = args
    return f"{band};16{'L' if prefix == b'II' else 'B'}", stride, direction


def _grey_tiff(image: TiffImageFile, bits: int) -> Image.Image:
    """9 to 16 bits of grey to 8, black at zero."""
    inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    levels = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(255 - levels if inverted else levels)


# --- the others -----------------------------------------------------------------------------------


def _read_gif(data: bytes, max_pixels: int) -> OpenedPicture:
    image = GifImageFile(io.BytesIO(data))
    _check(*image.size, max_pixels)
    return OpenedPicture(image)


def _read_ppm(data: bytes, max_pixels: int) -> OpenedPicture:
    image = PpmImageFile(io.BytesIO(data))
    _check(*image.size, max_pixels)
    return OpenedPicture(image)


def _read_bmp(data: bytes, max_pixels: int) -> OpenedPicture:
    """An alpha of zero everywhere is not meant: browsers and OpenCV show such a picture."""
    image: Image.Image = BmpImageFile(io.BytesIO(data))
    _check(*image.size, max_pixels)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image = image.convert("RGB")
    return OpenedPicture(image)


def _read_webp(data: bytes, max_pixels: int) -> OpenedPicture:
    _check(*_webp_sides(data), max_pixels)  # the plugin would take memory for all pixels at once
    image = WebPImageFile(io.BytesIO(data))
    _check(*image.size, max_pixels)
    exif, xmp = _info(image, "exif"), _info(image, "xmp")
    return OpenedPicture(image, metadata.orientation(exif, xmp), _info(image, "icc_profile"))


def _webp_sides(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a WebP file; (0, 0) where it has none."""
    kind, header = data[12:16], data[20:30]
    if kind == b"VP8X":
        return int.from_bytes(header[4:7], "little") + 1, int.from_bytes(header[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(header[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(header[6:8], "little") & 0x3FFF, int.from_bytes(header[8:10], "little") & 0x3FFF


def _read_avif(data: bytes, max_pixels: int) -> OpenedPicture:
    """Pillow gives the container's orientation as if it were EXIF's."""
    if "AVIF" not in BY_PILLOW:
        raise Unreadable("an AVIF picture, which this Pillow does not decode: pip install -U pillow")
    image = Image.OPEN["AVIF"][0](io.BytesIO(metadata.without_items(data)), "")
    _check(*image.size, max_pixels)
    return OpenedPicture(image, metadata.orientation(_info(image, "exif")), _info(image, "icc_profile"))


def _read_heif(data: bytes, max_pixels: int) -> OpenedPicture:
    """The picture that the file names as its main one. The decoder turns it upright itself, so
    EXIF's orientation, which says the same, is not applied again."""
    try:
        import pi_heif
    except ImportError:
        raise Unreadable("a HEIC picture, which needs the package pi-heif: pip install pi-heif") from None
    file = pi_heif.open_heif(metadata.without_items(data))
    main = file[file.primary_index]
    width, height = main.size
    _check(width, height, max_pixels)
    if main.mode not in ("RGB", "RGBA", "RGBa") and main.info["bit_depth"] > 8:
        # Where its header is wrong by a bit, pi-heif 1.4 writes beyond its memory.
        raise Unreadable("a grey HEIC picture of more than 8 bits, which is not decoded: save it as PNG")
    pixels = main.data  # decodes; only then are size and mode certain
    image = Image.frombytes(main.mode, main.size, pixels, "raw", main.mode, main.stride)
    return OpenedPicture(image, profile=_info(main, "icc_profile"))


_READERS: dict[str, Callable[[bytes, int], OpenedPicture]] = {
    "PNG": _read_png,
    "TIFF": _read_tiff,
    "GIF": _read_gif,
    "PPM": _read_ppm,
    "BMP": _read_bmp,
    "WEBP": _read_webp,
    "AVIF": _read_avif,
    "HEIF": _read_heif,
}
