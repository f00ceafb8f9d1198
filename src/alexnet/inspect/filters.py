"""Show the first layer's filters as pictures (figure 3 of the paper).

In 2012 the first GPU's 48 kernels turned out grey and oriented, the second's coloured: the towers
are kept apart here. A file need not hold more than conv1 to be shown; conv2, whose kernels read one
tower each, says how many towers there are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from alexnet.errors import CheckpointError
from alexnet.model import AlexNet
from alexnet.variants import Variant, get_variant
from alexnet.weights import importer
from alexnet.weights.match import Foreign

CONV1, CONV2 = "conv1.weight", "conv2.weight"
ASSUMED = "the file does not give the order of the channels: assuming RGB. For Caffe's networks, which are BGR, add --bgr"


@dataclass(frozen=True)
class FirstLayer:
    """conv1 of a file.

    Attributes:
        kernels: (towers, kernels per tower, height, width, 3) float32 in [0, 1], RGB.
        format: what kind of file it is.
        notes: what the file does not say, and what was assumed instead.
    """

    kernels: NDArray[np.float32]
    format: str
    notes: tuple[str, ...]


def first_layer(model: AlexNet, grey: bool = False) -> NDArray[np.float32]:
    """A network's first kernels, see `pictures`: (towers, kernels per tower, 11, 11,
    3) float32 in [0, 1], RGB.
    """
    return pictures(model.get_parameter(CONV1), model.variant.towers, model.variant.channel_order == "BGR", grey)


def pictures(weight: Tensor, towers: int = 1, bgr: bool = False, grey: bool = False) -> NDArray[np.float32]:
    """Kernels as pictures, each stretched to its own full range.

    Args:
        weight: (kernels, channels, height, width), of three channels, or of one.
        towers: halves that the kernels belong to, in their order.
        bgr: whether the channels are blue, green, red.
        grey: show the sum over the channels, which is all that grey pictures see of a kernel; its
            colours are those of the random start, which no gradient has touched.

    Returns:
        (towers, kernels per tower, height, width, 3) float32 in [0, 1], RGB; a
        constant kernel is mid-grey.

    Raises:
        CheckpointError: another shape.
    """
    shape = tuple(weight.shape)
    if len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
        raise CheckpointError(
            f"conv1.weight has shape {shape}, but only (kernels, channels, height, width) with 3 channels or 1 can be drawn."
        )
    kernels = weight.detach().cpu().float().numpy()[:, :: -1 if bgr else 1]
    if grey or shape[1] == 1:
        kernels = kernels.sum(axis=1, keepdims=True).repeat(3, axis=1)
    low, high = kernels.min(axis=(1, 2, 3), keepdims=True), kernels.max(axis=(1, 2, 3), keepdims=True)
    stretched = np.where(high > low, (kernels - low) / np.where(high > low, high - low, 1), np.float32(0.5))
    return stretched.transpose(0, 2, 3, 1).reshape(towers, -1, *shape[2:], 3)


def read(path: Path, variant: str | None = None, bgr: bool = False, grey: bool = False) -> FirstLayer:
    """conv1's kernels of a file of any format that `alexnet weights import` reads;
    other layers may be missing.

    Args:
        path: the file, or a run's folder.
        variant: which AlexNet it is, where the file does not tell.
        bgr: the channels are blue, green, red, where neither the file nor the variant tells.
        grey: see `pictures`.

    Raises:
        CheckpointError: unreadable, without a conv1 that can be shown, or the file says
            something else than the caller.
    """
    foreign = importer.read_beginning(path)
    if CONV1 not in foreign.tensors:
        first = ", ".join(list(foreign.tensors)[:3]) or "none"
        raise CheckpointError(f"{path} has no {CONV1}; its first tensors: {first}.")
    chosen = foreign.variant if isinstance(foreign.variant, Variant) else _named(variant or foreign.variant)
    order = _order(foreign, chosen)
    if bgr and order == "RGB":
        raise CheckpointError(f"the channels of {path} are in the order red, green, blue: drop --bgr.")
    towers, unsure = _towers(foreign, chosen)
    notes = [*foreign.notes, *([ASSUMED] if order is None and not bgr and not grey else []), *unsure]
    try:
        kernels = pictures(foreign.tensors[CONV1], towers, bgr or order == "BGR", grey)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return FirstLayer(kernels, foreign.format, tuple(notes))


def _named(name: str | None) -> Variant | None:
    return None if name is None else get_variant(name)


def _order(foreign: Foreign, variant: Variant | None) -> str | None:
    """RGB or BGR, if the file or the variant says which."""
    if foreign.preprocessing:
        return "BGR" if foreign.preprocessing.bgr else "RGB"
    order: str | None = foreign.settled.get("channel_order", variant and variant.channel_order)
    return order


def _towers(foreign: Foreign, variant: Variant | None) -> tuple[int, list[str]]:
    """The number of towers that conv1's kernels belong to, and a note about it."""
    kernels = len(foreign.tensors[CONV1])
    if isinstance(foreign.variant, Variant):
        return foreign.variant.towers, []
    conv2 = foreign.tensors.get(CONV2)
    inputs = 0 if conv2 is None or conv2.dim() < 2 else conv2.shape[1]
    if inputs and kernels % inputs == 0:
        return kernels // inputs, []
    if variant and kernels % variant.towers == 0:
        return variant.towers, []
    return 1, ["without conv2 the file does not show how many towers there are: assuming one; to set it, add --variant"]
