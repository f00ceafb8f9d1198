"""Near-duplicates: photos of one burst, the same scene twice, a photo and its edited copy.

Where one of them is trained on and another one tested with, the network is tested on what it has
seen, and its error is too low. So near-duplicates belong to one split, as exact copies do
(`hold_out.py`). `groups` finds them by the cosine between two vectors. Two kinds of vectors find
different copies, and are used together:

| share found, of 300 photos and their copies | `scenes`, 0.85 | `thumbnails`, 0.95 |
|---|---:|---:|
| burst: turned 2°, cut to 92 % of a side, moved, 10 % brighter | 100 % | 11 % |
| burst: turned 4°, cut to 86 %, moved, 10 % darker | 96 % | 2 % |
| cut to 80 % | 98 % | 2 % |
| cut to 95 % | 100 % | 90 % |
| JPEG of quality 20; 30 % brighter or darker | 100 % | 100 % |
| half the pixels | 96 % | 100 % |
| without colour | 57 % | 60 % |
| mirrored | 9 % | 2 % |

These are photos of Imagenette in full size, of which neither takes two different ones for copies.
Of photos of 144 pixels, enlarged, `scenes` finds 84 % of the second kind of burst and 15 % of those
of half the pixels, and of 4.5 million pairs of different ones it takes one, which is one horn
photographed twice; `thumbnails` take none (benchmarks/near_duplicates.py). A network from scratch
has the thumbnails only, as `scenes` are features of trained convolutions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.image import planes
from alexnet.data.store import Records

#: Photos beyond this number are not compared, as each is compared with each: this many take half a
#: minute.
MOST = 20_000
#: Pairs for each photo beyond which pictures are too alike to tell, such as drawings on white.
MOST_PAIRS = 10
BLOCK = 1024


class Vectors(NamedTuple):
    """One vector for each photo, (N, D) float32, and the least cosine of near-duplicates."""

    values: Tensor
    least: float


def scenes(pool5: Tensor) -> Vectors:
    """Of features (N, C, H, W): averaged to 2 × 2, so that a small shift of the camera hardly moves
    them.
    """
    return Vectors(F.adaptive_avg_pool2d(pool5.float(), 2).flatten(1), 0.85)


def thumbnails(*records: Records) -> Vectors:
    """Of records, (N, bytes) uint8, those of several arrays one after the other: 16 × 16 values of
    brightness, less their mean and by their deviation, and 8 × 8 of colour.
    """
    parts = [some[start : start + BLOCK] for some in records for start in range(0, len(some), BLOCK)]
    return Vectors(torch.cat([_thumbnails(part) for part in parts]), 0.95)


def _thumbnails(records: NDArray[np.uint8]) -> Tensor:
    sizes = ((16, 16), (8, 8), (8, 8))
    small = [
        F.interpolate(torch.from_numpy(np.ascontiguousarray(plane))[:, None], size, mode="bilinear", antialias=True).flatten(1)
        for plane, size in zip(planes(records), sizes, strict=True)
    ]
    y, u, v = (plane.float() for plane in small)
    y = (y - y.mean(1, keepdim=True)) / (y.std(1, keepdim=True) + 4)  # one grey level of noise on a blank wall is no scene
    u, v = ((plane - 128) / 32 for plane in (u, v))
    return torch.cat((y / 16, u / 16, v / 16), 1)


def groups(kinds: Sequence[Vectors]) -> NDArray[np.int64] | None:
    """Which photos are near-duplicates of each other, directly or by way of others.

    Args:
        kinds: vectors of the same N photos.

    Returns:
        (N,) number of each photo's group, which is that of its first photo. Vectors by which most
        photos are alike, as those of weights that are not trained, say nothing and are not used;
        None if no others are given.
    """
    count = len(kinds[0].values)
    group = np.arange(count)
    found = [pairs for kind in kinds if (pairs := _pairs(kind, MOST_PAIRS * count)) is not None]
    if not found:
        return None
    for first, second in (pair for pairs in found for pair in pairs):
        join(group, first, second)
    return np.array([root(group, number) for number in range(count)])


def _pairs(kind: Vectors, most: int) -> list[tuple[int, int]] | None:
    """Pairs with at least that cosine; None if there are more than `most`."""
    unit = F.normalize(kind.values, dim=1)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(unit), BLOCK):
        near = (unit[start : start + BLOCK] @ unit[start:].T >= kind.least).triu(1).nonzero()
        if len(pairs) + len(near) > most:
            return None
        pairs += [(start + first, start + second) for first, second in near.tolist()]
    return pairs


def join(group: NDArray[np.int64], first: int, second: int) -> None:
    """Make the groups of two photos one."""
    low, high = sorted((root(group, first), root(group, second)))
    group[high] = low


def root(group: NDArray[np.int64], number: int) -> int:
    """The first photo of a photo's group."""
    while group[number] != number:
        group[number] = group[group[number]]
        number = int(group[number])
    return number
