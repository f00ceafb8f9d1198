"""What is beside the pixels: orientation and profile are found wherever programs put them,
and nothing else matters.

Damage is tested on the record: it has to be that of the same file without metadata, to the bit.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import RED, chunk, flat, png, saved, segment, smooth, textured, tiff, with_segments
from PIL import Image

from alexnet.data import metadata
from alexnet.data.image import encode
from alexnet.data.limits import MAX_METADATA
from alexnet.data.metadata import orientation

PICTURE = textured(40, 30)
SAMPLES = np.asarray(PICTURE)


def exif_block(value: int, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    """A TIFF block with two tags, the second one the orientation."""
    form = {1: "Bxxx", 3: "Hxx", 4: "I"}[kind]
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HIH", 42, 8, 2)
    return head + struct.pack(order + "HHIIHHI" + form + "I", 0x0100, 4, 1, 40, 0x0112, kind, count, value, 0)


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def turned_png() -> bytes:
    """What orientation 6 makes of the picture: a quarter clockwise."""
    return saved(PICTURE.transpose(Image.Transpose.ROTATE_270))


# --- orientation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_of_exif(order: str, kind: int, value: int) -> None:
    block = exif_block(value, order, kind)
    assert orientation(block) == orientation(b"Exif\0\0" + block) == orientation(b"Exif\0\0Exif\0\0" + block) == value


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_unknown_orientation_is_upright_whatever_xmp_says(value: int) -> None:
    assert orientation(exif_block(value), XMP) == 1


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Exif\0\0",
        b"garbage!",
        exif_block(6)[:20],
        b"XX" + exif_block(6)[2:],
        b"II\0\0" + exif_block(6)[4:],
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
    ],
)
def test_damaged_exif_says_nothing(block: bytes) -> None:
    assert orientation(block) == 1
    assert orientation(block, XMP) == 6
    assert orientation(block, b"<tiff:Orientation>8</tiff:Orientation>") == 8


def test_every_cut_of_exif_says_its_orientation_or_upright() -> None:
    block = exif_block(6)
    assert {orientation(block[:end]) for end in range(len(block))} == {1, 6}


def png_with(*chunks: bytes) -> bytes:
    return png(SAMPLES, 8, 2, *chunks)


def imagemagick(block: bytes) -> bytes:
    return b"\nexif\n%8d\n" % len(block) + block.hex().encode() + b"\n"


@pytest.mark.parametrize(
    "told",
    [
        chunk(b"eXIf", exif_block(6)),
        chunk(b"tEXt", b"Raw profile type exif\0" + imagemagick(b"Exif\0\0" + exif_block(6))),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(imagemagick(exif_block(6)))),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0name\0" + zlib.compress(XMP)),
    ],
    ids=["eXIf", "tEXt", "zTXt", "iTXt", "iTXt-compressed"],
)
def test_orientation_of_a_png(told: bytes) -> None:
    assert np.array_equal(encode(png_with(told), 30), encode(turned_png(), 30))
    assert Image.open(io.BytesIO(png_with(told))).getexif().get(0x0112) == 6  # as Pillow reads it


@pytest.mark.parametrize("told", [{"exif": b"Exif\0\0" + exif_block(6)}, {"xmp": XMP}], ids=["exif", "xmp"])
@pytest.mark.parametrize("format", ["JPEG", "WEBP", "TIFF"])
def test_orientation_of_other_formats(format: str, told: dict[str, bytes]) -> None:
    if format == "TIFF":
        told = {"exif": told["exif"][6:]} if "exif" in told else {"tiffinfo": {700: XMP}}  # type: ignore[dict-item]
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}, "TIFF": {}}[format]
    picture = smooth(40, 30)
    expected = encode(saved(picture.transpose(Image.Transpose.ROTATE_270)), 30).astype(int)
    assert np.abs(encode(saved(picture, format, **told, **options), 30) - expected).mean() < (1 if format == "JPEG" else 1e-9)


# --- damage that costs nothing --------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"zTXt", b"Comment\0\0garbage"),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2 * MAX_METADATA))),
        chunk(b"iCCP", b"icc\0\7garbage"),
        chunk(b"iCCP", b""),
        chunk(b"tEXt", b"Comment\0hello", crc=1),
        chunk(b"tEXt", b"transparency\0hello"),
        chunk(b"tEXt", b"Raw profile type exif\0\n\n\nxyz"),
        chunk(b"tEXt", b"Raw profile type exif\0\n\n\n\xff\xfe"),
        chunk(b"eXIf", b"not a TIFF block"),
        chunk(b"eXIf", exif_block(6), crc=1),
        chunk(b"gAMA", b"\1"),
        chunk(b"pHYs", b""),
        chunk(b"fcTL", b"\0"),
        chunk(b"acTL", bytes(8)),
        chunk(b"vpAg", b"private"),
    ],
    ids=lambda extra: extra[4:8].decode(),
)
def test_metadata_of_a_png_cost_no_picture(extra: bytes) -> None:
    assert np.array_equal(encode(png_with(extra), 30), encode(png_with(), 30))


def test_a_png_of_text_bombs_is_not_unpacked() -> None:
    """40 texts of 1 MB each: Pillow gives up at 64 MB, and before that at any single one."""
    bombs = [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1_000_000))) for _ in range(70)]
    parts = metadata.png(png_with(*bombs))
    assert parts.pixels == png_with()
    assert np.array_equal(encode(png_with(*bombs), 30), encode(png_with(), 30))


def test_a_png_without_metadata_is_handed_over_as_it_is() -> None:
    data = png_with()
    assert metadata.png(data).pixels is data


def icc_segment(number: int, count: int, content: bytes) -> bytes:
    return segment(0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + content)


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE1, b"Exif\0\0garbage"),
        segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"),
        segment(0xE0, b"JFIF"),
        segment(0xEE, b"Adobe"),
        segment(0xE2, b"ICC_PROFILE\0"),
        icc_segment(1, 2, b"half of it"),
        icc_segment(1, 1, b"garbage" * 100),
        segment(0xE2, b"MPF\0garbage"),
        segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\1\0\0\0\xff\xff\xff\xff\0\0\0\0"),
        segment(0xFE, b"comment"),
        segment(0xEF, b""),
        b"\xff\xff\xff",
    ],
)
def test_metadata_of_a_jpeg_cost_no_picture(extra: bytes) -> None:
    data = saved(PICTURE, "JPEG")
    assert np.array_equal(encode(with_segments(data, extra), 30), encode(data, 30))


def test_colour_of_a_jpeg_stays_as_its_markers_say() -> None:
    """Adobe's marker is kept: without it the decoder would take RGB for YCbCr."""
    data = saved(flat(RED), "JPEG", keep_rgb=True, quality=95)
    with_text = with_segments(data, segment(0xFE, b"comment"), segment(0xE1, b"Exif\0\0" + exif_block(1)))
    assert metadata.jpeg(with_text).pixels == data
    assert np.array_equal(encode(with_text, 16), encode(data, 16))


def test_a_jpeg_without_metadata_is_handed_over_as_it_is() -> None:
    data = saved(PICTURE, "JPEG")
    parts = metadata.jpeg(data)
    assert parts.pixels is data
    assert not parts.multiscan
    assert metadata.jpeg(saved(PICTURE, "JPEG", progressive=True)).multiscan


def test_profile_in_parts_out_of_order() -> None:
    parts = [icc_segment(number, 3, bytes([number]) * 5) for number in (2, 3, 1)]
    assert metadata.jpeg(with_segments(saved(PICTURE, "JPEG"), *parts)).profile == b"\1" * 5 + b"\2" * 5 + b"\3" * 5


def test_exif_in_two_segments() -> None:
    block = bytes(30)
    data = with_segments(
        saved(PICTURE, "JPEG"),
        segment(0xE1, b"Exif\0\0" + exif_block(6)[:20]),
        segment(0xE1, b"Exif\0\0" + exif_block(6)[20:] + block),
    )
    assert orientation(metadata.jpeg(data).exif) == 6


def test_every_cut_of_a_header_is_left_to_the_decoder() -> None:
    data = with_segments(saved(flat(RED, 8, 8), "JPEG"), segment(0xE1, b"Exif\0\0" + exif_block(6)))
    scan = data.index(b"\xff\xda") + 14
    assert all(metadata.jpeg(data[:end]).pixels == data[:end] for end in range(scan))


@pytest.mark.parametrize("exif", [b"garbage", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_of_a_webp_costs_no_picture(exif: bytes) -> None:
    plain = saved(PICTURE, "WEBP", lossless=True)
    assert np.array_equal(encode(saved(PICTURE, "WEBP", lossless=True, exif=exif), 30), encode(plain, 30))


@pytest.mark.parametrize("pointer", [0, 1, 7, 2**31, 2**32 - 1])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_of_a_tiff_costs_no_picture(pointer: int) -> None:
    assert np.array_equal(encode(tiff((SAMPLES, {34665: pointer, 34853: pointer})), 30), encode(tiff((SAMPLES, {})), 30))
