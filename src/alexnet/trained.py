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
        missing: layers that are not there, such as ("fc6", "fc7", "fc8"). Then `model` is the
            network up to the first of them (`AlexNet.beginning`), `extra` has the layers behind
            it, and `classes` are those of the variant.
    """

    model: AlexNet
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    extra: dict[str, Tensor]
    state: dict[str, Any]
    missing: tuple[str, ...] = ()
