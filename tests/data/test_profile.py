"""Colours of pictures with a profile, against the formulas that the profiles stand for, in float64.

ISO 15076-1: a display's colour is its primaries (adapted to D50) times the curve of each channel.
Two pairs are well known besides: sRGB's red is (234, 51, 35) in Display P3, its green
(144, 255, 60) in Adobe RGB (1998).
"""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import (
    ADOBE_RGB,
    D50,
    DISPLAY_P3,
    RED,
    SRGB,
    SRGB_CURVE,
    assert_colour,
    cmyk_profile,
    flat,
    grey_profile,
    rgb_profile,
    saved,
    smooth,
    textured,
)
from PIL import Image, ImageCms
from PIL._util import DeferredError

from alexnet.data import profile
from alexnet.data.image import Unreadable, encode

P3, ADOBE = rgb_profile(DISPLAY_P3, SRGB_CURVE), rgb_profile(ADOBE_RGB, 2.19921875)
ITS_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def from_linear(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB's numbers (0 to 255) of linear light; IEC 61966-2-1."""
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def by_formula(rgb: tuple[int, ...], primaries: tuple[tuple[float, ...], ...], gamma: float | None) -> NDArray[np.float64]:
    """(3,) sRGB of a display's colour; its curve is sRGB's if `gamma` is None."""
    level = np.array(rgb) / 255
    curved = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    linear = curved if gamma is None else level**gamma
    return from_linear(np.linalg.solve(np.array(SRGB).T, np.array(primaries).T @ linear))


@pytest.mark.parametrize("colour", [(234, 51, 35), (150, 110, 60), (40, 90, 200), (77, 77, 77), (255, 255, 255), (0, 0, 0)])
@pytest.mark.parametrize("name", ["P3", "Adobe"])
def test_flat_colours_follow_the_formula(name: str, colour: tuple[int, int, int]) -> None:
    told, primaries, gamma = {"P3": (P3, DISPLAY_P3, None), "Adobe": (ADOBE, ADOBE_RGB, 2.19921875)}[name]
    expected = by_formula(colour, primaries, gamma)
    assert_colour(encode(saved(flat(colour), icc_profile=told), 16), tuple(expected), tolerance=5)


@pytest.mark.parametrize(("told", "stored", "shown"), [(P3, (234, 51, 35), (255, 0, 0)), (ADOBE, (144, 255, 60), (0, 255, 0))])
def test_well_known_pairs(told: bytes, stored: tuple[int, ...], shown: tuple[int, ...]) -> None:
    assert_colour(encode(saved(flat(stored), icc_profile=told), 16), shown, tolerance=6)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "keep_rgb": True}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("PNG", {}),
        ("AVIF", {"quality": 95}),
    ],
)
def test_every_format_that_has_profiles(format: str, options: dict[str, object]) -> None:
    expected = by_formula((150, 110, 60), ADOBE_RGB, 2.19921875)
    assert np.abs(expected - (150, 110, 60)).max() > 14  # so it matters
    assert_colour(encode(saved(flat((150, 110, 60)), format, icc_profile=ADOBE, **options), 16), tuple(expected), tolerance=7)


def test_a_converted_photo_agrees_with_conversion_at_full_size() -> None:
    """Ours is shrunk first, which is what keeps it fast (measured on twelve photos: 1.6 to 3.6
    levels, as without a profile).
    """
    data = saved(textured(160, 120), "JPEG", quality=95, icc_profile=ADOBE)
    image = Image.open(io.BytesIO(data))
    image = ImageCms.profileToProfile(image, io.BytesIO(ADOBE), ImageCms.createProfile("sRGB"))
    full = image.crop((20, 0, 140, 120)).resize((48, 48), Image.Resampling.BILINEAR)
    assert np.abs(encode(data, 48).astype(int) - encode(saved(full), 48)).mean() < 1


@pytest.mark.parametrize("told", [ITS_SRGB, rgb_profile(SRGB, SRGB_CURVE)], ids=["LittleCMS", "IEC"])
@pytest.mark.parametrize(("format", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "RGBA"), ("WEBP", "RGB")])
def test_srgb_keeps_every_bit(format: str, mode: str, told: bytes) -> None:
    picture = textured(60, 50).convert(mode)
    assert np.array_equal(encode(saved(picture, format, icc_profile=told), 40), encode(saved(picture, format), 40))


def test_transparency_is_white_before_and_after() -> None:
    picture = Image.new("RGBA", (16, 16), (*RED, 0))
    assert_colour(encode(saved(picture, icc_profile=P3), 16), (255, 255, 255))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("level", [0, 30, 128, 255])
def test_grey_with_a_curve_of_its_own(level: int, format: str) -> None:
    data = saved(flat(level, mode="L"), format, icc_profile=grey_profile(1.8))
    assert_colour(encode(data, 16), (float(from_linear(np.array((level / 255) ** 1.8))),) * 3, tolerance=3)


def test_grey_with_a_profile_for_colour() -> None:
    """A grey scan that kept the scanner's profile: its curve counts, and grey stays grey."""
    data = saved(flat(100, mode="L"), "JPEG", icc_profile=rgb_profile(ADOBE_RGB, 1.8))
    assert_colour(encode(data, 16), (float(from_linear(np.array((100 / 255) ** 1.8))),) * 3, tolerance=3)


def lab_to_srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE Lab under D50 to sRGB's numbers."""
    y = (lab[0] + 16) / 116
    roots = np.array([y + lab[1] / 500, y, y - lab[2] / 200])
    xyz = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29)) * D50
    return from_linear(np.linalg.solve(np.array(SRGB).T, xyz))


def inks() -> NDArray[np.float64]:
    """(16, 3) Lab of an invented press's mixtures: darker with each ink, bluish cyan, and so on."""
    table = np.zeros((16, 3))
    for number in range(16):
        c, m, y, k = (number >> 3 & 1, number >> 2 & 1, number >> 1 & 1, number & 1)
        table[number] = (1 - k) * np.array([100 - 30 * c - 35 * m - 6 * y, -25 * c + 40 * m - 3 * y, -35 * c + 5 * m + 50 * y])
    return table


@pytest.mark.parametrize(("format", "options"), [("JPEG", {"quality": 98}), ("TIFF", {})])
@pytest.mark.parametrize(
    "mixture", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (255, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255)]
)
def test_cmyk_with_a_profile(mixture: tuple[int, ...], format: str, options: dict[str, object]) -> None:
    number = sum(bool(ink) << place for ink, place in zip(mixture, (3, 2, 1, 0), strict=True))
    data = saved(flat(mixture, mode="CMYK"), format, icc_profile=cmyk_profile(inks()), **options)
    assert_colour(encode(data, 16), tuple(lab_to_srgb(inks()[number])), tolerance=6)


@pytest.mark.parametrize(
    "told",
    [
        b"garbage",
        P3[:100],
        P3[:-200],
        P3[:36] + b"xxxx" + P3[40:],
        grey_profile(1.8),
        cmyk_profile(inks()),
        P3 + bytes(1 << 22),
    ],
    ids=["garbage", "header", "cut", "signature", "for grey", "for CMYK", "too long"],
)
def test_a_profile_that_cannot_be_used_is_left_out(told: bytes) -> None:
    picture = smooth(40, 40)
    assert np.array_equal(encode(saved(picture, "JPEG", icc_profile=told), 40), encode(saved(picture, "JPEG"), 40))


def test_a_profile_for_grey_does_not_reach_colour_without_any() -> None:
    picture = Image.merge("RGB", [textured(40, 40).convert("L")] * 3)
    assert np.array_equal(encode(saved(picture, icc_profile=grey_profile(1.8)), 40), encode(saved(picture), 40))


def test_a_profile_for_rgb_does_not_reach_cmyk() -> None:
    picture = textured(40, 40).convert("CMYK")
    assert np.array_equal(encode(saved(picture, "JPEG", icc_profile=P3), 40), encode(saved(picture, "JPEG"), 40))


def test_without_littlecms_a_profile_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageCms, "core", DeferredError(ImportError("no LittleCMS")))
    profile.to_srgb.cache_clear()
    with pytest.raises(
        Unreadable, match=r"^a picture with a colour profile, for which this Pillow lacks LittleCMS: pip install"
    ):
        encode(saved(flat(RED), icc_profile=P3), 16)
    assert encode(saved(flat(RED)), 16).any()


def test_the_way_is_found_once() -> None:
    profile.to_srgb.cache_clear()
    for _ in range(3):
        encode(saved(flat(RED), icc_profile=P3), 16)
    assert profile.to_srgb.cache_info().misses == 1
