"""Random numbers that are counted: what they are, by the formula in whole numbers without end, and
that chance would do it so. Bounds are 5 standard errors.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet.data.chance import AUGMENT, DROPOUT, Chance, below, normal, uniform

WORD = 2**64 - 1
N = 100_000
EVERY = np.arange(N)


def mixed(bits: int) -> int:
    """SplitMix64's mixture."""
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & WORD
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & WORD
    return bits ^ bits >> 31


def number(seed: int, epoch: int, purpose: int, picture: int, draw: int) -> int:
    """One of them."""
    key = int(np.random.SeedSequence([seed, purpose, epoch]).generate_state(1, np.uint64)[0])
    step = 0x9E3779B97F4A7C15
    return mixed(mixed(key + (picture + 1) * step & WORD) + (draw + 1) * step & WORD)


def test_the_formula() -> None:
    pictures = np.array([0, 1, 5, 1_281_166, 2**40])
    for seed, epoch, purpose in ((0, 0, AUGMENT), (2**70, 89, DROPOUT)):
        expected = [[number(seed, epoch, purpose, int(picture), draw) for draw in range(4)] for picture in pictures]
        assert Chance(seed, epoch).numbers(purpose, pictures, 4).tolist() == expected
    keys = Chance(3, 1).dropout_keys(pictures, 2)
    assert keys.dtype == np.int32
    assert (keys.astype(np.int64) % 2**32).tolist() == [
        [number(3, 1, DROPOUT, int(picture), draw) >> 32 for draw in range(2)] for picture in pictures
    ]


def test_the_known_sequence() -> None:
    """From a state of 0 the first numbers are those that SplitMix64's authors give."""
    assert [mixed(n * 0x9E3779B97F4A7C15 & WORD) for n in (1, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_a_picture_has_its_own_numbers() -> None:
    """Whatever the batch, and however many are drawn."""
    pictures = np.random.default_rng(0).permutation(1000)
    whole = Chance(0, 0).numbers(AUGMENT, pictures, 7)
    assert np.array_equal(Chance(0, 0).numbers(AUGMENT, pictures[17:18], 3), whole[17:18, :3])
    assert np.array_equal(Chance(0, 0).numbers(AUGMENT, np.arange(1000), 7)[pictures], whole)
    assert Chance(0, 0).numbers(DROPOUT, pictures, 0).shape == (1000, 0)


def test_no_layers_of_dropout() -> None:
    assert Chance(0, 0).dropout_keys(np.arange(3), 0).shape == (3, 0)


def test_uniform() -> None:
    """Chi-square over 1,000 bins has mean 999 and variance 2 * 999; the ends are 0 and almost 1."""
    found = uniform(Chance(1, 2).numbers(AUGMENT, EVERY, 4))
    for draw in found.T:
        expected = N / 1000
        chi_square = ((np.bincount((draw * 1000).astype(int), minlength=1000) - expected) ** 2 / expected).sum()
        assert abs(chi_square - 999) < 5 * (2 * 999) ** 0.5
    ends = uniform(np.array([0, WORD], np.uint64))
    assert ends[0] == 0 and ends[1] == 1 - 2**-53


def test_every_bit() -> None:
    """Each of 64 bits is set in half of the numbers."""
    found = Chance(1, 2).numbers(AUGMENT, EVERY, 1)[:, 0]
    for bit in range(64):
        share = (found >> np.uint64(bit) & np.uint64(1)).mean()
        assert abs(share - 0.5) < 5 * 0.5 / N**0.5, bit


@pytest.mark.parametrize("limit", [1, 2, 33, 1000])
def test_below(limit: int) -> None:
    found = below(Chance(4, 0).numbers(AUGMENT, EVERY, 1)[:, 0], limit)
    counts, expected = np.bincount(found, minlength=limit), N / limit
    assert len(counts) == limit
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - (limit - 1)) <= 5 * (2 * (limit - 1)) ** 0.5
    assert below(np.array([0, WORD], np.uint64), limit).tolist() == [0, limit - 1]


def test_normal() -> None:
    """The first four moments are 0, 1, 0 and 3, with variances of 1, 2, 15 and 96 over n; no
    columns go together; the largest that can be is finite.
    """
    found = normal(Chance(2, 0).numbers(AUGMENT, EVERY, 4))
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((found**power).mean() - expected) < 5 * (variance / found.size) ** 0.5, power
    together = np.corrcoef(found.T)[np.triu_indices(4, 1)]
    assert abs(together).max() < 5 / N**0.5
    assert (abs(found) < 1).mean() == pytest.approx(0.6827, abs=5 * 0.466 / found.size**0.5)
    ends = normal(np.array([[0, 0], [WORD, 0]], np.uint64))
    assert ends.tolist()[0] == [0, 0] and ends[1, 0] == pytest.approx(8.57, abs=0.01)


def others() -> dict[str, NDArray[np.float64]]:
    """What must have nothing to do with one draw of one epoch, of as many pictures."""

    def drawn(seed: int = 7, epoch: int = 3, purpose: int = AUGMENT, shift: int = 0, draw: int = 0) -> NDArray[np.float64]:
        return uniform(Chance(seed, epoch).numbers(purpose, EVERY + shift, draw + 1)[:, draw])

    found = {
        **{f"picture + {shift}": drawn(shift=shift) for shift in (1, 2, 64, 4096)},
        **{f"draw {draw}": drawn(draw=draw) for draw in (1, 2, 6)},
        **{f"draw {draw} of the picture before": drawn(shift=-1, draw=draw) for draw in (1, 2)},
        **{f"epoch {epoch}": drawn(epoch=epoch) for epoch in (2, 4, 35)},
        **{f"seed {seed}": drawn(seed=seed) for seed in (6, 8, 39)},
        "dropout": drawn(purpose=DROPOUT),
        "seed and epoch exchanged": drawn(seed=3, epoch=7),
    }
    return {"itself": drawn(), **found}


def test_nothing_goes_together() -> None:
    """Between a draw and its neighbours in every direction: the correlation, and chi-square of 16 x
    16 fields, with 255 degrees of freedom.
    """
    found = others()
    one = found.pop("itself")
    for name, other in found.items():
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / N**0.5, name
        fields = np.bincount((one * 16).astype(int) * 16 + (other * 16).astype(int), minlength=256)
        chi_square = ((fields - N / 256) ** 2 / (N / 256)).sum()
        assert abs(chi_square - 255) < 5 * (2 * 255) ** 0.5, name
