"""Boxes of windows and receptive fields, compared with where gradients are."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexnet.arithmetic import Conv, Linear, MaxPool, Op, SpatialNorm
from alexnet.errors import UsageError
from alexnet.inspect import windows
from alexnet.inspect.windows import Box
from alexnet.model import AlexNet
from alexnet.variants import get_variant, named

SMALL = 0.0625
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in named()),
    ("paper", {"input_size": 64}),
    ("paper", {"input_size": 71}),  # the last windows leave pixels unread
    ("paper", {"pool_size": 2}),
    ("paper", {"removed": ("conv3", "fc7")}),
    ("paper", {"towers": 1}),
    ("paper", {"activation": "tanh"}),
]


class Positive(AlexNet):
    """A twin in which every gradient is positive: weights are, and a pooling takes the mean."""

    def __init__(self, variant: str, **changes: Any) -> None:
        super().__init__(variant, width=SMALL, num_classes=3, **changes)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.fill_(1 / parameter[0].numel() if name.endswith("weight") else 0.0)
        self.double().eval()

    def compute(self, op: Op, x: Tensor) -> Tensor:
        match op:
            case MaxPool():
                return nn.functional.avg_pool2d(x, op.size, op.stride)
            case SpatialNorm():
                return nn.functional.avg_pool2d(x, op.size, 1, op.size // 2)
            case Conv() | Linear():
                return super().compute(op, x)
        return x


def gradient_box(model: AlexNet, name: str, row: int, column: int, channel: int | None = None) -> Box:
    """Where the gradient of a cell (the sum of its channels by default) is not zero."""
    generator = torch.Generator().manual_seed(row + 7 * column)
    side = model.variant.input_size
    x = torch.rand(1, 3, side, side, generator=generator, dtype=next(model.parameters()).dtype).requires_grad_()
    stage = model.stages(x)[name][0]
    stage = stage if stage.dim() == 3 else stage[:, None, None]
    cell = stage[:, row, column].sum() if channel is None else stage[channel, row, column]
    (gradient,) = torch.autograd.grad(cell, x)
    rows, columns = np.nonzero(gradient[0].abs().sum(0).numpy())
    return (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1) if len(rows) else (0, 0, 0, 0)


def cells(height: int, width: int) -> list[tuple[int, int]]:
    """The corners, the middle, and some others."""
    some = {
        (0, 0),
        (0, width - 1),
        (height - 1, 0),
        (height - 1, width - 1),
        (height // 2, width // 2),
        (height // 3, width // 5),
    }
    return sorted(some)


@pytest.mark.parametrize(("name", "changes"), NETWORKS, ids=[f"{name} {changes}" for name, changes in NETWORKS])
def test_a_box_is_where_the_gradient_is(name: str, changes: dict[str, Any]) -> None:
    """Exactly, on a twin without maxima; and the whole field without its padding contains it."""
    twin = Positive(name, **changes)
    layers = twin.variant.layers()
    for layer in layers:
        if isinstance(layer.op, Conv | MaxPool | SpatialNorm) or layer.name == "fc6":
            height, width = (*layer.output, 1, 1)[1:3]
            for row, column in cells(height, width):
                seen = windows.seen(layers, layer.name, row, column)
                assert seen == gradient_box(twin, layer.name, row, column), (layer.name, row, column)
                left, top, right, bottom = windows.receptive_field(layers, layer.name, row, column)
                assert left <= seen[0] and top <= seen[1] and right >= seen[2] and bottom >= seen[3]


@pytest.mark.parametrize("name", named())
def test_it_contains_every_gradient(name: str) -> None:
    """Of the network itself, with maxima and normalisation."""
    model = AlexNet(name, torch.Generator().manual_seed(0), width=SMALL, num_classes=3).eval()
    layers = model.variant.layers()
    for stage in ("conv1", "pool1", "conv3", "pool5", "fc6"):
        height, width = next((*layer.output, 1, 1)[1:3] for layer in layers if layer.name == stage)
        for row, column in cells(height, width)[::2]:
            left, top, right, bottom = gradient_box(model, stage, row, column)
            seen = windows.seen(layers, stage, row, column)
            assert seen[0] <= left and seen[1] <= top and (right <= seen[2] and bottom <= seen[3]), (stage, row, column)


def test_known_fields() -> None:
    """The paper's: conv1 sees 11 pixels every 4, pool5 195 every 32; the padding shows."""
    layers = get_variant("paper").layers()
    assert windows.receptive_field(layers, "conv1", 0, 0) == (-1, -1, 10, 10)
    assert windows.receptive_field(layers, "conv1", 54, 54) == (215, 215, 226, 226)
    assert windows.seen(layers, "conv1", 54, 54) == (215, 215, 224, 224)
    found = windows.fields(layers)
    assert [(found[name].side, found[name].jump) for name in ("conv1", "pool1", "conv5", "pool5")] == [
        (11, 4),
        (19, 8),
        (163, 16),
        (195, 32),
    ]
    assert all(layer.receptive_field == min(found[layer.name].side, 224) for layer in layers)
    assert all(layer.jump == found[layer.name].jump for layer in layers)


def test_windows_of_neighbours() -> None:
    layers = get_variant("paper").layers()
    assert windows.window(layers, "conv1", 0, 2) == (7, -1, 18, 10)
    assert windows.window(layers, "norm1", 3, 4) == (4, 3, 5, 4)
    assert windows.window(layers, "fc6", 0, 0) == (0, 0, 6, 6) and windows.window(layers, "fc7", 0, 0) == (0, 0, 1, 1)
    for first, second in pairwise(windows.window(layers, "pool1", 0, column) for column in range(27)):
        assert first[2] - second[0] == 1  # they overlap by a column


@pytest.mark.parametrize("cell", [(-1, 0), (0, 55), (55, 0)])
def test_no_such_cell(cell: tuple[int, int]) -> None:
    layers = get_variant("paper").layers()
    for function in (windows.window, windows.receptive_field, windows.seen):
        with pytest.raises(UsageError, match=r"conv1 has no cell .*: its output is 55 x 55"):
            function(layers, "conv1", *cell)
        with pytest.raises(UsageError, match="unknown layer 'conv9': did you mean"):
            function(layers, "conv9", 0, 0)
