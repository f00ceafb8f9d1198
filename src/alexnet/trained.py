"""A trained network with all that it needs to be right."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from alexnet.data.preprocessing import Preprocessing
from alexnet.model import AlexNet


@dataclass(frozen=True)
class Trained:
    """A network and what belongs to it.

    Attributes:
        classes: names in the order of the network's outputs.
        extra: tensors that are not the network's, such as the optimiser's velocity.
        state: whatever else the writer noted.
    """

    model: AlexNet
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    extra: dict[str, Tensor]
    state: dict[str, Any]
