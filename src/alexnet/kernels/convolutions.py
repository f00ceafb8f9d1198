"""Convolution, four ways: the same sums, and no telling beforehand which is fastest.

* grouped: the library's convolution, whose kernels for towers can be slow.
* split: a dense convolution for each tower, and the results side by side. Two launches, and
  each half is copied once.
* dense: one convolution with zeros where a kernel does not look. Twice the
  arithmetic, no special kernel.
* own: the kernels of `gpu/convolve.py`, where they run.

On a CPU the library's is taken. On a GPU `fastest` times forward and backward of every way, once
for each shape, and before that asks whether it gives what `grouped` gives; a way that does not, or
fails, is out. Without towers the library's and our own are left.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import kernels
from alexnet.console import say

Way = Callable[[Tensor, Tensor, Tensor | None, int, int], Tensor]
PASSES = 10  # in a graph
REPLAYS = 7  # of which the median counts
RESULTS = "its output", "its weight's gradient", "its input's gradient"
NOISE = 0.05  # of the root mean square: bfloat16's rounding moves a number six times that large by 0.016, two apart by 0.031


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


def own(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """As `grouped`, which it is where the kernels do not run."""
    if not kernels.on_kernels(x):
        return grouped(x, weight, bias, padding, groups)
    from alexnet.kernels.gpu.convolve import convolve  # not before it is needed: Triton takes a second to import

    with torch.cuda.device_of(x):
        return convolve(x, weight, bias, padding, groups)


WAYS: dict[str, Way] = {"grouped": grouped, "split": split, "dense": dense, "own": own}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A convolution of maps of side x side positions, as it will be called; `first`: nothing needs
    its input's gradient."""

    batch: int
    channels: int
    side: int
    kernels: int
    size: int
    padding: int
    groups: int
    dtype: torch.dtype
    device: torch.device
    first: bool = False

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Input, weight and output's gradient, standard normal, channels-last;
        the first two are leaves."""
        out = self.side + 2 * self.padding - self.size + 1
        shapes = [
            (self.batch, self.channels, self.side, self.side),
            (self.kernels, self.channels // self.groups, self.size, self.size),
            (self.batch, self.kernels, out, out),
        ]
        generator = torch.Generator(self.device).manual_seed(0)
        empty = partial(torch.empty, dtype=self.dtype, device=self.device, memory_format=torch.channels_last)
        x, weight, g = (empty(shape).normal_(generator=generator) for shape in shapes)
        return x.requires_grad_(not self.first), weight.requires_grad_(), g


@cache
def fastest(shape: Shape) -> str:
    """The name in `WAYS` of the way that is fastest there, forward and backward."""
    if shape.device.type != "cuda":
        return "grouped"
    names = [*WAYS] if shape.groups > 1 else ["grouped", "own"]
    return min(names, key=lambda name: _seconds_if_right(name, shape))


def _seconds_if_right(name: str, shape: Shape) -> float:
    """Infinite for a way that fails or errs, with a message. Of equals `fastest` takes the first,
    the library's.
    """
    try:
        if wrong := _wrong(WAYS[name], shape):
            raise ArithmeticError(f"{wrong} is not the library's")
        return _seconds(WAYS[name], shape)
    except Exception as error:  # of a compiler, of a library, for lack of memory: training goes on without
        kernels.check_alive(shape.device, error, "train with --fused off")
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        say(f"Convolutions: {name} is left out ({reason}), for {shape}.")
        return math.inf


def _wrong(way: Way, shape: Shape) -> str | None:
    """Which of a way's results differs anywhere from what `grouped` gives by more than
    rounding; None if none does."""
    drawn = shape.draw()
    for what, actual, right in zip(RESULTS, _once(way, shape, *drawn), _once(grouped, shape, *drawn), strict=False):
        mean_square = torch.linalg.vector_norm(right, dtype=torch.float32).square() / right.numel()
        if not (actual - right).abs().max() < NOISE * mean_square.sqrt():  # NaN is wrong, too
            return what
    return None


def _once(way: Way, shape: Shape, x: Tensor, weight: Tensor, g: Tensor) -> list[Tensor]:
    """Output and gradients, in the order of `RESULTS`."""
    y = way(x, weight, None, shape.padding, shape.groups)
    return [y.detach(), *torch.autograd.grad(y, [weight] if shape.first else [weight, x], g)]


def _seconds(way: Way, shape: Shape) -> float:
    """Of forward and backward, in a graph, as training launches them: launched one by one, small
    ones wait for the host."""
    stream = torch.cuda.Stream(shape.device)  # graphs are recorded on no default stream
    with torch.cuda.stream(stream):
        drawn = shape.draw()
        for _ in range(3):  # the library chooses its algorithms
            _once(way, shape, *drawn)
        graph = torch.cuda.CUDAGraph()
        # Threads that read ahead allocate page-locked memory meanwhile, which
        # the default mode forbids.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for _ in range(PASSES):
                _once(way, shape, *drawn)
        return median(_replay_seconds(graph) for _ in range(REPLAYS)) / PASSES


def _replay_seconds(graph: "torch.cuda.CUDAGraph") -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000
