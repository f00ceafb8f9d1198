"""What chance decides about a training picture: a function of (seed, epoch, picture).

`Chance` numbers the pictures by their index in the training split, so the crop, mirror, colours and
dropped units of a picture are the same wherever it is in a batch, in batches of any size, and in a
batch that is cut into parts for several cores or devices. (`loader.py` decides by (seed, epoch,
step) which pictures are in a batch.)

Random numbers are counted, not drawn one after the other: number d of picture p is a mixture of
(key, p, d), with a key for each seed, epoch and purpose. The mixture is SplitMix64's (Steele, Lea
and Flood, 2014), applied to the picture and then to the number: 64 bits in which each bit of the
input changes each bit of the output with probability 1/2. NumPy computes all pictures of a batch
together, in 0.6 us a picture of 128; a generator of NumPy's for each would take 11 us.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Names of the independent random numbers that grow from one seed; `loader.py` has 0 and 3.
AUGMENT, DROPOUT = 1, 2

Pictures = NDArray[np.int64]
Numbers = NDArray[np.uint64]

STRIDE = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd
FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


@dataclass(frozen=True)
class Chance:
    """The random numbers of one epoch of one seed."""

    seed: int
    epoch: int

    def numbers(self, purpose: int, pictures: Pictures, count: int) -> Numbers:
        """Random bits.

        Args:
            purpose: AUGMENT or DROPOUT.
            pictures: (N,) indices in the training split.
            count: numbers for each picture; the first ones are the same for any count.

        Returns:
            (N, count) uint64.
        """
        key = np.random.SeedSequence([self.seed, purpose, self.epoch]).generate_state(1, np.uint64)
        states = _mixed(key + (pictures.astype(np.uint64) + np.uint64(1)) * STRIDE)  # (N,)
        return _mixed(states[:, None] + np.arange(1, count + 1, dtype=np.uint64) * STRIDE)

    def dropout_keys(self, pictures: Pictures, layers: int) -> NDArray[np.int32]:
        """(N, layers) int32, the keys from which `kernels.dropout` decides what to drop."""
        return (self.numbers(DROPOUT, pictures, layers) >> np.uint64(32)).astype(np.uint32).view(np.int32)


def _mixed(numbers: Numbers) -> Numbers:
    """SplitMix64's mixture of each number's bits: one to one, modulo 2^64."""
    for shift, factor in zip(SHIFTS, FACTORS, strict=False):
        numbers = (numbers ^ (numbers >> shift)) * factor
    return numbers ^ (numbers >> SHIFTS[-1])


def uniform(numbers: Numbers) -> NDArray[np.float64]:
    """Numbers in [0, 1), of the upper 53 bits; same shape."""
    return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(numbers: Numbers, limit: int) -> NDArray[np.int64]:
    """Whole numbers in [0, limit), of the upper 32 bits: each has a probability of 1 / limit, to
    2^-32. Same shape; limit is at most 2^32.
    """
    return ((numbers >> np.uint64(32)) * np.uint64(limit) >> np.uint64(32)).astype(np.int64)


def normal(numbers: Numbers) -> NDArray[np.float64]:
    """Standard normal numbers by Box and Muller: (N, 2 k) numbers give (N, 2 k), at most 8.6 in
    size.
    """
    # Contiguous arrays, as NumPy may compute the logarithm of others in another way, and a
    # picture's colours must be the same in any batch.
    first, second = (np.ascontiguousarray(half) for half in np.split(uniform(numbers), 2, axis=1))
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
