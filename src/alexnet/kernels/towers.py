"""Convolution in towers, three ways: the same sums, and no telling beforehand which is fastest.

* grouped: the library's grouped convolution, which can fall on slow kernels.
* split: a dense convolution for each tower, and the results side by side. Two launches, and each half is copied once.
* dense: one convolution with zeros where a kernel does not look. Twice the arithmetic, no special kernel.

On a CPU the library's own is taken. On a GPU `fastest` times forward and backward of all three, once for each shape.
"""

from collections.abc import Callable
from functools import cache
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

Way = Callable[[Tensor, Tensor, Tensor | None, int, int], Tensor]
RUNS = 10


def grouped(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """Convolution of (N, C, H, W) with (K, C / groups, S, S), stride 1: (N, K, H', W')."""
    return F.conv2d(x, weight, bias, padding=padding, groups=groups)


def split(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """As `grouped`."""
    biases = [None] * groups if bias is None else bias.chunk(groups)
    parts = zip(x.chunk(groups, 1), weight.chunk(groups), biases, strict=True)
    return torch.cat([F.conv2d(*part, padding=padding) for part in parts], 1)


def dense(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """As `grouped`."""
    each = weight.shape[1]
    rows = [
        F.pad(part, (0, 0, 0, 0, tower * each, (groups - 1 - tower) * each)) for tower, part in enumerate(weight.chunk(groups))
    ]
    return F.conv2d(x, torch.cat(rows), bias, padding=padding)


WAYS: dict[str, Way] = {"grouped": grouped, "split": split, "dense": dense}


@cache
def fastest(
    batch: int, channels: int, side: int, kernels: int, size: int, groups: int, dtype: torch.dtype, device: torch.device
) -> str:
    """The name in `WAYS` of the way that is fastest there, forward and backward, on maps of side x side positions."""
    if groups == 1 or device.type != "cuda":
        return "grouped"
    return min(WAYS, key=lambda name: _seconds(WAYS[name], batch, channels, side, kernels, size, groups, dtype, device))


def _seconds(
    way: Way,
    batch: int,
    channels: int,
    side: int,
    kernels: int,
    size: int,
    groups: int,
    dtype: torch.dtype,
    device: torch.device,
) -> float:
    """Median of `RUNS` forward and backward passes, after as many to warm up."""
    x = torch.randn(batch, channels, side, side, device=device).to(dtype, memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(kernels, channels // groups, size, size, device=device).to(dtype, memory_format=torch.channels_last)
    weight.requires_grad_()
    times = []
    for _ in range(2 * RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        y = way(x, weight, None, size // 2, groups)
        torch.autograd.grad(y, [x, weight], y.detach())
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return median(times[RUNS:])
