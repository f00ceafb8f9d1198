"""What a unit saw: its activation projected back to the pixels (Zeiler and Fergus, 2014).

The network is walked backwards from one cell. A convolution applies its kernels transposed, a ReLU
keeps what is positive, a max pooling puts each value where the maximum was ("switches"). Local
response normalisation and its spatial kin are taken as constant: each value is divided by the
denominator that it had on the way up, as if that did not depend on it. Dropout at test is a
factor, and tanh is passed unchanged.

Only the part of each map that the cell depends on is computed: a unit of conv5 takes milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from alexnet.arithmetic import LRN, Conv, Dropout, Layer, Linear, MaxPool, ReLU, SpatialNorm
from alexnet.errors import UsageError, nearest
from alexnet.inspect.windows import Box
from alexnet.model import AlexNet

#: In place of 0, of which a normalisation does not show what it is divided by.
NEARLY_ZERO = 1e-3


@dataclass(frozen=True)
class Projection:
    """A cell's activation in the space of pixels.

    Attributes:
        pixels: (height, width, 3) float32, RGB, in the units of the network's input.
        box: where they are in the input: (left, top, right, bottom), the last two excluded.
    """

    pixels: NDArray[np.float32]
    box: Box


@torch.inference_mode()
def deconvolve(
    model: AlexNet, stages: Mapping[str, Tensor], name: str, channel: int, row: int = 0, column: int = 0
) -> Projection:
    """Project one cell of a stage back to the pixels.

    Args:
        model: the network.
        stages: what `model.stages` gave for one picture: (1, C, H, W) and (1, units).
        name: a stage, such as conv3.
        channel: a kernel of it, or a unit of a fully connected layer.
        row, column: the cell; 0 for a unit.

    Raises:
        UsageError: no such stage or cell.
    """
    layers = model.variant.layers()
    names = [layer.name for layer in layers]
    if name not in stages or name not in names:
        raise UsageError(f"unknown stage {name!r}: {nearest(name, stages)}")
    start = stages[name][0]
    start = start if start.dim() == 3 else start[:, None, None]
    if not all(0 <= at < side for at, side in zip((channel, row, column), start.shape, strict=True)):
        raise UsageError(f"{name} has no cell {(channel, row, column)}: it is {' x '.join(map(str, start.shape))}.")
    signal = torch.zeros(len(start), 1, 1)
    signal[channel] = start[channel, row, column]
    top, left = row, column
    for place in range(names.index(name), -1, -1):
        layer = layers[place]
        given = stages[names[place - 1]][0] if place else None
        signal, top, left = _back(model, layer, given, signal, top, left)
    pixels = signal.flip(0) if model.variant.channel_order == "BGR" else signal
    box = (left, top, left + signal.shape[2], top + signal.shape[1])
    return Projection(pixels.permute(1, 2, 0).contiguous().numpy(), box)


def strongest(stages: Mapping[str, Tensor], name: str, count: int) -> list[tuple[int, int, int, float]]:
    """The channels of a stage that answer one picture most: (channel, row, column, value) of each
    one's strongest cell, the strongest channel first.

    Args:
        stages: as for `deconvolve`.
    """
    maps = stages[name][0]
    flat = maps.reshape(len(maps), -1)
    values, cells = flat.max(1)
    width = maps.shape[2] if maps.dim() == 3 else 1
    best = values.argsort(descending=True, stable=True)[:count].tolist()
    return [(channel, *divmod(int(cells[channel]), width), float(values[channel])) for channel in best]


def _back(model: AlexNet, layer: Layer, given: Tensor | None, signal: Tensor, top: int, left: int) -> tuple[Tensor, int, int]:
    """One operation backwards.

    Args:
        given: the operation's input on the way up, (C, H, W) or (units,); None for the picture.
        signal: (C, h, w), a part of its output's map.
        top, left: where that part begins.

    Returns:
        The part of the input's map that it depends on, and where that begins.
    """
    op = layer.op
    match op:
        case Conv():
            signal = F.conv_transpose2d(
                signal[None], model.get_parameter(f"{op.name}.weight"), stride=op.stride, groups=op.groups
            )[0]
            return _within(signal, top * op.stride - op.padding[0], left * op.stride - op.padding[0], layer.input)
        case Linear():
            weight = model.get_parameter(f"{op.name}.weight")
            inputs = (signal[:, 0, 0] @ weight).reshape(*layer.input, *(1,) * (3 - len(layer.input)))
            return inputs, 0, 0
        case MaxPool():
            assert given is not None
            return _unpool(op, given, signal, top, left)
        case ReLU():
            return F.relu(signal), top, left
        case LRN():  # across channels: the part alone will do
            assert given is not None
            return signal * _factors(model, op, _part(given, signal, top, left)), top, left
        case SpatialNorm():
            assert given is not None
            return signal * _part(_factors(model, op, given), signal, top, left), top, left
        case Dropout():
            return signal * (1 if op.inverted else 1 - op.rate), top, left
    return signal, top, left


def _part(maps: Tensor, signal: Tensor, top: int, left: int) -> Tensor:
    """The part of maps that a signal covers."""
    return maps[:, top : top + signal.shape[1], left : left + signal.shape[2]]


def _factors(model: AlexNet, op: LRN | SpatialNorm, given: Tensor) -> Tensor:
    """What a normalisation multiplies each value of its input with: d^-beta."""
    known = given.where(given != 0, NEARLY_ZERO)
    return model.compute(op, known[None])[0] / known


def _within(signal: Tensor, top: int, left: int, shape: Sequence[int]) -> tuple[Tensor, int, int]:
    """The part of a signal that is in the map and not in its padding."""
    rows = slice(max(0, -top), shape[1] - top)
    columns = slice(max(0, -left), shape[2] - left)
    return signal[:, rows, columns], max(0, top), max(0, left)


def _unpool(op: MaxPool, given: Tensor, signal: Tensor, top: int, left: int) -> tuple[Tensor, int, int]:
    """Each value to the place of the maximum that it came from; where windows share it, the sum."""
    _, height, width = signal.shape
    first_row, first_column = top * op.stride, left * op.stride
    sides = [(count - 1) * op.stride + op.size for count in (height, width)]
    part = given[:, first_row : first_row + sides[0], first_column : first_column + sides[1]]
    _, switches = F.max_pool2d(part[None], op.size, op.stride, return_indices=True)
    spread = torch.zeros(len(part), part[0].numel())
    spread.scatter_add_(1, switches[0].flatten(1), signal.flatten(1))
    return spread.reshape(part.shape), first_row, first_column
