"""What training does to a record by chance (section 4.1 of the paper).

A random crop, mirrored half of the time, and one colour shift for the whole picture, along the
principal components of the training pictures' colours: sum over i of axis_i * deviation_i * a_i
with a_i ~ N(0, 0.1). (The paper writes eigenvalue where the code of 2012 has its square root.) Then
what every record undergoes: `Preprocessing`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store


class Draw(NamedTuple):
    """top, left: (N,) int64, the crop's corner; mirror: (N,) bool; colour: (N, 3)
    float32, added to R, G, B."""

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    mirror: NDArray[np.bool_]
    colour: NDArray[np.float32]


@dataclass(frozen=True)
class Augmentation:
    """Random crops, mirrors and colours.

    Attributes:
        preprocessing: what follows; its S - K is the room in which the crop's corner is
            drawn, in both directions.
        crop: whether the crop is random; the centre otherwise.
        mirror: whether half of the pictures are mirrored.
        colour: (3, 3), columns axis_i * deviation_i * strength in RGB; zeros for none.
    """

    preprocessing: Preprocessing
    crop: bool
    mirror: bool
    colour: NDArray[np.float64]

    @classmethod
    def of(cls, preprocessing: Preprocessing, store: Store, crop: bool, mirror: bool, colour_noise: float) -> "Augmentation":
        """The augmentation of a recipe on a store; `colour_noise` is the
        strength of the colour shift.
        """
        statistics = store.statistics
        return cls(preprocessing, crop, mirror, statistics.axes * statistics.axis_deviations * colour_noise)

    def draw(self, n: int, rng: np.random.Generator) -> Draw:
        """Draw the random crops, mirrors and colours of n pictures; the same generator state gives
        the same ones.
        """
        room = self.preprocessing.stored_size - self.preprocessing.input_size
        corners = rng.integers(0, room + 1, (2, n)) if self.crop else np.full((2, n), room // 2)
        mirror = rng.random(n) < 0.5 if self.mirror else np.zeros(n, bool)
        colour = (rng.standard_normal((n, 3)) @ self.colour.T).astype(np.float32)
        return Draw(corners[0], corners[1], mirror, colour)

    def __call__(self, records: Tensor, rng: np.random.Generator) -> Tensor:
        """(N, bytes) uint8 to (N, 3, K, K) float32; the same generator state gives the same
        batch."""
        drawn = self.draw(len(records), rng)
        top, left, mirror, colour = (torch.from_numpy(array).to(records.device) for array in drawn)
        return self.preprocessing.apply(records, top, left, mirror, colour)
