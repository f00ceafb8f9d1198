"""Where a value comes from: the window that a cell reads, and its receptive field in the picture.

A box is (left, top, right, bottom), the last two excluded. Layers are what `Variant.layers()`
gives. With padding, a window reaches beyond the map that it reads, and a receptive field beyond the
picture: `window` and `receptive_field` give the whole square, zeros included. `seen` gives the
pixels that do count, which is exactly where the gradient of a cell can be.

>>> from alexnet.variants import get_variant
>>> layers = get_variant("paper").layers()
>>> receptive_field(layers, "conv1", 0, 0), seen(layers, "conv1", 0, 0)
((-1, -1, 10, 10), (0, 0, 10, 10))
>>> receptive_field(layers, "conv2", 5, 6)
(31, 23, 82, 74)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.arithmetic import Conv, Layer, Linear, MaxPool, Op, SpatialNorm
from alexnet.errors import UsageError, nearest

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Field:
    """The receptive fields of a layer's output cells, along one side.

    Attributes:
        offset: first input pixel that cell 0 sees; negative where that is padding.
        side: pixels, padding included.
        jump: pixels between the fields of two neighbouring cells.
    """

    offset: int
    side: int
    jump: int


def reach(op: Op) -> tuple[int, int, int]:
    """(size, stride, padding before) of an operation's window; (1, 1, 0) where each value depends
    on its own position alone.
    """
    match op:
        case Conv():
            return op.size, op.stride, op.padding[0]
        case MaxPool():
            return op.size, op.stride, 0
        case SpatialNorm():
            return op.size, 1, op.size // 2
    return 1, 1, 0


def fields(layers: Sequence[Layer]) -> dict[str, Field]:
    """The receptive fields of every layer, by name. A unit of a fully connected layer sees the
    whole picture.
    """
    found: dict[str, Field] = {}
    picture = layers[0].input[1]
    offset, side, jump = 0, 1, 1
    for layer in layers:
        if isinstance(layer.op, Linear):
            offset, side, jump = 0, picture, picture
        else:
            size, stride, before = reach(layer.op)
            offset, side, jump = offset - before * jump, side + (size - 1) * jump, jump * stride
        found[layer.name] = Field(offset, side, jump)
    return found


def window(layers: Sequence[Layer], name: str, row: int, column: int) -> Box:
    """The cells of its own input that one output cell of a layer reads.

    Raises:
        UsageError: an unknown layer, or a cell that it does not have.
    """
    layer = _layer(layers, name, row, column)
    if isinstance(layer.op, Linear):
        height, width = (*layer.input, 1, 1)[1:3]
        return 0, 0, width, height
    size, stride, before = reach(layer.op)
    left, top = column * stride - before, row * stride - before
    return left, top, left + size, top + size


def receptive_field(layers: Sequence[Layer], name: str, row: int, column: int) -> Box:
    """The input pixels that one output cell can depend on, and the padding around them.

    Raises:
        UsageError: as `window`.
    """
    _layer(layers, name, row, column)
    field = fields(layers)[name]
    left, top = field.offset + column * field.jump, field.offset + row * field.jump
    return left, top, left + field.side, top + field.side


def seen(layers: Sequence[Layer], name: str, row: int, column: int) -> Box:
    """The input pixels that one output cell depends on: `receptive_field` without the padding of
    any layer on the way.

    Raises:
        UsageError: as `window`.
    """
    _layer(layers, name, row, column)
    place = [one.name for one in layers].index(name)
    spans = [(row, row + 1), (column, column + 1)]
    for layer in reversed(layers[: place + 1]):
        sides = (*layer.input, 1, 1)[1:3]
        if isinstance(layer.op, Linear):
            spans = [(0, side) for side in sides]
            continue
        size, stride, before = reach(layer.op)
        spans = [
            (max(0, first * stride - before), min(side, (last - 1) * stride - before + size))
            for (first, last), side in zip(spans, sides, strict=True)
        ]
    (top, bottom), (left, right) = spans
    return left, top, right, bottom


def _layer(layers: Sequence[Layer], name: str, row: int, column: int) -> Layer:
    named = {layer.name: layer for layer in layers}
    if name not in named:
        raise UsageError(f"unknown layer {name!r}: {nearest(name, named)}")
    height, width = (*named[name].output, 1, 1)[1:3]
    if not (0 <= row < height and 0 <= column < width):
        raise UsageError(f"{name} has no cell (row {row}, column {column}): its output is {height} x {width}.")
    return named[name]
