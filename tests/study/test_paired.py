"""Intervals of paired differences, against scipy."""

import numpy as np
import pytest
from scipy import stats

from alexnet.study.paired import difference, t_quantile
from alexnet.study.record import verdict


@pytest.mark.parametrize("freedom", [*range(1, 40), 100, 1000])
def test_t_quantile(freedom: int) -> None:
    """Within 2e-4: the table has four decimals, the series is cut after the third term."""
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=2e-4)


@pytest.mark.parametrize("n", [2, 3, 7, 25])
def test_interval(n: int) -> None:
    rng = np.random.default_rng(n)
    standard, changed = rng.normal(40, 3, n), rng.normal(42, 3, n)
    found = difference(standard.tolist(), changed.tolist())
    expected = stats.ttest_rel(changed, standard).confidence_interval(0.95)
    assert found.half is not None and found.n == n
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((expected.low, expected.high), rel=1e-3)
    assert found.shown == (stats.ttest_rel(changed, standard).pvalue < 0.05)


def test_none_where_none_can_be_drawn() -> None:
    one = difference([1.0], [3.0])
    assert (one.n, one.mean, one.deviation, one.half, one.shown) == (1, 2.0, None, None, False)
    same = difference([1.0, 2.0, 3.3], [3.0, 4.0, 5.3])
    assert same.half is None and not same.shown
    assert difference([1.0, 2.0], [1.0, 2.0]).half is None


def test_pairs_needed() -> None:
    """The smallest number whose interval would exclude zero."""
    found = difference([0.0, 0.0, 0.0], [-1.0, 0.0, 1.0])  # deviation 1
    needed = found.pairs_needed(0.5)
    assert needed is not None
    assert t_quantile(needed - 1) / needed**0.5 < 0.5 <= t_quantile(needed - 2) / (needed - 1) ** 0.5
    assert found.pairs_needed(0.01) is None


def test_verdicts() -> None:
    def say(differences: list[float], stated: float | None) -> str:
        return verdict(difference([0.0] * len(differences), differences), stated, lambda points: f"{points:+.1f}")

    assert say([2.0], 1.4) == "One pair is not evidence; a second could reverse the sign."
    assert "All pairs differ by the same" in say([2.0, 2.0], 1.4)
    assert say([1.0, 1.4, 1.6], 1.4) == "Shown: zero is outside the interval, the paper's +1.4 inside."
    assert say([3.0, 3.1, 3.2], 1.4) == "Shown: zero is outside the interval, the paper's +1.4 outside."
    assert say([3.0, 3.1, 3.2], None) == "Shown: zero is outside the interval."
    small = say([-2.0, 0.5, 3.0], 1.4)
    assert small.startswith("Not shown: zero is inside the interval, the paper's +1.4 inside. To tell the paper's")
    assert "about 15 pairs" in small
    assert say([-0.1, 0.0, 0.12], 1.4) == "Not shown: zero is inside the interval, the paper's +1.4 outside."
