"""Crops, mirrors, colour noise, means and views: what they should be, measured."""

import numpy as np
import pytest
import torch

from alexnet.data.augment import Augmentation, Draw
from alexnet.data.chance import Chance
from alexnet.data.image import decode
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.variants import get_variant


def preprocessing(store: Store, **changes: object) -> Preprocessing:
    return Preprocessing.of(get_variant("paper", **{"width": 0.125, "input_size": 64, **changes}), store)


def records(store: Store, count: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.array(store.train.records[:count]))


def test_centre_view_minus_the_mean_image(store: Store) -> None:
    """The centre crop of the decoded picture minus that of the mean image; decoding
    rounds, so to one grey level.
    """
    found = preprocessing(store).view(records(store, 1), *preprocessing(store).views(1)[0])
    picture = decode(store.train.records[0]).transpose(2, 0, 1).astype(float)
    expected = (picture - store.mean_image)[:, 4:68, 4:68]
    assert abs(found[0].numpy() - expected).max() < 1.01


def test_bgr(store: Store) -> None:
    rgb, bgr = (preprocessing(store, channel_order=order) for order in ("RGB", "BGR"))
    x = records(store)
    assert torch.equal(rgb.view(x, 0, 0, False).flip(1), bgr.view(x, 0, 0, False))


def test_unit_pixels(store: Store) -> None:
    """Over the whole training split each channel has mean 0 and deviation 1, to what sampling one
    pixel in four leaves.
    """
    x = preprocessing(store, pixels="unit", input_size=72).view(torch.from_numpy(np.array(store.train.records)), 0, 0, False)
    assert x.mean((0, 2, 3)).abs().max() < 0.05
    assert (x.std((0, 2, 3)) - 1).abs().max() < 0.05


def test_mean_colour(store: Store) -> None:
    x = preprocessing(store, pixels="mean-colour", input_size=72).view(
        torch.from_numpy(np.array(store.train.records)), 0, 0, False
    )
    assert x.mean((0, 2, 3)).abs().max() < 3  # grey levels; clipping is ignored in the statistics
    assert x.std() > 30


def test_ten_views_in_the_order_of_2012(store: Store) -> None:
    """Top-left, top-right, centre, bottom-left, bottom-right, then their mirrors."""
    assert preprocessing(store).views(10) == [
        (0, 0, False),
        (0, 8, False),
        (4, 4, False),
        (8, 0, False),
        (8, 8, False),
        (0, 0, True),
        (0, 8, True),
        (4, 4, True),
        (8, 0, True),
        (8, 8, True),
    ]


def test_a_mirrored_view_is_the_mirror(store: Store) -> None:
    """With a mean colour; a mean image stays where it is while the picture turns."""
    p, x = preprocessing(store, pixels="mean-colour"), records(store)
    assert torch.equal(p.view(x, 8, 0, True), p.view(x, 8, 0, False).flip(3))


def test_a_picture_is_the_same_in_any_batch(store: Store) -> None:
    """In another order, in parts of every size, and alone, to the bit; not in another epoch or of
    another seed.
    """
    augmentation = Augmentation.of(preprocessing(store), store, crop=True, mirror=True, colour_noise=0.1)
    n = len(store.train)
    x, pictures = records(store, n), np.random.default_rng(0).permutation(n)
    whole = augmentation(x[pictures], pictures, Chance(5, 2))
    for size in (1, 3, 8, n - 1):
        cuts = range(0, n, size)
        parts = [augmentation(x[part], part, Chance(5, 2)) for part in (pictures[at : at + size] for at in cuts)]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(augmentation(x, np.arange(n), Chance(5, 2))[pictures], whole)
    for other in (Chance(5, 3), Chance(6, 2)):
        assert not torch.equal(augmentation(x[pictures], pictures, other), whole)


def test_a_switch_changes_nothing_else(store: Store) -> None:
    """Without crops, mirrors and colours are as with them, and so on."""

    def drawn(crop: bool, mirror: bool, colour_noise: float) -> Draw:
        augmentation = Augmentation.of(preprocessing(store), store, crop, mirror, colour_noise)
        return augmentation.draw(np.arange(500), Chance(0, 0))

    every, none = drawn(True, True, 0.1), drawn(False, False, 0.0)
    assert (none.top == 4).all() and (none.left == 4).all() and not none.mirror.any() and not none.colour.any()
    for switched, fields in ((drawn(False, True, 0.1), "mirror colour"), (drawn(True, False, 0.1), "top left colour")):
        assert all(np.array_equal(getattr(switched, name), getattr(every, name)) for name in fields.split())


def test_crops_and_mirrors_are_uniform(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 9 x 9 corners occur, half of the pictures are mirrored: 5 standard errors."""
    drawn: list[tuple[torch.Tensor, ...]] = []
    monkeypatch.setattr(Preprocessing, "apply", lambda self, records, *parameters: drawn.append(parameters))
    augmentation = Augmentation.of(preprocessing(store), store, crop=True, mirror=True, colour_noise=0.1)
    n = 20_000
    augmentation(torch.zeros(n, 1), np.arange(n), Chance(0, 0))
    top, left, mirror, _ = drawn[0]
    corners = torch.bincount(top * 9 + left, minlength=81)
    assert len(corners) == 81
    assert (corners - n / 81).abs().max() < 5 * (n / 81) ** 0.5
    assert abs(float(mirror.float().mean()) - 0.5) < 5 * 0.5 / n**0.5


def test_colour_noise_lies_along_the_components(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its covariance is strength^2 times that of the pixels' colours: axes are columns,
    deviations no eigenvalues.
    """
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(Preprocessing, "apply", lambda self, records, top, left, mirror, colour: drawn.append(colour))
    augmentation = Augmentation.of(preprocessing(store), store, crop=True, mirror=True, colour_noise=0.1)
    augmentation(torch.zeros(200_000, 1), np.arange(200_000), Chance(0, 0))
    statistics = store.statistics
    expected = 0.01 * statistics.axes @ np.diag(statistics.axis_deviations**2) @ statistics.axes.T
    pixels = np.diag(expected) / 0.01
    assert np.sqrt(pixels) == pytest.approx(statistics.deviation, rel=1e-6)
    np.testing.assert_allclose(np.cov(drawn[0].numpy().T), expected, rtol=0.05, atol=0.01 * abs(expected).max())


def test_nothing_random_is_the_centre(store: Store) -> None:
    p = preprocessing(store)
    augmentation = Augmentation.of(p, store, crop=False, mirror=False, colour_noise=0.0)
    x = records(store)
    assert torch.equal(augmentation(x, np.arange(len(x)), Chance(9, 0)), p.view(x, 4, 4, False))
