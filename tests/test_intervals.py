"""Intervals and chance, against SciPy and by counting."""

import numpy as np
import pytest

from alexnet import intervals
from alexnet.intervals import chance, stated, warning, wilson


@pytest.mark.parametrize("images", [1, 2, 7, 99, 100, 3925, 50_000])
def test_wilson_as_scipys(images: int) -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for wrong in sorted({0, 1, images // 3, images - 1, images}):
        reference = binomtest(wrong, images).proportion_ci(method="wilson")
        assert wilson(wrong, images) == pytest.approx((reference.low, reference.high), rel=1e-12, abs=1e-15)
        other = binomtest(wrong, images).proportion_ci(0.99, method="wilson")
        assert wilson(wrong, images, 0.99) == pytest.approx((other.low, other.high), rel=1e-12, abs=1e-15)


def test_wilson_covers() -> None:
    """95 of 100 intervals hold the true error, also where it is small: drawn 20,000
    times, within 1.5 points.
    """
    for error, images in ((0.2, 100), (0.02, 300), (0.5, 40)):
        drawn = np.random.default_rng(0).binomial(images, error, 20_000)
        ends = np.array([wilson(int(wrong), images) for wrong in range(images + 1)])[drawn]
        assert ((ends[:, 0] <= error) & (error <= ends[:, 1])).mean() == pytest.approx(0.95, abs=0.015)


def test_ends() -> None:
    assert wilson(0, 0) == (0, 1)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1
    for wrong, images in ((-1, 10), (11, 10), (1, 0)):
        with pytest.raises(ValueError, match=rf"wrong \(={wrong}\) must be from 0 to images \(={images}\)"):
            wilson(wrong, images)


def test_chance_is_the_best_without_looking() -> None:
    assert chance([50] * 10) == pytest.approx(0.9)
    assert chance([90, 10]) == pytest.approx(0.1)
    assert chance([0, 7, 0]) == 0
    assert chance([]) == 1


def test_words() -> None:
    assert stated(8, 97, 0.9) == "8.25% of 97 pictures (95% interval 4.24% to 15.44%, chance 90.00%)"
    assert stated(0, 0) == "0.00% of 0 pictures (95% interval 0.00% to 100.00%)"
    assert warning(intervals.FEW) is None
    assert "only 99 test pictures" in (warning(99) or "")
