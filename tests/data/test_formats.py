"""Kinds of pictures that Pillow reads otherwise than their formats say, and those that are refused.

Right values are the samples that were written into the files, or what OpenCV 5.0 and tifffile
2026.3 read from them (named at each). Records are compared at the pictures' own size, so that
nothing but the pixels' meaning is tested.
"""

import random
import re
import struct
import sys
import warnings
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import (
    BLUE,
    DISPLAY_P3,
    GREEN,
    RED,
    SRGB_CURVE,
    WHITE,
    assert_colour,
    assert_grey,
    chunk,
    flat,
    png,
    png_header,
    rgb_profile,
    saved,
    segment,
    smooth,
    textured,
    tiff,
    with_segments,
)
from PIL import Image

from alexnet.data import formats
from alexnet.data.image import Unreadable, decode, encode, record_bytes
from alexnet.data.limits import MAX_JPEG_PIXELS, MAX_SCANS
from alexnet.data.prepare import prepare

#: 64 x 48 pixels when upright, a colour in each quarter; stored as for EXIF orientation 7, and EXIF
#: in it says 7 too. Written by libheif 1.23 (pillow-heif), with `irot` 3 and `imir` 0.
HEIC = b64decode(
    """
    AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAdJtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAAAAAERA
    AAIAAQAAAAAB9gABAAAAAAAAAFwAAgAAAAACUgABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQAC
    AABFeGlmAAAAAA5waXRtAAAAAAABAAABEWlwcnAAAADvaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAA
    AAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaA
    AAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAADAAAAABAAAAQAAAAAH////wAAAAAgAAAAAAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAA
    AAlpbWlyAAAAABppcG1hAAAAAAAAAAEAAQeBAgMFhIaHAAAAGmlyZWYAAAAAAAAADmNkc2MAAgABAAEAAACIbWRhdAAAAFgoAa8J4MiBsTbePiv42FVX
    /0eT/+wJ//MKIWYhX3GjMGESsAW47//rCNUHkuFQvRnlbLKjJ+c//hVPkfK3I/T7nNGsb4s/i06xY97itP3MkQvnvxWIbbZgAAAABkV4aWYAAE1NACoA
    AAAIAAEBEgADAAAAAQAHAAAAAAAA
    """
)
#: 64 x 48 pixels of grey with 10 bits.
GREY_HEIC = b64decode(
    """
    AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAXdtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAAAERA
    AAEAAQAAAAABmwABAAAAAAAAAHUAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA92lwcnAAAADXaXBjbwAA
    AHJodmNDAQQIAAAAnfgAAAAAHvAA/Pz6+gAADwNgAAEAF0ABDAH//wQIAAADAJ34AAADAAAeugJAYQABACdCAQEECAAAAwCd+AAAAwAAHsCCBBNlurkp
    rmwIAAADAMgAAAMACEBiAAEABkQBwXPAiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAQAAAAAEAAAAwAAAA
    AQAAAAAAAAAC////8AAAAAIAAAAOcGl4aQAAAAABCgAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAH1tZGF0AAAAcSgBrgxwdOnC/sFUFvpb4qvdAzy/
    klpV8xjfNMOaOftt6+HtO1zu9j2xG4d3L66ZecLrODga4lBWHMxmevIui7VEFdPX/J0IkFw/D55gJ6zWV5UQTUtWW+W0e0/8EGGGB+6/5KrvfiLwzv9Z
    d2/91XXZ
    """
)
QUARTERS = {(0.25, 0.25): RED, (0.25, 0.75): GREEN, (0.75, 0.25): BLUE, (0.75, 0.75): (230, 230, 230)}


def levels(bits: int, side: int = 16, seed: int = 0) -> NDArray[np.integer]:
    return np.random.default_rng(seed).integers(0, 1 << bits, (side, side)).astype(np.uint16 if bits > 8 else np.uint8)


def colours(bits: int, channels: int = 3, side: int = 16) -> NDArray[np.integer]:
    """(side, side, channels): a smooth picture, whose colour survives at half resolution."""
    high = np.asarray(smooth(side, side), np.uint16)
    if channels == 4:
        high = np.concatenate([high, np.full_like(high[..., :1], 255)], -1)
    low = np.random.default_rng(1).integers(0, 256, high.shape).astype(np.uint16)
    return high << 8 | low if bits == 16 else high.astype(np.uint8)


def assert_same(data: bytes, other: bytes, size: int = 16) -> None:
    assert np.array_equal(encode(data, size), encode(other, size))


# --- TIFF -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("deflate", [False, True])
def test_sixteen_bit_tiff_that_is_white_at_zero(deflate: bool) -> None:
    samples = levels(16)
    assert_grey(encode(tiff((samples, {262: 0}), deflate=deflate), 16), 255 - (samples >> 8))


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_tiff_with_a_plane_for_each_channel(channels: int, bits: int, order: str, deflate: bool) -> None:
    samples = colours(bits, channels)
    tags: dict[int, int | tuple[int, ...]] = {284: 2, 262: 2} | ({338: 2} if channels == 4 else {})
    data = tiff((np.moveaxis(samples, -1, 0), tags), order=order, deflate=deflate)
    assert_same(data, png((samples >> bits - 8).astype(np.uint8), 8, 2 if channels == 3 else 6))


def test_planes_in_strips_of_rows() -> None:
    """tifffile's way: the strips of a plane follow each other."""
    samples = np.moveaxis(colours(16), -1, 0)
    whole = tiff((samples, {284: 2, 262: 2}))
    (start,) = struct.unpack_from("<I", whole, 4)
    offsets = [8 + plane * 512 + strip * 128 for plane in range(3) for strip in range(4)]
    cut = tiff((samples, {284: 2, 262: 2, 278: 4, 273: tuple(offsets), 279: (128,) * 12}))
    assert start
    assert_same(cut, whole)


def test_planes_in_tiles_that_reach_beyond_the_edge() -> None:
    """20 x 20 pixels in 2 x 2 tiles of 16 x 16 a plane."""
    samples = colours(16, side=20)
    padded = np.pad(np.moveaxis(samples, -1, 0), ((0, 0), (0, 12), (0, 12)))
    tiles = padded.reshape(3, 2, 16, 2, 16).swapaxes(2, 3).reshape(3, 64, 16)
    offsets, counts = tuple(8 + 512 * tile for tile in range(12)), (512,) * 12
    sides: dict[int, int | tuple[int, ...]] = {
        256: 20,
        257: 20,
        273: (),
        278: (),
        279: (),
        322: 16,
        323: 16,
        324: offsets,
        325: counts,
    }
    assert_same(tiff((tiles, sides | {284: 2, 262: 2})), png((samples >> 8).astype(np.uint8), 8, 2), size=20)


def test_twelve_bit_grey_tiff() -> None:
    """Two samples in three bytes; 4095 is white."""
    samples = levels(12)
    first, second = samples[:, ::2], samples[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8).reshape(16, -1)
    assert_grey(encode(tiff((packed, {256: 16, 258: 12})), 16), samples >> 4)


@pytest.mark.parametrize(
    ("samples", "tags", "reason"),
    [
        (np.full((16, 16), 4_000_000_000, np.uint32), {}, "signed or 32-bit integers, which do not define white"),
        (np.full((16, 16), -5, np.int8), {339: 2}, "signed or 32-bit integers, which do not define white"),
        (np.full((16, 16), -5, np.int16), {339: 2}, "signed or 32-bit integers, which do not define white"),
        (np.full((16, 16), 99, np.int32), {339: 2}, "signed or 32-bit integers, which do not define white"),
        (np.full((16, 16), 0.5, np.float32), {339: 3}, "floating-point pixels have no defined white"),
        (np.full((2, 16, 16), 9, np.uint8), {284: 2, 338: 2}, "a plane of 8 bits a channel, which Pillow does not decode"),
        (np.full((4, 16, 16), 9, np.uint16), {284: 2, 262: 5}, "a plane of 16 bits a channel, which Pillow does not decode"),
        (np.full((16, 16, 3), 9, np.uint8), {262: 6, 530: (2, 2)}, "colour at lower resolution, which Pillow does not decode"),
        (np.full((16, 16, 2), 9, np.uint16), {338: 2}, "a kind of TIFF that is not supported: unknown pixel mode"),
    ],
    ids=["uint32", "int8", "int16", "int32", "float", "planar-LA", "planar-CMYK", "subsampled", "grey-alpha-16"],
)
def test_tiffs_without_a_certain_meaning_are_refused(
    samples: NDArray[np.generic], tags: dict[int, int | tuple[int, ...]], reason: str
) -> None:
    with pytest.raises(Unreadable, match=re.escape(reason)):
        encode(tiff((samples, tags)), 16)


def test_a_preview_and_a_mask_are_not_the_picture() -> None:
    small, picture = np.zeros((8, 8, 3), np.uint8), colours(8)
    assert_same(tiff((small, {254: 1}), (small[..., 0], {254: 4}), (picture, {254: 0})), png(picture, 8, 2))
    assert_same(tiff((picture, {}), (small, {254: 1})), png(picture, 8, 2))
    assert_same(tiff((picture, {254: 2}), (small, {254: 2})), png(picture, 8, 2))  # pages: the first one


def test_a_lone_preview_is_taken_and_that_of_a_raw_file_refused() -> None:
    """A camera's raw file (DNG) has its full picture in a directory of its own,
    which nothing here decodes.
    """
    picture = colours(8)
    assert_same(tiff((picture, {254: 1})), png(picture, 8, 2))
    with pytest.raises(Unreadable, match="a preview only: the full picture is camera raw data"):
        encode(tiff((picture, {254: 1, 330: 8})), 16)


# --- transparency ---------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_transparent_level_of_a_grey_png(depth: int) -> None:
    """libpng compares the levels of the file: the PNG specification, 11.3.2.1."""
    samples = levels(depth)
    samples[:, :3] = clear = int(samples[9, 9])
    samples[3, 9] = clear ^ 1
    scaled = samples >> 8 if depth == 16 else samples.astype(int) * 255 // ((1 << depth) - 1)
    data = png(samples, depth, 0, chunk(b"tRNS", struct.pack(">H", clear)))
    assert_grey(encode(data, 16), np.where(samples == clear, 255, scaled))


def test_transparent_colour_of_48_bits() -> None:
    """All 16 bits count: a colour that differs in a low byte alone stays."""
    samples = np.empty((16, 16, 3), np.uint16)
    samples[:] = clear = [0x5005, 0xA00A, 0x200F]
    samples[:, 8:, 1] ^= 1
    data = png(samples, 16, 2, chunk(b"tRNS", struct.pack(">3H", *clear)))
    record = decode(encode(data, 16)).astype(int)
    assert np.abs(record[:, :8] - WHITE).max() <= 4
    assert np.abs(record[:, 8:] - (0x50, 0xA0, 0x20)).max() <= 4


@pytest.mark.parametrize("alpha", [0, 0x4000, 0xFFFF])
@pytest.mark.parametrize("colour", [4, 6])
def test_sixteen_bit_alpha_lies_on_white(colour: int, alpha: int) -> None:
    """One level of rounding in the alpha, one in the sum."""
    pixel = np.array([0x5000, 0xA000, 0x2000, alpha] if colour == 6 else [0x5000, alpha], np.uint16)
    expected = (alpha / 65535 * pixel[:-1] + (65535 - alpha)) / 257
    assert_colour(encode(png(np.tile(pixel, (16, 16, 1)), 16, colour), 16), tuple(np.broadcast_to(expected, 3)), tolerance=5)


def test_premultiplied_grey_lies_on_white() -> None:
    pixel = np.array([50, 100], np.uint8)  # 50 of 100: 127.5, and 155 of white
    assert_colour(encode(tiff((np.tile(pixel, (16, 16, 1)), {338: 1})), 16), (205, 205, 205), tolerance=2)


def bmp(alpha: int) -> bytes:
    """32 bits with a mask for alpha (a header of version 4), red."""
    header = struct.pack("<IiiHHIIiiII4I", 108, 16, 16, 1, 32, 3, 0, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    pixels = bytes([RED[2], RED[1], RED[0], alpha]) * 256
    return struct.pack("<2sIII", b"BM", 122 + 1024, 0, 122) + header.ljust(108, b"\0") + pixels


@pytest.mark.parametrize(("alpha", "expected"), [(0, RED), (255, RED), (128, tuple((level + 255) / 2 for level in RED))])
def test_alpha_of_a_bmp_counts_unless_it_is_zero_everywhere(alpha: int, expected: tuple[int, ...]) -> None:
    assert_colour(encode(bmp(alpha), 16), expected)


# --- HEIC and AVIF --------------------------------------------------------------------------------


def quarters(record: NDArray[np.uint8], size: int) -> dict[tuple[float, float], NDArray[np.integer]]:
    picture = decode(record).astype(int)
    return {place: picture[int(place[0] * size), int(place[1] * size)] for place in QUARTERS}


def test_heic_is_read_and_turned_once() -> None:
    """The container and EXIF both say how to turn it: once."""
    for place, colour in quarters(encode(HEIC, 48, "squash"), 48).items():
        assert np.abs(colour - QUARTERS[place]).max() <= 8, place  # lossy


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("angle", range(4))
def test_heic_in_all_orientations(angle: int, axis: int) -> None:
    """ISO/IEC 23008-12: `irot` turns by quarters against the clock, then `imir` flips: 0 top and
    bottom, 1 left and right.
    """
    upright = np.arange(4).reshape(2, 2)
    stored = np.rot90(np.flipud(upright), -3)
    expected = (np.flipud, np.fliplr)[axis](np.rot90(stored, angle))
    data = HEIC.replace(b"irot\3", b"irot" + bytes([angle])).replace(b"imir\0", b"imir" + bytes([axis]))
    colour = list(QUARTERS.values())
    for number, found in zip(expected.ravel(), quarters(encode(data, 48, "squash"), 48).values(), strict=True):
        assert np.abs(found - colour[number]).max() <= 8


#: Pixels of ../shared/cases/08-predict/IMG_0.HEIC by pillow-heif (libheif 1.23).
HEIC_PIXELS = {
    (4, 4): (202, 17, 35),
    (4, 67): (31, 0, 4),
    (36, 36): (132, 21, 10),
    (67, 4): (191, 21, 22),
    (67, 67): (52, 5, 0),
}


def test_shared_heic_agrees_with_libheif(shared: Path) -> None:
    """The record halves colour and the picture is noisy: 20 levels."""
    record = decode(encode((shared / "cases/08-predict/IMG_0.HEIC").read_bytes(), 72)).astype(int)
    assert record.shape == (72, 72, 3)
    for place, colour in HEIC_PIXELS.items():
        assert np.abs(record[place] - colour).max() <= 20, place


def test_heic_without_its_decoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(Unreadable, match=r"^a HEIC picture, which needs the package pi-heif: pip install pi-heif$"):
        encode(HEIC, 16)


@pytest.mark.parametrize("kind", [b"\xfaxif", b"mime", b"uri ", b"\0\0\0\0"])
def test_unknown_items_of_a_heic_are_left_out(kind: bytes) -> None:
    """The decoder would crash on types that are not ASCII, and with it the program."""
    assert HEIC.count(b"\0\0Exif\0") == 1
    assert_same(HEIC.replace(b"\0\0Exif\0", b"\0\0" + kind + b"\0"), HEIC)


def test_grey_heic_of_more_than_8_bits_is_refused() -> None:
    """Where the bits in its header are wrong, its decoder writes beyond its memory:
    found by damaging such files.
    """
    with pytest.raises(Unreadable, match=r"^a grey HEIC picture of more than 8 bits, which is not decoded: save it as PNG$"):
        encode(GREY_HEIC, 16)


def test_large_heic_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(Unreadable, match=r"64 x 48 are more than 3,071 pixels"):
        encode(HEIC, 16, max_pixels=3071)
    encode(HEIC, 16, max_pixels=3072)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_an_avif(orientation: int) -> None:
    """Pillow writes the container's own boxes for it. Lossy."""
    picture, turn = smooth(60, 40), [None, None, 0, 3, 1, 5, 2, 6, 4][orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture if turn is None else picture.transpose(Image.Transpose(turn)), "AVIF", exif=exif, quality=95)
    assert np.abs(encode(data, 40).astype(int) - encode(saved(picture), 40)).mean() < 2


def test_damaged_exif_in_an_avif_costs_nothing() -> None:
    plain, with_exif = saved(smooth(40, 40), "AVIF"), saved(smooth(40, 40), "AVIF", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0garbage")
    assert with_exif.count(b"II*\0") == 1
    assert_same(with_exif.replace(b"II*\0", b"\xff\xff\xff\xff"), plain)


# --- pictures within pictures ---------------------------------------------------------------------


def test_thumbnails_and_second_pictures_of_a_jpeg_are_not_taken() -> None:
    picture, other = saved(flat(RED, 40, 40), "JPEG", quality=95), saved(flat(BLUE, 640, 480), "JPEG", quality=95)
    exif = b"Exif\0\0II*\0" + struct.pack("<IHI", 8, 0, 14) + other
    assert_same(with_segments(picture, segment(0xE1, exif)), picture)
    assert_same(picture + other, picture)
    assert_same(saved(flat(RED, 40, 40), "MPO", save_all=True, append_images=[flat(BLUE, 640, 480)], quality=95), picture)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_the_first_picture_counts(format: str) -> None:
    lossless = {"lossless": True} if format == "WEBP" else {}
    data = saved(flat(GREEN), format, save_all=True, append_images=[flat(RED), flat(BLUE)], **lossless)
    assert_colour(encode(data, 16), GREEN, tolerance=6)


# --- limits ---------------------------------------------------------------------------------------


def test_a_large_jpeg_is_shrunk_by_its_decoder() -> None:
    """108 million pixels, more than the limit of others: decoded at 1/8 of its sides.
    Measured: 400 million take 57 MB.
    """
    data = saved(Image.new("L", (12000, 9000), 77), "JPEG", quality=30)
    assert_grey(encode(data, 16), np.full((16, 16), 77))
    with pytest.raises(Unreadable, match=r"1500 x 1125 are more than 1,000,000 pixels"):
        encode(data, 16, max_pixels=1_000_000)


def with_sides(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header promises other sides."""
    frame = re.search(rb"\xff[\xc0\xc2]..\x08", jpeg, re.DOTALL)
    assert frame
    return jpeg[: frame.end()] + struct.pack(">HH", height, width) + jpeg[frame.end() + 4 :]


def test_limits_of_jpegs() -> None:
    plain, progressive = (saved(textured(64, 64), "JPEG", progressive=flag) for flag in (False, True))
    assert MAX_JPEG_PIXELS == 20_000 * 20_000
    with pytest.raises(Unreadable, match=r"20000 x 20001 are more than 400,000,000 pixels"):
        encode(with_sides(plain, 20_000, 20_001), 16)
    with pytest.raises(Unreadable, match=r"12000 x 9000 are more than 89,478,485 pixels"):
        encode(with_sides(progressive, 12_000, 9_000), 16)
    assert encode(with_sides(plain, 20_000, 20_000), 256).any()  # the decoder fills up what is missing before the end mark


def test_a_jpeg_with_a_scan_for_each_colour_counts_in_full() -> None:
    """Not progressive, and all the same in memory whole: first scan with one of three
    components.
    """
    data = saved(textured(64, 64), "JPEG")
    scan = data.index(b"\xff\xda")
    alone = data[:scan] + segment(0xDA, bytes([1, 1, 0, 0, 63, 0])) + data[scan + 14 :]
    with pytest.raises(Unreadable, match=r"12000 x 9000 are more than 89,478,485 pixels"):
        encode(with_sides(alone, 12_000, 9_000), 16)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = saved(textured(64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert encode(data[:-2] + data[last:-2] * 20 + data[-2:], 16).any()
    with pytest.raises(Unreadable, match=rf"scans: refused, as more than {MAX_SCANS} serve only to slow"):
        encode(data[:-2] + data[last:-2] * MAX_SCANS + data[-2:], 16)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG"])
def test_max_pixels_is_the_last_number_that_is_read(format: str) -> None:
    data = saved(textured(20, 30), format)
    assert encode(data, 16, max_pixels=600).any()
    with pytest.raises(Unreadable, match=r"20 x 30 are more than 599 pixels: refused as a decompression bomb \(--max-pixels"):
        encode(data, 16, max_pixels=599)


def test_webp_is_refused_by_its_header_alone() -> None:
    """Its decoder takes memory for all pixels when it is opened: 1.4 GB for 38 bytes."""
    for lossless in (False, True):
        data = saved(textured(20, 30), "WEBP", lossless=lossless)
        assert formats._webp_sides(data) == (20, 30)
    extended = saved(Image.merge("RGBA", (*textured(20, 30).split(), Image.new("L", (20, 30), 9))), "WEBP", exif=b"Exif\0\0II")
    assert extended[12:16] == b"VP8X"
    assert formats._webp_sides(extended) == (20, 30)
    huge = extended[:24] + b"\xff\x3f\0\xff\x3f\0" + extended[30:]
    with pytest.raises(Unreadable, match=r"16384 x 16384 are more than"):
        encode(huge, 16)


def test_a_higher_limit_passes_pillows_own() -> None:
    """Pillow's plugins refuse twice their limit, 178,956,970 pixels, once more."""
    before = Image.MAX_IMAGE_PIXELS
    try:
        with pytest.raises(Unreadable, match=r"^truncated or damaged: (?!Image size)"):
            encode(tiff((np.zeros((2, 2), np.uint8), {256: 20_000, 257: 10_000, 278: 10_000})), 16, max_pixels=300_000_000)
        with pytest.raises(Unreadable, match=r"^truncated or damaged"):
            encode(png_header(20_000, 10_000), 16, max_pixels=300_000_000)
    finally:
        Image.MAX_IMAGE_PIXELS = before


def test_prepare_takes_max_pixels(tmp_path: Path) -> None:
    for index in range(4):
        for name, colour in (("red", RED), ("blue", BLUE)):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            flat(colour, 20 + index, 20).save(tmp_path / "photos" / name / f"{index}.png")
    store = prepare([tmp_path / "photos"], tmp_path / "store", size=16, hold_out=0.25, max_pixels=450)
    assert store.manifest["skipped"] == 2
    assert (tmp_path / "store/skipped.jsonl").read_text().count("23 x 20 are more than 450 pixels") == 2


# --- the shared cases -----------------------------------------------------------------------------

#: Short side, and pixels near the corners of the centre square (at 10/64 and 53/64 of it) as OpenCV
#: 5.0 reads them, in 8 bits; the transparent halves white.
CASES = {
    "06-pictures/b32_v4_alphamask_alpha0.bmp": (64, [(69, 40, 20), (185, 40, 198), (69, 214, 20), (185, 214, 198)]),
    "06-pictures/exif_damaged.png": (32, [(213, 28, 26), (48, 6, 7), (213, 28, 26), (48, 6, 7)]),
    "06-pictures/exif_damaged.webp": (32, [(211, 27, 25), (51, 5, 7), (212, 27, 28), (51, 5, 5)]),
    "06-pictures/g16_left_transparent.png": (64, [(255, 255, 255), (64, 64, 64), (255, 255, 255), (64, 64, 64)]),
    "06-pictures/g2_left_transparent.png": (64, [(255, 255, 255), (85, 85, 85), (255, 255, 255), (85, 85, 85)]),
    "06-pictures/iCCP_2MB.png": (64, [(52, 30, 26), (138, 30, 69), (52, 159, 26), (138, 159, 69)]),
    "06-pictures/tEXt_bad_crc.png": (64, [(52, 30, 26), (138, 30, 69), (52, 159, 26), (138, 159, 69)]),
    "06-pictures/t_g16_whiteiszero.tif": (64, [(70, 70, 70), (185, 185, 185), (70, 70, 70), (185, 185, 185)]),
    "06-pictures/t_rgb16_planar.tif": (64, [(69, 40, 20), (185, 40, 198), (69, 214, 20), (185, 214, 198)]),
    "06-pictures/zTXt_2MB.png": (64, [(52, 30, 26), (138, 30, 69), (52, 159, 26), (138, 159, 69)]),
    "08-predict/a.jpg": (32, [(213, 28, 26), (48, 6, 7), (213, 28, 26), (48, 6, 7)]),
    "08-predict/b.jfif": (32, [(28, 214, 27), (5, 46, 6), (28, 214, 27), (5, 46, 6)]),
    "08-predict/c.jpe": (32, [(27, 27, 213), (8, 7, 49), (27, 27, 213), (8, 7, 49)]),
    "08-predict/d.pgm": (32, [(137, 137, 137), (29, 29, 29), (137, 137, 137), (29, 29, 29)]),
    "08-predict/no_ending": (32, [(29, 29, 221), (6, 5, 47), (29, 29, 221), (6, 5, 47)]),
}


@pytest.mark.parametrize("name", CASES)
def test_shared_cases_agree_with_opencv(name: str, shared: Path) -> None:
    side, pixels = CASES[name]
    picture = decode(encode((shared / "cases" / name).read_bytes(), side)).astype(int)
    places = [(side * row // 64, side * column // 64) for row in (10, 53) for column in (10, 53)]
    for place, expected in zip(places, pixels, strict=True):
        assert np.abs(picture[place] - expected).max() <= 6, place


# --- damage ---------------------------------------------------------------------------------------


def damageable() -> dict[str, bytes]:
    """One small file of each kind, with metadata where it can have them."""
    picture, exif = textured(24, 20), Image.Exif()
    exif[0x0112] = 6
    told = {"exif": exif, "icc_profile": rgb_profile(DISPLAY_P3, SRGB_CURVE)}
    return {
        "jpeg": saved(picture, "JPEG", **told),
        "progressive": saved(picture, "JPEG", progressive=True),
        "png": saved(picture, **told),
        "palette": saved(picture.quantize(16)),
        "webp": saved(picture, "WEBP", **told),
        "gif": saved(picture, "GIF"),
        "bmp": saved(picture, "BMP"),
        "tiff": saved(picture, "TIFF", **told),
        "lzw": saved(picture, "TIFF", compression="tiff_lzw"),
        "planar": tiff((np.moveaxis(colours(16), -1, 0), {284: 2, 262: 2})),
        "ppm": saved(picture, "PPM"),
        "pgm": saved(picture.convert("L"), "PPM"),
        "avif": saved(picture, "AVIF", **told),
        "heic": HEIC,
        "cmyk": saved(picture.convert("CMYK"), "JPEG"),
    }


DAMAGEABLE = damageable()


@pytest.mark.parametrize("kind", DAMAGEABLE)
@pytest.mark.parametrize("action", ["ignore", "error"])
def test_damage_gives_a_record_or_a_reason(kind: str, action: str) -> None:
    """Cut, bytes lost or added, bits turned: no other exception escapes (100,000
    of them were tried once).
    """
    chance, whole = random.Random(kind), DAMAGEABLE[kind]
    outcomes = {True: 0, False: 0}
    for _ in range(60):
        damaged = bytearray(whole)
        place, way = chance.randrange(len(whole)), chance.random()
        if way < 0.2:
            del damaged[place:]
        elif way < 0.3:
            damaged[place:place] = chance.randbytes(chance.randrange(1, 9))
        elif way < 0.4:
            del damaged[place : place + chance.randrange(1, 40)]
        else:
            for _ in range(chance.choice((1, 1, 2, 8))):
                damaged[chance.randrange(min(len(whole), chance.choice((64, 400, 10**9))))] ^= 1 << chance.randrange(8)
        with warnings.catch_warnings(action=action):  # type: ignore[call-overload]
            try:
                assert encode(bytes(damaged), 16).shape == (record_bytes(16),)
                outcomes[True] += 1
            except Unreadable as reason:
                assert re.fullmatch(r".+", str(reason))
                outcomes[False] += 1
    assert outcomes[False] > 5
