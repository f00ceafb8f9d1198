"""The uncertainty of an error rate: its 95 % interval, and the error of chance.

An error counted on n test pictures is a sample: another n pictures would give another number.
Wilson's interval (1927) holds the error rates under which the count would not surprise: a test at
the 5 % level rejects none of them. Unlike the error plus or minus two standard deviations, it stays
within [0, 1] and is right for few pictures and for errors near 0. It says how much the choice of
test pictures matters, and nothing about another training run, whose seed moves the error as well.

Only the standard library is used.
"""

from collections.abc import Iterable
from math import sqrt

from alexnet.phrases import counted

LEVEL = 0.95
FEW = 100  # test pictures; an error of 20 % on 100 has an interval from 13 to 29 %


def wilson(wrong: int, images: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of an error rate, without a correction for continuity.

    Args:
        wrong: how many of the pictures were classified wrongly.
        images: how many were tested; where there are none, nothing is known.
        level: how often such intervals hold the true error.

    Returns:
        lower and upper end, shares in [0, 1].

    Raises:
        ValueError: `wrong` is negative or more than `images`.
    """
    if not 0 <= wrong <= images:
        raise ValueError(f"wrong (={wrong}) must be from 0 to images (={images}).")
    if not images:
        return 0.0, 1.0
    from statistics import NormalDist  # takes a twentieth of the time of `alexnet --help`

    z = NormalDist().inv_cdf((1 + level) / 2)
    share, squared = wrong / images, z * z / images
    centre = (share + squared / 2) / (1 + squared)
    half = sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    return (centre - half if wrong else 0.0), (centre + half if wrong < images else 1.0)


def chance(images_per_class: Iterable[int]) -> float:
    """The error of naming the most frequent class for every picture, a share in [0, 1].

    Nobody who does not look at the pictures can do better. With K classes of
    equal size it is 1 - 1/K.

    Args:
        images_per_class: test pictures of each class.
    """
    counts = list(images_per_class)
    return 1 - max(counts, default=0) / max(sum(counts), 1)


def percent(share: float) -> str:
    """An error, interval or chance as people read it: 8.25%."""
    return f"{share:.2%}"


def interval(wrong: int, images: int) -> str:
    """The 95 % interval in words: `4.12% to 15.90%`."""
    low, high = wilson(wrong, images)
    return f"{percent(low)} to {percent(high)}"


def stated(wrong: int, images: int, by_chance: float | None = None) -> str:
    """An error with all that belongs to it: `8.25% of 97 pictures (95% interval 4.24% to
    15.45%, chance 90.00%)`.
    """
    beside = "" if by_chance is None else f", chance {percent(by_chance)}"
    return f"{percent(wrong / max(images, 1))} of {counted(images, 'picture')} (95% interval {interval(wrong, images)}{beside})"


def warning(images: int) -> str | None:
    """What to say where there are too few test pictures to tell good from better;
    None where there are enough.
    """
    if images >= FEW:
        return None
    return f"only {counted(images, 'test picture')}: the error is a rough estimate. Use {FEW} or more to compare networks."
