"""Means and colours of a store, against float64 on the decoded pixels."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from alexnet.data.image import decode, planes, record_bytes
from alexnet.data.prepare import prepare
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.statistics import BITS, Sums
from alexnet.data.store import Store
from alexnet.errors import StoreError
from alexnet.kernels.reference import yuv_to_rgb


def run(source: Path, store: Path, size: int) -> Store:
    return prepare([source], store, workers=1, size=size)


def write_colours(folder: Path, count: int, low: int, high: int, seed: int) -> None:
    """Patches of colours in [low, high], redder in one corner, in two classes."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        patches = rng.integers(low, high, (4, 4, 3)).astype(np.uint8)
        patches[0, 0] = high, low, low
        Image.fromarray(patches).resize((24, 16), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """50 pictures in four blocks, in whose records no colour leaves [0, 255]; to test, white ones,
    which must not count.
    """
    monkeypatch.setattr("alexnet.data.prepare.BLOCK", 16)
    write_colours(tmp_path / "colours/train", 50, 90, 160, 0)
    write_colours(tmp_path / "colours/val", 10, 250, 255, 1)
    (tmp_path / "colours/train/a/broken.png").write_bytes(b"")
    return run(tmp_path / "colours", tmp_path / "store", 16)


def exact_rgb(records: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, S, S, 3) in float64, without rounding."""
    y, u, v = (torch.from_numpy(plane.astype(np.float64)) for plane in planes(records))
    u, v = (plane.repeat_interleave(2, -2).repeat_interleave(2, -1) for plane in (u, v))
    return torch.stack(yuv_to_rgb(y, u, v), dim=-1).numpy()


def test_mean_image_is_that_of_the_training_records(colours: Store) -> None:
    """To float32's precision: at 160 a step is 1.5e-5."""
    expected = exact_rgb(np.array(colours.train.records)).mean(axis=0)
    mean = colours.mean_image
    assert (mean.shape, mean.dtype) == ((3, 16, 16), np.float32)
    assert np.abs(mean - np.moveaxis(expected, -1, 0)).max() < 1e-4


def test_mean_image_is_that_of_the_pictures_as_people_see_them(colours: Store) -> None:
    """`decode` rounds down in two steps, so its mean lies up to one level lower."""
    expected = np.mean([decode(record).astype(np.float64) for record in colours.train.records], axis=0)
    difference = colours.mean_image - np.moveaxis(expected, -1, 0)
    assert -0.1 < difference.min() < difference.max() < 1.1


@pytest.fixture
def saturated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """40 pictures of pure colours in three blocks: most pixels leave [0, 255] on
    the way from YCbCr to RGB.
    """
    monkeypatch.setattr("alexnet.data.prepare.BLOCK", 16)
    rng = np.random.default_rng(2)
    for index in range(44):
        path = tmp_path / "pure" / ("val" if index > 39 else "train") / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        patches = rng.integers(0, 2, (6, 6, 3)).astype(np.uint8) * 255
        Image.fromarray(patches).resize((36, 36), Image.Resampling.BICUBIC).save(path)
    return run(tmp_path / "pure", tmp_path / "store", 18)


def test_mean_image_of_saturated_colours(saturated: Store) -> None:
    """Of the pixels that the network sees, in float64: to float32's precision, 1.5e-5 at 255, and
    that of chroma with 16 bits behind the point. Without clipping it would be four levels off."""
    seen, raw = (exact(np.array(saturated.train.records)).mean(axis=0) for exact in (exact_rgb, unclipped_rgb))
    assert np.abs(raw - seen).max() > 3
    assert np.abs(saturated.mean_image - np.moveaxis(seen, -1, 0)).max() < 1e-4
    assert saturated.mean_image.min() >= 0 and saturated.mean_image.max() <= 255
    assert saturated.verify() == []


def test_colours_of_saturated_pictures(saturated: Store) -> None:
    """Products have 4 bits behind the point: a sixteenth of a level in each of
    two factors of at most 435.
    """
    pixels = samples(saturated)
    statistics = saturated.statistics
    assert np.allclose(statistics.mean_colour, pixels.mean(axis=0), rtol=0, atol=1e-4)
    covariance = np.cov(pixels.T, bias=True)
    assert np.abs(statistics.covariance - covariance).max() < 1e-3 * covariance.max()
    assert np.allclose(statistics.deviation, np.sqrt(np.diag(covariance)), rtol=1e-3)
    assert (
        np.abs(np.cov(unclipped_rgb(np.array(saturated.train.records))[:, ::4, ::4].reshape(-1, 3).T) - covariance).max() > 100
    )


def test_network_and_mean_see_the_same(saturated: Store) -> None:
    """The mean of what `kernels.augment` gives the network after subtracting the mean image is
    zero.
    """
    records = torch.from_numpy(np.array(saturated.train.records))
    preprocessing = Preprocessing(18, 18, "short-side", False, torch.from_numpy(saturated.mean_image), torch.ones(3))
    assert preprocessing.view(records, 0, 0, False).double().mean(0).abs().max() < 1e-4


def unclipped_rgb(records: NDArray[np.uint8]) -> NDArray[np.float64]:
    """As `exact_rgb`, by the formula alone."""
    y, u, v = (plane.astype(np.float64) for plane in planes(records))
    u, v = (plane.repeat(2, axis=-2).repeat(2, axis=-1) - 128 for plane in (u, v))
    return np.stack([y + 1.402 * v, y - 0.344136286 * u - 0.714136286 * v, y + 1.772 * u], axis=-1)


def samples(store: Store) -> NDArray[np.float64]:
    """(pixels, 3): the top left one of each 4 x 4 square."""
    return exact_rgb(np.array(store.train.records))[:, ::4, ::4].reshape(-1, 3)


def test_mean_colour_and_deviation(colours: Store) -> None:
    pixels = samples(colours)
    assert np.allclose(colours.statistics.mean_colour, pixels.mean(axis=0), rtol=0, atol=1e-9)
    assert np.allclose(colours.statistics.deviation, pixels.std(axis=0), rtol=0, atol=1e-9)


def test_principal_components(colours: Store) -> None:
    """Columns, largest first: the covariance is axes diag(deviation^2) axes'."""
    covariance = np.cov(samples(colours).T, bias=True)
    axes, deviations = colours.statistics.axes, colours.statistics.axis_deviations
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert deviations[0] > deviations[1] > deviations[2] > 0
    assert np.allclose(axes @ np.diag(deviations**2) @ axes.T, covariance, rtol=1e-9, atol=1e-9)
    assert np.allclose(covariance @ axes[:, 0], deviations[0] ** 2 * axes[:, 0], rtol=1e-9, atol=1e-9)


def test_sums_are_exact_at_their_limits() -> None:
    """256 white records: 255 x 256 just fits into the 16 bits that one block is summed in."""
    white = np.full((256, record_bytes(16)), 255, np.uint8)
    sums = Sums.of(white)
    assert (sums.image == 255 * 256).all()
    assert sums.pixels == 256 * 16
    assert sums.colour.tolist() == [255 * sums.pixels] * 3
    assert (sums.products == 255**2 * sums.pixels).all()


def test_sums_of_parts_are_the_sums_of_the_whole(tmp_path: Path) -> None:
    """In any order, and after a rest on the disk."""
    records = np.random.default_rng(0).integers(0, 256, (100, record_bytes(6)), dtype=np.uint8)
    whole = Sums.of(records)
    parts = Sums.of(records[70:])
    parts.save(tmp_path / "sums.npz")
    parts = Sums.load(tmp_path / "sums.npz", 6, 30)
    for part in (records[:0], records[:30], records[30:70]):
        parts.add(Sums.of(part))
    assert (parts.count, parts.pixels) == (whole.count, whole.pixels) == (100, 400)  # 2 x 2 squares begin within 6 pixels
    for field in fields(Sums):
        assert np.array_equal(getattr(parts, field.name), getattr(whole, field.name))


@pytest.mark.parametrize("seed", range(3))
def test_what_clipping_adds_to_any_records(seed: int) -> None:
    """Noise in all planes, where two thirds of the pixels are clipped; sides that are no multiple
    of 4; 40 records are two rounds."""
    records = np.random.default_rng(seed).integers(0, 256, (40, record_bytes(10)), dtype=np.uint8)
    sums = Sums.of(records)
    expected = (exact_rgb(records) - unclipped_rgb(records)).sum(axis=0)
    assert np.abs(sums.clipped_image / 2**BITS - np.moveaxis(expected, -1, 0)).max() < 40 * 2 * 2.0**-BITS
    assert np.abs(sums.mean_image() - np.moveaxis(exact_rgb(records).mean(axis=0), -1, 0)).max() < 1e-4


def spoil(path: Path, **changes: Any) -> None:
    """Write sums with other arrays; None leaves one out."""
    with np.load(path) as saved:
        arrays = {**saved, **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize("name", [field.name for field in fields(Sums)])
@pytest.mark.parametrize("value", [None, np.zeros(3), np.zeros((2, 2), np.int64), np.array("text"), np.int64(-1)], ids=repr)
def test_damaged_sums(tmp_path: Path, name: str, value: Any) -> None:
    """Of each array: missing, of another type or shape, negative."""
    path = tmp_path / "sums.npz"
    Sums.of(np.zeros((3, record_bytes(6)), np.uint8)).save(path)
    spoil(path, **{name: value})
    with pytest.raises(StoreError, match=rf"sums\.npz is damaged: .*Delete {tmp_path} and prepare again\."):
        Sums.load(path, 6, 3)


def test_damaged_sums_as_a_whole(tmp_path: Path) -> None:
    """Not a zip file, cut short, packed (four kilobytes that would take four gigabytes),
    missing, of other records.
    """
    path = tmp_path / "sums.npz"
    Sums.of(np.zeros((3, record_bytes(6)), np.uint8)).save(path)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[:-30], whole[: len(whole) // 2], b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"sums\.npz is damaged"):
            Sums.load(path, 6, 3)
    np.savez_compressed(path, count=np.zeros(10**6))
    with pytest.raises(StoreError, match=r"sums\.npz is damaged: it is compressed"):
        Sums.load(path, 6, 3)
    path.write_bytes(whole)
    with pytest.raises(StoreError, match="covers 3 records, but 4 are written"):
        Sums.load(path, 6, 4)
    with pytest.raises(StoreError, match="No such file"):
        Sums.load(tmp_path / "none.npz", 6, 3)
