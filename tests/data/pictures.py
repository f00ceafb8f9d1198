"""Pictures for the tests of `alexnet.data`: drawn ones, and files of kinds that Pillow does
not write, byte by byte.
"""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.image import decode, planes

RED, GREEN, BLUE, WHITE = (200, 30, 20), (20, 180, 40), (30, 40, 210), (255, 255, 255)


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def smooth(width: int, height: int) -> Image.Image:
    """A picture whose colour changes slowly, so that chroma at half resolution loses little;
    no two corners are alike.
    """
    y, x = np.mgrid[0:height, 0:width]
    red, green, blue = 40 + 150 * x / width, 60 + 120 * y / height, 200 - 70 * (x + y) / (width + height)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def textured(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coarse patches of random colours with noise: detail at every scale."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(40, 215, (7, 9, 3), dtype=np.uint8))
    large = np.asarray(patches.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray((large + rng.normal(0, 6, large.shape)).clip(0, 255).astype(np.uint8))


def flat(colour: tuple[int, ...], width: int = 16, height: int = 16, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (width, height), colour)


def assert_colour(record: NDArray[np.uint8], colour: tuple[int, ...], tolerance: int = 4) -> None:
    """Every pixel; 8-bit YCbCr there and back moves a channel by up to 3 levels (1.772 / 2 and
    1.402 / 2, twice rounded).
    """
    assert np.abs(decode(record).astype(int) - colour).max() <= tolerance


def assert_grey(record: NDArray[np.uint8], levels: NDArray[np.integer]) -> None:
    """These levels and no colour. Pillow's sum 0.299 + 0.587 + 0.114 rounds 22 of
    the 256 levels down by one.
    """
    y, u, v = planes(record)
    assert np.isin(levels.astype(int) - y, (0, 1)).all()
    assert (u == 128).all()
    assert (v == 128).all()


# --- files by hand --------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    """One of a PNG; its checksum is right unless given."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) if crc is None else crc)


def png(samples: NDArray[np.integer], depth: int, colour: int, *between: bytes) -> bytes:
    """A PNG of (H, W) or (H, W, C) samples of 1 to 16 bits, with further chunks before the pixels.

    `colour` is PNG's: 0 grey, 2 RGB, 4 grey with alpha, 6 RGB with alpha.
    """
    height, width = samples.shape[:2]
    flat_rows = samples.reshape(height, -1)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in flat_rows]
    else:
        bits = (flat_rows[..., None] >> np.arange(depth - 1, -1, -1) & 1).reshape(height, -1).astype(np.uint8)
        rows = [np.packbits(row).tobytes() for row in bits]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *between, chunk(b"IDAT", pixels), chunk(b"IEND", b"")])


def png_header(width: int, height: int) -> bytes:
    """A 1-bit PNG of any size in 57 bytes: the header promises pixels, none follow."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def tiff(
    *pages: tuple[NDArray[np.generic], dict[int, int | tuple[int, ...]]], order: str = "<", deflate: bool = False
) -> bytes:
    """A TIFF of one strip a page, or one strip a plane for (C, H, W) samples with tag 284 = 2.

    Tags that are not given: sides, 1 sample or as many as there are, 8 bits or as many as the
    samples have, black is zero or RGB; an empty value leaves a tag out. Values are written as LONG,
    those of tags 258, 339 and 530 as SHORT.
    """
    short = order + "H"
    out = bytearray({"<": b"II", ">": b"MM"}[order] + struct.pack(short, 42) + bytes(4))
    link = 4
    for samples, given in pages:
        planar = given.get(284) == 2
        strips = list(samples) if planar else [samples]
        height, width = strips[0].shape[:2]
        channels = len(strips) if planar else (samples.shape[2] if samples.ndim == 3 else 1)
        contents = [strip.astype(strip.dtype.newbyteorder(order)).tobytes() for strip in strips]
        contents = [zlib.compress(content) for content in contents] if deflate else contents
        offsets = []
        for content in contents:
            offsets.append(len(out))
            out += content + bytes(len(content) % 2)
        tags: dict[int, int | tuple[int, ...]] = {
            256: width,
            257: height,
            258: (8 * samples.dtype.itemsize,) * channels,
            259: 8 if deflate else 1,
            262: 2 if channels > 2 else 1,
            273: tuple(offsets),
            277: channels,
            278: height,
            279: tuple(map(len, contents)),
        } | given
        tags = {tag: value for tag, value in tags.items() if value != ()}
        entries, beside = [], bytearray()
        start = len(out)
        for tag, value in sorted(tags.items()):
            values = value if isinstance(value, tuple) else (value,)
            kind, form = (3, "H") if tag in (258, 339, 530) else (4, "I")
            packed = struct.pack(order + form * len(values), *values)
            if len(packed) > 4:
                place = start + 2 + 12 * len(tags) + 4 + len(beside)
                beside += packed + bytes(len(packed) % 2)
                packed = struct.pack(order + "I", place)
            entries.append(struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0"))
        struct.pack_into(order + "I", out, link, start)
        out += struct.pack(short, len(tags)) + b"".join(entries)
        link = len(out)
        out += bytes(4) + beside
    return bytes(out)


def segment(marker: int, body: bytes) -> bytes:
    """One of a JPEG's header."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with further segments right behind its first bytes."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


# --- colour profiles ------------------------------------------------------------------------------

#: sRGB's curve as an ICC parametric curve of type 3: exponent, a, b, c, d.
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
D50 = (0.9642, 1.0, 0.8249)
#: X, Y, Z of red, green and blue, adapted to D50 (the profiles of Apple and Adobe).
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _curve(curve: float | Sequence[float]) -> bytes:
    if isinstance(curve, float):
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(curve * 256)) + bytes(2)
    return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(*curve)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50),
    } | tags
    table, body = b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = 128 + 4 + len(table) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, kind, space, connection) + bytes(12) + b"acsp" + bytes(28)
    return header + _fixed(*D50) + bytes(48) + struct.pack(">I", len(tags)) + table + body


def rgb_profile(primaries: Sequence[Sequence[float]], curve: float | Sequence[float]) -> bytes:
    """A display's profile: three primaries (D50) and one curve."""
    tags = {
        name: b"XYZ " + bytes(4) + _fixed(*colour) for name, colour in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
    }
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(curve)))


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile(lab: NDArray[np.float64]) -> bytes:
    """A printer's profile: the colour (16, 3) in Lab of each mixture of full inks, C
    slowest, linear between them.
    """
    numbers = np.round(np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], 1)).astype(np.uint8)
    ramp = bytes(range(256))
    table = (
        b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + numbers.tobytes() + ramp * 3
    )
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})
