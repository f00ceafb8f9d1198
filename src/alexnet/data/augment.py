"""What training does to a record by chance (section 4.1 of the paper).

A random crop, mirrored half of the time, and one colour shift for the whole picture, along the
principal components of the training pictures' colours: sum over i of axis_i * deviation_i * a_i
with a_i ~ N(0, 0.1). (The paper writes eigenvalue where the code of 2012 has its square root.) Then
what every record undergoes: `Preprocessing`. What is drawn for a picture is a function of (seed,
epoch, picture), see `chance.py`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.chance import AUGMENT, Chance, Pictures, below, normal, uniform
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

    def draw(self, pictures: Pictures, chance: Chance) -> Draw:
        """The crops, mirrors and colours that an epoch has for pictures.

        Args:
            pictures: (N,) indices in the training split.
        """
        numbers = chance.numbers(AUGMENT, pictures, 7)  # (N, 7): corner, mirror, colour
        room = self.preprocessing.stored_size - self.preprocessing.input_size
        corners = below(numbers[:, :2], room + 1) if self.crop else np.full((len(pictures), 2), room // 2)
        mirror = (uniform(numbers[:, 2]) < 0.5) & self.mirror
        strengths = normal(numbers[:, 3:])[:, :3]
        # Not a product of matrices, whose last bits may depend on the number of rows.
        colour = (strengths[:, None, :] * self.colour).sum(2).astype(np.float32)
        return Draw(corners[:, 0], corners[:, 1], mirror, colour)

    def __call__(self, records: Tensor, pictures: Pictures, chance: Chance) -> Tensor:
        """(N, bytes) uint8 to (N, 3, K, K) float32, as an epoch changes them.

        Args:
            pictures: (N,) indices of the records in the training split.
        """
        drawn = self.draw(pictures, chance)
        top, left, mirror, colour = (torch.from_numpy(array).to(records.device) for array in drawn)
        return self.preprocessing.apply(records, top, left, mirror, colour)
