"""Deconvolution, compared with autograd under the same rules."""

from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet.arithmetic import LRN, Op, ReLU, SpatialNorm
from alexnet.errors import UsageError
from alexnet.inspect import windows
from alexnet.inspect.deconvolution import deconvolve, strongest
from alexnet.model import AlexNet
from alexnet.variants import named


class Rectified(torch.autograd.Function):
    """A ReLU whose gradient is rectified itself, whatever its input was."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.relu()


class ByAutograd(AlexNet):
    """The network under the rules of deconvolution."""

    def compute(self, op: Op, x: Tensor) -> Tensor:
        match op:
            case ReLU():
                return Rectified.apply(x)
            case LRN() | SpatialNorm():
                shifted = x.detach() + 1e-4  # where x is 0 the quotient has no value
                return x * (super().compute(op, shifted) / shifted)
        return super().compute(op, x)


def picture(model: AlexNet) -> Tensor:
    side = model.variant.input_size
    waves = torch.sin(torch.linspace(0, 40, side)[:, None] * torch.linspace(1, 2, side))
    return 60 * torch.stack([waves, waves.T, -waves])[None] + torch.randn(
        1, 3, side, side, generator=torch.Generator().manual_seed(3)
    )


NETWORKS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in named()),
    ("paper", {"input_size": 64, "removed": ("conv4",)}),
]


@pytest.mark.parametrize(("name", "changes"), NETWORKS, ids=[f"{name} {changes}" for name, changes in NETWORKS])
def test_it_is_the_rectified_gradient(name: str, changes: dict[str, Any]) -> None:
    """For each layer's strongest kernels and a cell in the corner, where padding takes part."""
    init = {"init": "he"} if name != "torchvision" else {}
    model = AlexNet(name, torch.Generator().manual_seed(1), width=0.125, num_classes=4, **init, **changes).eval()
    twin = ByAutograd.holding(model.variant, model.state_dict()).eval()
    x = picture(model)
    with torch.no_grad():
        stages = model.stages(x)
    layers = model.variant.layers()
    for stage in ("conv1", "conv2", "norm1", "conv3", "pool5", "fc6", "fc8"):
        if stage not in stages:
            continue
        best = [*strongest(stages, stage, 2), (0, 0, 0, float(stages[stage][0, 0].flatten()[0]))]
        for channel, row, column, value in best:
            asked = x.clone().requires_grad_()
            cell = twin.stages(asked)[stage][0]
            cell = (cell if cell.dim() == 3 else cell[:, None, None])[channel, row, column]
            (gradient,) = torch.autograd.grad(cell, asked, torch.tensor(value))
            expected = gradient[0].flip(0) if model.variant.channel_order == "BGR" else gradient[0]
            found = deconvolve(model, stages, stage, channel, row, column)
            left, top, right, bottom = found.box
            seen = windows.seen(layers, stage, row, column)
            assert seen[0] <= left and seen[1] <= top and right <= seen[2] and bottom <= seen[3]
            outside = expected.clone()
            outside[:, top:bottom, left:right] = 0
            assert not outside.any()
            part = expected[:, top:bottom, left:right].permute(1, 2, 0)
            largest = float(part.abs().max())
            assert found.pixels.shape == tuple(part.shape)
            assert torch.allclose(torch.from_numpy(found.pixels), part, rtol=1e-3, atol=1e-4 * largest), (stage, channel)


def test_strongest() -> None:
    stages = {"conv1": torch.zeros(1, 3, 4, 5), "fc8": torch.tensor([[1.0, 5.0, 3.0]])}
    stages["conv1"][0, 2, 3, 1] = 7.0
    stages["conv1"][0, 0, 0, 4] = 2.0
    assert strongest(stages, "conv1", 2) == [(2, 3, 1, 7.0), (0, 0, 4, 2.0)]
    assert strongest(stages, "fc8", 2) == [(1, 0, 0, 5.0), (2, 0, 0, 3.0)]


def test_no_such_cell() -> None:
    model = AlexNet("paper", width=0.0625, input_size=64, num_classes=3).eval()
    with torch.no_grad():
        stages = model.stages(torch.zeros(1, 3, 64, 64))
    with pytest.raises(UsageError, match="unknown stage 'conv6'"):
        deconvolve(model, stages, "conv6", 0)
    for cell in ((6, 0, 0), (0, 15, 0), (0, 0, -1)):
        with pytest.raises(UsageError, match=r"conv1 has no cell .*: it is 6 x 15 x 15"):
            deconvolve(model, stages, "conv1", *cell)
