"""What speaks for a unit of a fully connected layer, and what against it.

Such a unit is a sum: its bias, and each input times its weight. The products are the
contributions, so they add up to the unit's value: to a class's logit in fc8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.arithmetic import Linear
from alexnet.errors import UsageError
from alexnet.model import AlexNet


@dataclass(frozen=True)
class Contributions:
    """The terms of some units' sums. N inputs, U units.

    Attributes:
        units: (U,) numbers of the units.
        inputs: (N,) float32, what they read.
        products: (U, N) float32, inputs times weights.
        bias: (U,) float32.
    """

    units: NDArray[np.int64]
    inputs: NDArray[np.float32]
    products: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def total(self) -> NDArray[np.float64]:
        """(U,) the units' values."""
        return self.products.sum(1, dtype=np.float64) + self.bias

    def largest(self, count: int) -> NDArray[np.int64]:
        """The inputs that count most for all of the units together, by the sum of their products'
        magnitudes, the largest first.
        """
        return np.argsort(-np.abs(self.products).sum(0), kind="stable")[:count]


@torch.inference_mode()
def contributions(model: AlexNet, stages: Mapping[str, Tensor], name: str, units: Sequence[int]) -> Contributions:
    """The terms of the sums of a fully connected layer's units, for one picture.

    Args:
        model: the network.
        stages: what `model.stages` gave for one picture.
        name: the layer, such as fc8.
        units: their numbers, such as those of classes.

    Raises:
        UsageError: no fully connected layer of that name, or no such unit.

    >>> net = AlexNet("paper", width=0.125, input_size=64, num_classes=3)
    >>> terms = contributions(net, net.stages(torch.rand(1, 3, 64, 64)), "fc8", [2])
    >>> terms.products.shape
    (1, 512)
    """
    names = [op.name for op in model.ops]
    connected = [op.name for op in model.ops if isinstance(op, Linear)]
    if name not in connected:
        raise UsageError(f"{name!r} is not a fully connected layer of this network: choose {', '.join(connected)}.")
    weight, bias = model.get_parameter(f"{name}.weight"), model.get_parameter(f"{name}.bias")
    if wrong := [unit for unit in units if not 0 <= unit < len(weight)]:
        raise UsageError(f"{name} has no unit {wrong[0]}: they are numbered from 0 to {len(weight) - 1}.")
    rows = torch.tensor(units, dtype=torch.int64)
    inputs = stages[names[names.index(name) - 1]][0].flatten()
    products = weight[rows] * inputs
    return Contributions(rows.numpy(), inputs.numpy(), products.numpy(), bias[rows].numpy())
