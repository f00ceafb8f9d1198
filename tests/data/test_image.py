"""One picture to one record, against plain Pillow and against arithmetic by hand.

S is the side of a record's square. The pictures that must come out exactly are S pixels on their
short side and saved without loss, so that nothing but the layout is tested; the others have a
tolerance with its reason.
"""

import io
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import BLUE, GREEN, RED, WHITE, assert_colour, assert_grey, flat, png_header, saved, smooth, textured
from PIL import EpsImagePlugin, Image, ImageCms

from alexnet.data.image import FORMATS, MAX_PIXELS, Resize, Unreadable, decode, encode, planes, record_bytes
from alexnet.kernels.reference import yuv_to_rgb

ORIENTATION = 0x0112
#: How a camera that was held so stores an upright picture: EXIF orientation -> what
#: was done to the pixels.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def by_pillow(data: bytes, size: int) -> NDArray[np.float64]:
    """(S, S, 3) YCbCr by the plainest means: decode at full size, RGB, sRGB, centre square,
    antialiased bilinear, YCbCr.
    """
    image = Image.open(io.BytesIO(data))
    profile = image.info.get("icc_profile")
    image = image.convert("RGB")
    if profile:
        image = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("YCbCr"), np.float64)


def errors(data: bytes, size: int) -> tuple[float, float]:
    """Mean absolute difference to `by_pillow` in brightness, and the larger
    one of the two in colour.
    """
    expected = by_pillow(data, size)
    y, u, v = planes(encode(data, size))
    chroma = expected[..., 1:].reshape(size // 2, 2, size // 2, 2, 2).mean(axis=(1, 3))
    return np.abs(y - expected[..., 0]).mean(), max(np.abs(u - chroma[..., 0]).mean(), np.abs(v - chroma[..., 1]).mean())


# --- the record -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 6, 32, 256])
def test_a_record_has_one_and_a_half_bytes_a_pixel(size: int) -> None:
    record = encode(saved(smooth(300, 270)), size)
    assert record.shape == (record_bytes(size),) == (size * size * 3 // 2,)
    assert record.dtype == np.uint8


def test_planes_are_y_then_u_then_v() -> None:
    record = np.concatenate([np.arange(16), 100 + np.arange(4), 200 + np.arange(4)]).astype(np.uint8)
    y, u, v = planes(record)
    assert y.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert u.tolist() == [[100, 101], [102, 103]]
    assert v.tolist() == [[200, 201], [202, 203]]


def test_planes_of_many_records_are_views() -> None:
    records = np.arange(5 * 24, dtype=np.uint8).reshape(5, 24)
    for plane, side in zip(planes(records), (4, 2, 2), strict=True):
        assert plane.shape == (5, side, side)
        assert np.shares_memory(plane, records)


def test_encode_by_hand() -> None:
    """4 x 4 pixels, three of four squares of one colour, one of four colours: JFIF's
    formula to the rounding.
    """
    rgb = np.empty((4, 4, 3))
    rgb[:2, :2], rgb[:2, 2:], rgb[2:, :2] = RED, GREEN, BLUE
    rgb[2:, 2:] = [[RED, GREEN], [BLUE, (250, 240, 10)]]
    red, green, blue = np.moveaxis(rgb, -1, 0)
    expected_y = 0.299 * red + 0.587 * green + 0.114 * blue
    expected_u = (128 + (blue - expected_y) / 1.772).reshape(2, 2, 2, 2).mean(axis=(1, 3))
    expected_v = (128 + (red - expected_y) / 1.402).reshape(2, 2, 2, 2).mean(axis=(1, 3))

    y, u, v = planes(encode(saved(Image.fromarray(rgb.astype(np.uint8))), 4))
    # One rounding (Pillow's is down) for Y, two for the colours.
    assert np.abs(y - expected_y).max() <= 1
    assert np.abs(u - expected_u).max() <= 1.5
    assert np.abs(v - expected_v).max() <= 1.5


def test_chroma_is_the_rounded_mean_of_each_square() -> None:
    ycbcr = np.full((2, 4, 3), 100, np.uint8)
    ycbcr[:, :2, 1] = [[10, 11], [11, 12]]  # mean 11
    ycbcr[:, 2:, 1] = [[10, 11], [11, 10]]  # mean 10.5, rounded up
    ycbcr[:, 2:, 2] = [[255, 255], [255, 255]]  # four of them do not fit into 8 bits
    ycbcr = np.concatenate([ycbcr, ycbcr])
    data = saved(Image.fromarray(ycbcr, "YCbCr"), "TIFF")
    assert Image.open(io.BytesIO(data)).mode == "YCbCr", "this Pillow converts; the test needs the very bytes"
    _, u, v = planes(encode(data, 4))
    assert u.tolist() == [[11, 11], [11, 11]]
    assert v.tolist() == [[100, 255], [100, 255]]


def test_decode_gives_the_picture_back() -> None:
    """Smooth colours: all that is lost is that Pillow rounds down, there and back
    (measured: 1.3 levels, 43.5 dB).
    """
    picture = np.asarray(smooth(64, 64), np.float64)
    difference = decode(encode(saved(smooth(64, 64)), 64)) - picture
    assert np.abs(difference).mean() < 2
    assert 10 * np.log10(255**2 / (difference**2).mean()) > 42


def test_decode_agrees_with_the_formula_that_training_uses() -> None:
    """Pillow works with integers and rounds; the kernel does neither: at most one level apart."""
    record = np.random.default_rng(0).integers(0, 256, record_bytes(32), dtype=np.uint8)
    y, u, v = (torch.from_numpy(plane.astype(np.float64)) for plane in planes(record))
    u, v = (plane.repeat_interleave(2, 0).repeat_interleave(2, 1) for plane in (u, v))
    expected = torch.stack(yuv_to_rgb(y, u, v), dim=-1).numpy()
    assert np.abs(decode(record) - expected).max() <= 1.01


@given(st.binary(min_size=64, max_size=64))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_grey_levels_are_kept(levels: bytes) -> None:
    """An array of the right size, as IDX files hold, passes through."""
    grey = np.frombuffer(levels, np.uint8).reshape(8, 8)
    assert_grey(encode(grey, 8), grey)


# --- agreement with Pillow ------------------------------------------------------------------------


def test_real_photos_agree_with_pillow_at_256(shared: Path) -> None:
    """Photos of about 500 x 375 are decoded at full size, and only rounding and the order of colour
    conversion and shrinking differ (measured: 0.5 on average, 1.2 at worst for a large photo that
    is decoded at half size)."""
    files = sorted((shared / "data/imagenet-originals").glob("*.JPEG"))[::6]
    assert len(files) == 16
    for file in files:
        brightness, colour = errors(file.read_bytes(), 256)
        assert brightness < 1.5, file.name
        assert colour < 1, file.name


def test_real_photos_agree_with_pillow_when_the_decoder_shrinks(shared: Path) -> None:
    """At 64 pixels the JPEG decoder does most of the shrinking, with a sharper filter than
    bilinear: fine detail differs (measured 3.3 levels on average, 7.4 at worst), but there is no
    shift: any neighbouring position fits worse."""
    for file in sorted((shared / "data/imagenet-originals").glob("*.JPEG"))[::6]:
        data = file.read_bytes()
        expected = by_pillow(data, 64)[..., 0]
        y = planes(encode(data, 64))[0].astype(np.float64)
        error = {
            (dy, dx): np.abs(np.roll(y, (dy, dx), (0, 1)) - expected)[1:-1, 1:-1].mean()
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        }
        assert error[0, 0] < 9, file.name
        assert min(error, key=error.__getitem__) == (0, 0), file.name
        assert abs((y - expected).mean()) < 2, file.name  # and none in brightness


@pytest.mark.parametrize("size", [40, 72])
@pytest.mark.parametrize("shape", [(60, 50), (50, 61), (640, 480), (48, 48)])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_drawn_pictures_agree_with_pillow(shape: tuple[int, int], size: int, format: str) -> None:
    """Larger, smaller, odd, wide and high. Rounding alone where nothing is lost (0.4); JPEG's
    chroma and scaling add.
    """
    options = {"quality": 92} if format == "JPEG" else {}
    brightness, colour = errors(saved(textured(*shape), format, **options), size)
    assert brightness < (1.5 if format == "JPEG" else 0.6)
    assert colour < (1.2 if format == "JPEG" else 0.7)


@pytest.mark.parametrize("shape", [(3000, 40), (40, 3000), (1600, 1200)])
def test_scaled_decoding_is_never_smaller_than_the_record(shape: tuple[int, int]) -> None:
    """The JPEG decoder may shrink by 8 at most down to S on the short side; fine stripes would
    vanish if it went further.
    """
    width, height = shape
    stripes = np.zeros((height, width), np.uint8)
    step = max(2, min(shape) // 20)
    stripes[(np.arange(height) // step) % 2 == 1] = 255
    data = saved(Image.fromarray(stripes), "JPEG", quality=95)
    y = planes(encode(data, 40))[0].astype(np.float64)
    assert np.abs(y - by_pillow(data, 40)[..., 0]).mean() < 12  # grey instead of stripes is 127 off
    assert y.std() > 80


# --- kinds of pictures ----------------------------------------------------------------------------


def test_greyscale_picture() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert_grey(encode(saved(Image.fromarray(levels)), 16), levels)


def test_greyscale_jpeg() -> None:
    assert_grey(encode(saved(flat(77, mode="L"), "JPEG"), 16), np.full((16, 16), 77))


def test_one_bit_picture() -> None:
    bits = np.zeros((16, 16), bool)
    bits[:, 8:] = True
    y, _, _ = planes(encode(saved(Image.fromarray(bits)), 16))
    assert np.array_equal(y, np.where(bits, 255, 0))


def test_palette_picture() -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([*BLUE, *RED])
    assert_colour(encode(saved(image), 16), RED)


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])], ids=["one-index", "alpha-table"])
def test_palette_with_transparency_lies_on_white(transparency: int | bytes) -> None:
    indices = np.zeros((16, 16), np.uint8)
    indices[:, 8:] = 1
    image = Image.fromarray(indices, "P")
    image.putpalette([*BLUE, *RED])
    rgb = decode(encode(saved(image, transparency=transparency), 16)).astype(int)
    assert np.abs(rgb[:, :8] - WHITE).max() <= 4
    assert np.abs(rgb[:, 8:] - RED).max() <= 4


def test_transparent_colour_of_an_rgb_png_lies_on_white() -> None:
    assert_colour(encode(saved(flat(RED), transparency=RED), 16), WHITE)


@pytest.mark.parametrize("alpha", [0, 64, 200, 255])
def test_rgba_lies_on_white(alpha: int) -> None:
    mixed = tuple(round((alpha * level + (255 - alpha) * 255) / 255) for level in BLUE)
    assert_colour(encode(saved(flat((*BLUE, alpha), mode="RGBA")), 16), mixed)


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_grey_with_alpha_lies_on_white(alpha: int) -> None:
    mixed = round((alpha * 50 + (255 - alpha) * 255) / 255)
    assert_colour(encode(saved(flat((50, alpha), mode="LA")), 16), (mixed, mixed, mixed), tolerance=1)


def test_transparent_webp_lies_on_white() -> None:
    assert_colour(encode(saved(flat((*RED, 0), mode="RGBA"), "WEBP", lossless=True), 16), WHITE)


def test_cmyk_jpeg_agrees_with_pillow() -> None:
    """ILSVRC2012 has 22 of them. 75 % cyan and 75 % black are dark blue-green, not their
    negative.
    """
    data = saved(flat((190, 30, 60, 80), 40, 40, mode="CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    expected = Image.open(io.BytesIO(data)).convert("RGB").getpixel((20, 20))
    assert_colour(encode(data, 16), expected)


def test_cmyk_picture_with_detail_agrees_with_pillow() -> None:
    brightness, colour = errors(saved(textured(120, 90).convert("CMYK"), "JPEG", quality=95), 80)
    assert brightness < 0.6  # nothing but rounding: CMYK has no colour conversion in the decoder, and is not scaled here
    assert colour < 0.7


def test_jpeg_that_stores_rgb() -> None:
    """JPEG without YCbCr (Adobe transform 0): rare, legal, and no reason to leave a picture out."""
    data = saved(flat(RED), "JPEG", quality=95, keep_rgb=True)
    assert_colour(encode(data, 16), RED)


def test_phone_jpeg_with_two_pictures_takes_the_first() -> None:
    """Multi-picture files (MPO) call themselves JPEG."""
    data = saved(flat(RED), "MPO", save_all=True, append_images=[flat(BLUE)], quality=95)
    assert_colour(encode(data, 16), RED)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_high_byte(format: str) -> None:
    """Pillow's own conversion clips at 255, which makes nearly everything white."""
    levels = np.random.default_rng(1).integers(0, 65536, (16, 16)).astype(np.uint16)
    assert_grey(encode(saved(Image.fromarray(levels), format), 16), levels >> 8)


def test_big_endian_sixteen_bit_tiff() -> None:
    levels = np.random.default_rng(2).integers(0, 65536, (16, 16)).astype(np.uint16)
    image = Image.frombytes("I;16B", (16, 16), levels.astype(">u2").tobytes())
    assert_grey(encode(saved(image, "TIFF"), 16), levels >> 8)


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("WEBP", {"lossless": True}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("PPM", {}, 0),
        ("GIF", {}, 1),  # a palette of 256 colours has room for the three here; 1 for conversions through it
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 4),  # lossy
    ],
)
def test_formats_give_the_same_record(format: str, options: dict[str, object], tolerance: int) -> None:
    if format not in FORMATS:
        pytest.skip(f"this Pillow is built without {format}")
    image = Image.new("RGB", (48, 16), RED)
    image.paste(GREEN, (16, 0, 32, 16))
    image.paste(BLUE, (24, 8, 32, 16))
    expected = encode(saved(image), 16).astype(int)
    assert np.abs(encode(saved(image, format, **options), 16) - expected).max() <= tolerance


def test_the_first_picture_of_an_animation_counts() -> None:
    data = saved(flat(GREEN), "GIF", save_all=True, append_images=[flat(RED), flat(BLUE)])
    assert_colour(encode(data, 16), GREEN)


# --- orientation ----------------------------------------------------------------------------------


def turned(image: Image.Image, orientation: int, format: str, **options: object) -> bytes:
    """The picture as a camera stores it that was held so: `orientation` says how to turn it
    upright.
    """
    transpose = STORED[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(image if transpose is None else image.transpose(transpose), format, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation_is_undone(orientation: int, format: str) -> None:
    """Lossless and not resized: exactly the upright picture's record, chroma squares included."""
    picture = textured(60, 40)
    record = encode(turned(picture, orientation, format), 40)
    assert np.array_equal(record, encode(saved(picture), 40))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg_is_undone(orientation: int) -> None:
    """Decoded at half size and shrunk. Blocks of 8 turn with the picture; rounding in two passes
    leaves less than one level.
    """
    picture = smooth(160, 128)
    expected = encode(saved(picture, "JPEG", quality=95, subsampling=0), 48).astype(int)
    record = encode(turned(picture, orientation, "JPEG", quality=95, subsampling=0), 48)
    assert np.abs(record - expected).mean() < 1
    unturned = encode(saved(picture.transpose(Image.Transpose.ROTATE_180), "JPEG", quality=95), 48)
    assert np.abs(unturned - expected).mean() > 20  # so a wrong turn would be seen


@pytest.mark.parametrize("exif", [b"garbage", b"II*\0\x08\0\0\0\xff\xff", b"II*\0\xff\xff\xff\xff", b""])
def test_damaged_exif_is_no_reason_to_refuse(exif: bytes) -> None:
    assert_colour(encode(saved(flat(RED), "JPEG", quality=95, exif=b"Exif\0\0" + exif), 16), RED)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert np.array_equal(encode(saved(textured(40, 40), exif=exif), 40), encode(saved(textured(40, 40)), 40))


# --- shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["short-side", "squash"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2)])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_tiny_and_thin_pictures(shape: tuple[int, int], resize: Resize, format: str) -> None:
    options = {"quality": 95} if format == "JPEG" else {}
    assert_colour(encode(saved(flat(BLUE, *shape), format, **options), 32, resize), BLUE)


def three_parts() -> Image.Image:
    """80 x 40: red on the left quarter, green, blue on the right quarter."""
    image = Image.new("RGB", (80, 40), GREEN)
    image.paste(RED, (0, 0, 20, 40))
    image.paste(BLUE, (60, 0, 80, 40))
    return image


def test_short_side_keeps_the_centre_square() -> None:
    assert_colour(encode(saved(three_parts()), 20, "short-side"), GREEN)
    assert_colour(encode(saved(three_parts().transpose(Image.Transpose.ROTATE_90)), 20, "short-side"), GREEN)


def test_squash_keeps_everything() -> None:
    rgb = decode(encode(saved(three_parts()), 20, "squash")).astype(int)
    for columns, colour in ((slice(0, 4), RED), (slice(6, 14), GREEN), (slice(16, 20), BLUE)):
        assert np.abs(rgb[:, columns] - colour).max() <= 4


def test_short_side_is_the_default() -> None:
    assert np.array_equal(encode(saved(three_parts()), 20), encode(saved(three_parts()), 20, "short-side"))


def test_an_odd_rest_is_cut_off_on_the_right_and_below() -> None:
    """41 - 40 = 1 pixel too many: the centre square starts at 0, as the floor of a half."""
    picture = textured(41, 40)
    assert np.array_equal(encode(saved(picture), 40), encode(saved(picture.crop((0, 0, 40, 40))), 40))


# --- refused --------------------------------------------------------------------------------------


def test_empty_file_is_refused() -> None:
    with pytest.raises(Unreadable, match=r"^empty file$"):
        encode(b"", 16)


@pytest.mark.parametrize(
    "text", [b"<html>404 not found</html>", b"x", b"\x89PNG", b"\xff\xd8", b"\0\0\0\x18ftypisom\0\0\0\0mp42"]
)
def test_what_is_no_picture_is_refused(text: bytes) -> None:
    with pytest.raises(Unreadable, match=r"^not an image in a known format$"):
        encode(text, 16)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_picture_is_refused(format: str, share: float) -> None:
    data = saved(textured(200, 150), format)
    with pytest.raises(Unreadable, match=r"^truncated or damaged: "):
        encode(data[: int(len(data) * share)], 16)


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_truncated_progressive_jpeg_is_refused(share: float) -> None:
    """Its first half alone would give a blurred picture."""
    data = saved(textured(200, 150), "JPEG", progressive=True)
    with pytest.raises(Unreadable, match=r"^truncated or damaged: "):
        encode(data[: int(len(data) * share)], 16)


def test_damaged_png_is_refused() -> None:
    data = bytearray(saved(textured(200, 150)))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(Unreadable, match=r"^truncated or damaged: "):
        encode(bytes(data), 16)


@pytest.mark.parametrize(
    ("width", "height"), [(9460, 9459), (65500, 65500), (MAX_PIXELS + 1, 1)], ids=["above", "far-above", "one-too-many"]
)
@pytest.mark.parametrize("action", ["ignore", "error"])
def test_decompression_bomb_is_refused_before_it_is_decoded(
    width: int, height: int, action: Literal["ignore", "error"]
) -> None:
    """Pillow warns from its limit on and raises from twice that on; we refuse both, by the header
    alone, and with the same reason where warnings are errors."""
    assert width * height > MAX_PIXELS
    with (
        warnings.catch_warnings(action=action),
        pytest.raises(Unreadable, match=r"more than 89,478,485 pixels: refused as a decompression bomb \(--max-pixels"),
    ):
        encode(png_header(width, height), 16)


def test_the_largest_picture_is_no_bomb() -> None:
    with pytest.raises(Unreadable, match=r"^truncated or damaged"):
        encode(png_header(MAX_PIXELS, 1), 16)


def test_eps_is_never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives EPS to Ghostscript, a program that runs what the file says."""
    opened: list[str] = []
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", lambda _: opened.append("open"))
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: opened.append("run"))
    with pytest.raises(Unreadable, match=r"^not an image in a known format$"):
        encode(saved(flat(RED), "EPS"), 16)
    assert not opened
    assert "EPS" not in FORMATS


def test_floating_point_tiff_is_refused() -> None:
    with pytest.raises(Unreadable, match=r"^floating-point pixels have no defined white$"):
        encode(saved(Image.fromarray(np.full((16, 16), 0.5, np.float32)), "TIFF"), 16)
