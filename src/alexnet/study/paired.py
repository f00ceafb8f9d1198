"""Estimate how much two sides differ from pairs that share a seed, and whether that could be
chance.

Both networks of a pair see the same pictures in the same order, so much of what chance does to one
it does to the other, and their difference varies less than each of them. The interval is Student's:
mean ± t s / sqrt(n) over n pairs. It covers what the seed decides; which pictures happen to be held
out is the same for all pairs, and not covered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist, mean, stdev

CONFIDENCE = 0.95
#: Student's t at 97.5 % for 1 to 9 degrees of freedom; beyond, `t_quantile`'s
#: series is right to 2e-4.
T_TABLE = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
MOST_PAIRS = 1000


@dataclass(frozen=True)
class Difference:
    """Changed minus standard.

    Attributes:
        n: pairs.
        deviation: of the pairs' differences; None for one pair.
        half: half the width of the 95 % interval; None where none can be drawn: one pair, or all
            pairs differ by the same.
    """

    n: int
    mean: float
    deviation: float | None
    half: float | None

    @property
    def shown(self) -> bool:
        """Whether the interval excludes no difference at all."""
        return self.half is not None and abs(self.mean) > self.half

    def holds(self, value: float) -> bool:
        """Whether the interval holds a value."""
        return self.half is not None and abs(value - self.mean) <= self.half

    def pairs_needed(self, value: float) -> int | None:
        """How many pairs of this deviation would show a difference of that size; None
        if a thousand would not.
        """
        if not self.deviation or not value:
            return None
        fits = (n for n in range(2, MOST_PAIRS + 1) if t_quantile(n - 1) * self.deviation / sqrt(n) < abs(value))
        return next(fits, None)


def difference(standard: Sequence[float], changed: Sequence[float]) -> Difference:
    """Of pairs, in their order."""
    each = [new - old for old, new in zip(standard, changed, strict=True)]
    if len(each) < 2:
        return Difference(len(each), each[0], None, None)
    deviation = stdev(each)
    same = deviation <= 1e-12 * max(map(abs, each), default=0.0)
    half = None if same else t_quantile(len(each) - 1) * deviation / sqrt(len(each))
    return Difference(len(each), mean(each), deviation, half)


def t_quantile(freedom: int) -> float:
    """Student's t below which 97.5 % are (Abramowitz and Stegun 26.7.5 beyond the table)."""
    if freedom < 1:
        return inf
    if freedom <= len(T_TABLE):
        return T_TABLE[freedom - 1]
    x = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms = ((x**3 + x) / 4, (5 * x**5 + 16 * x**3 + 3 * x) / 96, (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384)
    return x + sum(term / freedom**power for power, term in enumerate(terms, 1))
