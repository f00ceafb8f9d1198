"""Convolution, four ways: the same sums, and no telling beforehand which is fastest.

* grouped: the library's convolution, whose kernels for towers can be slow.
* split: a dense convolution for each tower, and the results side by side. Two launches, and
  each half is copied once.
* dense: one convolution with zeros where a kernel does not look. Twice the
  arithmetic, no special kernel.
* own: the kernels of `gpu/convolve.py`, where they run. A forward pass that a bias and a ReLU alone
  follow has a fifth way, `own+relu`, which writes them at once; it is compared with the others and
  the pass that adds them.

A convolution has three passes: forward, the gradient of its input (data), and of its weight. What
is fastest in one may be slow in another, so each pass has a way of its own (`Passes`).

Maps may come with their towers apart (`planes.py`), where our own kernels write them so: then
`split` copies almost nothing, and the library's convolution in groups copies everything (`APART`).
That is for a whole layer, as its passes share input, output and gradient.

On a CPU the library's is taken. On a GPU `timings` times every pass in every way, once for each
shape, and before that asks whether it gives what `grouped` gives; a way that does not, or fails, is
out. Towers are apart where the best ways for that take less time together, copies included.
Without towers the library's and our own are left. Set the precision first
(`devices.set_precision`): the library chooses its algorithms, and so do we, by what it allows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from alexnet import kernels
from alexnet.console import say
from alexnet.kernels.planes import apart, together

Pass = Literal["forward", "data", "weight"]
PASSES: tuple[Pass, ...] = ("forward", "data", "weight")
CALLS = 10  # in a graph
REPLAYS = 7  # of which the median counts
NOISE = 0.05  # of the root mean square: bfloat16's rounding moves a number six times that large by 0.016, two apart by 0.031


@dataclass(frozen=True)
class Way:
    """The three passes of a convolution of x (N, C, H, W) with weight (K, C / groups, S, S), stride
    1, of which y and its gradient g are (N, K, H', W'); or all maps with their towers apart.

    Attributes:
        forward: y from (x, weight, padding, groups).
        data: x's gradient from (g, x, weight, padding, groups).
        weight: the weight's gradient from the same.
    """

    forward: Callable[[Tensor, Tensor, int, int], Tensor]
    data: Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
    weight: Callable[[Tensor, Tensor, Tensor, int, int], Tensor]


class Passes(NamedTuple):
    """The name in `WAYS` of each pass's way, or in `APART` if the towers are apart; forward also
    `RELU`."""

    forward: str = "grouped"
    data: str = "grouped"
    weight: str = "grouped"
    apart: bool = False

    def __str__(self) -> str:
        names = self[:3]
        return (names[0] if len(set(names)) == 1 else "/".join(names)) + ", apart" * self.apart


LIBRARY = Passes()
RELU = "own+relu"  # a forward pass with bias and ReLU in its last lines


# --- the library's --------------------------------------------------------------------------------


def _library(x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    return F.conv2d(x, weight, padding=padding, groups=groups)


def _library_gradient(of: int, g: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """Of x (0) or of weight (1), and of nothing else."""
    wanted = [of == 0, of == 1, False]
    both = [padding, padding]
    gradient = torch.ops.aten.convolution_backward(g, x, weight, None, [1, 1], both, [1, 1], False, [0, 0], groups, wanted)[of]
    assert isinstance(gradient, Tensor)
    return gradient


_library_data, _library_weight = partial(_library_gradient, 0), partial(_library_gradient, 1)


# --- a dense convolution for each tower -----------------------------------------------------------


def _split(axis: int, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """The towers of maps are along `axis`: 1, or 0 if they are apart."""
    towers = zip(x.chunk(groups, axis), weight.chunk(groups), strict=True)
    return torch.cat([_library(*tower, padding, 1) for tower in towers], axis)


def _split_gradients(axis: int, of: int, g: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """Side by side: of x along `axis`, of weight along the kernels."""
    towers = zip(g.chunk(groups, axis), x.chunk(groups, axis), weight.chunk(groups), strict=True)
    return torch.cat([_library_gradient(of, *tower, padding, 1) for tower in towers], 0 if of else axis)


def _split_apart(x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """On a GPU without a copy: the library writes each tower into its plane."""
    if not x.is_cuda:
        return _split(0, x, weight, padding, groups)
    return _into_planes(x, weight, padding, groups)


def _into_planes(x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    (n, _, *sides), (kernels, _, size, _) = x.shape, weight.shape
    shape = n, kernels // groups, *(side + 2 * padding - size + 1 for side in sides)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    library = torch.backends.cudnn
    tf32 = library.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    deterministic = library.deterministic or torch.are_deterministic_algorithms_enabled()
    rest = [padding] * 2, [1, 1], [1, 1], 1, library.benchmark, deterministic, tf32
    for plane, *tower in zip(y.chunk(groups), x.chunk(groups), weight.chunk(groups), strict=True):
        torch.ops.aten.cudnn_convolution.out(*tower, *rest, out=plane)
    return y


# --- one convolution with zeros -------------------------------------------------------------------


def _widened(weight: Tensor, groups: int) -> Tensor:
    """(K, C, S, S), with zeros at the other towers' channels."""
    each = weight.shape[1]
    rows = enumerate(weight.chunk(groups))
    return torch.cat([F.pad(part, (0, 0, 0, 0, tower * each, (groups - 1 - tower) * each)) for tower, part in rows])


def _dense(x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    return _library(x, _widened(weight, groups), padding, 1)


def _dense_data(g: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    return _library_data(g, x, _widened(weight, groups), padding, 1)


def _dense_weight(g: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """The blocks of each tower's own channels."""
    each = weight.shape[1]
    rows = _library_weight(g, x, _widened(weight, groups), padding, 1).chunk(groups)
    return torch.cat([part[:, tower * each : (tower + 1) * each] for tower, part in enumerate(rows)])


# --- our own --------------------------------------------------------------------------------------


def _own(which: Pass, library: Way) -> Callable[..., Tensor]:
    """A pass of `gpu/convolve.py`, or the library's where that does not run or know the case."""

    def run(*arguments: Any) -> Tensor:
        first: Tensor = arguments[0]
        chosen: Callable[..., Tensor] = getattr(library, which)
        if not _own_runs(first, *arguments[-3:]):
            return chosen(*arguments)
        from alexnet.kernels.gpu import convolve  # not before it is needed: Triton takes a second to import

        chosen = getattr(convolve, which)
        with torch.cuda.device_of(first):
            return chosen(*arguments)

    return run


def _own_runs(maps: Tensor, weight: Tensor, padding: int, groups: int) -> bool:
    """Whether our own kernels run there and know the case."""
    if not kernels.on_kernels(maps):
        return False
    from alexnet.kernels.gpu import convolve

    return convolve.covers(maps, weight, padding, groups)


# --- maps with their towers apart -----------------------------------------------------------------


def _copied_forward(x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    return apart(_library(together(x, groups), weight, padding, groups), groups)


def _copied_data(g: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    shape = len(x) // groups, groups * x.shape[1], *x.shape[2:]
    of_shape = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)  # all that is asked of x
    return apart(_library_data(together(g, groups), of_shape, weight, padding, groups), groups)


def _copied_weight(g: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    return _library_weight(together(g, groups), together(x, groups), weight, padding, groups)


_GROUPED, _COPIED = Way(_library, _library_data, _library_weight), Way(_copied_forward, _copied_data, _copied_weight)
WAYS: dict[str, Way] = {
    "grouped": _GROUPED,
    "split": Way(partial(_split, 1), partial(_split_gradients, 1, 0), partial(_split_gradients, 1, 1)),
    "dense": Way(_dense, _dense_data, _dense_weight),
    "own": Way(*(_own(which, _GROUPED) for which in PASSES)),
}
APART: dict[str, Way] = {
    "grouped": _COPIED,
    "split": Way(_split_apart, partial(_split_gradients, 0, 0), partial(_split_gradients, 0, 1)),
    "own": Way(*(_own(which, _COPIED) for which in PASSES)),
}


def _way(ways: Passes, which: Pass) -> Callable[..., Tensor]:
    of_layout = APART if ways.apart else WAYS
    chosen: Callable[..., Tensor] = getattr(of_layout[getattr(ways, which)], which)
    return chosen


class _Convolution(torch.autograd.Function):
    """Each pass by its own way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, ways: Passes, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.constants = ways, padding, groups
        return _way(ways, "forward")(x, weight, padding, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        ways, *rest = ctx.constants
        of_x, of_weight, *_ = ctx.needs_input_grad  # pictures need none
        dx = _way(ways, "data")(g, x, weight, *rest) if of_x else None
        dweight = _way(ways, "weight")(g, x, weight, *rest) if of_weight else None
        return dx, dweight, None, None, None


def _laid_out(x: Tensor, weight: Tensor, ways: Passes, groups: int) -> Tensor:
    """x with its towers apart if `ways` has them so; a copy, if they were together."""
    return apart(x, groups) if ways.apart and x.shape[1] > weight.shape[1] else x


def convolve(x: Tensor, weight: Tensor, ways: Passes, padding: int, groups: int) -> Tensor:
    """Convolution of (N, C, H, W) with (K, C / groups, S, S), stride 1: (N, K, H', W').

    If `ways` has the towers apart, the result is (groups * N, K / groups, H', W'), and x should be
    apart too; if it is not, it is copied.
    """
    if ways == LIBRARY:  # by PyTorch's own derivative, which can be derived again
        return WAYS["grouped"].forward(x, weight, padding, groups)
    x = _laid_out(x, weight, ways, groups)
    y: Tensor = _Convolution.apply(x, weight, ways, padding, groups)
    return y


class _ConvolutionReLU(torch.autograd.Function):
    """Our own with bias and ReLU. As `bias_relu` does, it keeps the output for the ReLU's mask,
    which the gradient passes before the convolution's passes, each by its way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, ways: Passes, padding: int, groups: int, planes: int
    ) -> Tensor:
        from alexnet.kernels.gpu import convolve

        with torch.cuda.device_of(x):
            y = convolve.forward_relu(x, weight, bias, padding, groups, planes)
        ctx.save_for_backward(x, weight, y)
        ctx.constants = ways, padding, groups
        ctx.bias_dtype = bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor, None, None, None, None]:
        from alexnet.kernels.gpu.bias_relu import bias_relu_backward

        x, weight, y = ctx.saved_tensors
        ways, *rest = ctx.constants
        of_x, of_weight, *_ = ctx.needs_input_grad
        with torch.cuda.device_of(x):
            g, dbias = bias_relu_backward(g, y, len(weight), rest[-1] if ways.apart else 1)
        dx = _way(ways, "data")(g, x, weight, *rest) if of_x else None
        dweight = _way(ways, "weight")(g, x, weight, *rest) if of_weight else None
        return dx, dweight, dbias.to(ctx.bias_dtype), None, None, None, None


def convolve_relu(x: Tensor, weight: Tensor, bias: Tensor, ways: Passes, padding: int, groups: int, planes: int = 1) -> Tensor:
    """max(0, convolution + bias) of bias (K,) in so many planes: in one pass if that is the way and
    our own kernels run there, else in two."""
    x = _laid_out(x, weight, ways, groups)
    if ways.forward == RELU and _own_runs(x, weight, padding, groups):
        y: Tensor = _ConvolutionReLU.apply(x, weight, bias, ways, padding, groups, planes)
        return y
    alone = ways._replace(forward="own") if ways.forward == RELU else ways
    return kernels.bias_relu(convolve(x, weight, alone, padding, groups), bias, planes)


# --- which is fastest -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A convolution of maps of side x side positions, as it will be called; `first`: nothing needs
    its input's gradient; `relu`: a bias and a ReLU alone follow; `apart`: with the towers
    apart."""

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
    relu: bool = False
    apart: bool = False

    @property
    def ways(self) -> dict[str, Way]:
        """Those that can differ here."""
        found = APART if self.apart else WAYS
        return found if self.groups > 1 else {name: found[name] for name in ("grouped", "own")}

    def names(self, which: Pass) -> list[str]:
        """Of the ways of a pass."""
        return [*self.ways, RELU] if self.relu and which == "forward" else [*self.ways]

    @property
    def planes(self) -> int:
        """Of the maps."""
        return self.groups if self.apart else 1

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Those that training takes."""
        return tuple(one for one in PASSES if not (self.first and one == "data"))

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Input, weight and output's gradient, standard normal, channels-last."""
        out = self.side + 2 * self.padding - self.size + 1
        shapes = [
            (self.batch, self.channels, self.side, self.side),
            (self.kernels, self.channels // self.groups, self.size, self.size),
            (self.batch, self.kernels, out, out),
        ]
        generator = torch.Generator(self.device).manual_seed(0)
        empty = partial(torch.empty, dtype=self.dtype, device=self.device, memory_format=torch.channels_last)
        x, weight, g = (empty(shape).normal_(generator=generator) for shape in shapes)
        return apart(x, self.planes), weight, apart(g, self.planes)

    def draw_bias(self) -> Tensor:
        """(K,) float32, normal, of the size of the convolution's output."""
        generator = torch.Generator(self.device).manual_seed(1)
        size = math.sqrt(self.size**2 * self.channels / self.groups)
        return size * torch.empty(self.kernels, device=self.device).normal_(generator=generator)

    def call(self, which: Pass, name: str) -> Callable[[], Tensor]:
        """A pass on drawn numbers in the way of that name, to be called again and again."""
        x, weight, g = self.draw()
        arguments = (x, weight) if which == "forward" else (g, x, weight)
        return partial(getattr(self.ways[name], which), *arguments, self.padding, self.groups)

    def call_timed(self, which: Pass, name: str) -> Callable[[], Tensor]:
        """The same as it is compared: a forward pass with bias and ReLU, if they alone follow."""
        if not (self.relu and which == "forward"):
            return self.call(which, name)
        x, weight, _ = self.draw()
        ways = Passes(name, apart=self.apart)
        return partial(convolve_relu, x, weight, self.draw_bias(), ways, self.padding, self.groups, self.planes)


@cache
def timings(shape: Shape) -> dict[Pass, dict[str, float]]:
    """Seconds of each pass in each way, on a GPU; infinite for what fails or errs."""
    return {which: {name: _seconds_if_right(which, name, shape) for name in shape.names(which)} for which in shape.passes}


def fastest(shape: Shape) -> Passes:
    """The way that is fastest there, for each pass, and whether the towers are apart. Of equals the
    first, the library's."""
    if shape.device.type != "cuda":
        return LIBRARY
    layouts = [shape] if shape.groups == 1 else [shape, replace(shape, apart=True)]
    return min(map(_fastest, layouts), key=lambda found: found[0])[1]


def _fastest(shape: Shape) -> tuple[float, Passes]:
    """Seconds of all passes, each in its fastest way, and these."""
    names = {which: min(found, key=lambda name: found[name]) for which, found in timings(shape).items()}
    return sum(timings(shape)[which][name] for which, name in names.items()), Passes(**names, apart=shape.apart)


def _seconds_if_right(which: Pass, name: str, shape: Shape) -> float:
    """Infinite for a way that fails or errs, with a message."""
    try:
        if _wrong_relu(shape) if name == RELU else _wrong(which, name, shape):
            raise ArithmeticError("it is not the library's")
        return call_seconds(shape.call_timed(which, name), shape.device)
    except Exception as error:  # of a compiler, of a library, for lack of memory: training goes on without
        kernels.check_alive(shape.device, error, "train with --fused off")
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        say(f"Convolutions, {which}: {name} is left out ({reason}), for {shape}.")
        return math.inf


def _wrong(which: Pass, name: str, shape: Shape) -> bool:
    """Whether a pass differs anywhere from what `grouped` gives by more than rounding."""
    actual, right = (shape.call(which, one)() for one in (name, "grouped"))
    return not (actual - right).abs().max() < NOISE * _size(right)  # NaN is wrong, too


def _wrong_relu(shape: Shape) -> bool:
    """The same of our own with bias and ReLU, by those of `grouped`'s output in float32."""
    alone, actual = shape.call("forward", "grouped")(), shape.call_timed("forward", RELU)()
    right = together(alone, shape.planes) + shape.draw_bias()[:, None, None]
    return not (together(actual, shape.planes) - F.relu(right)).abs().max() < NOISE * _size(right)


def _size(x: Tensor) -> Tensor:
    """The root mean square."""
    return torch.linalg.vector_norm(x, dtype=torch.float32) / math.sqrt(x.numel())


def call_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Of one call, in a graph, as training launches it: launched one by one, small ones wait for
    the host."""
    stream = torch.cuda.Stream(device)  # graphs are recorded on no default stream
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):  # the library chooses its algorithms
            call()
        graph = torch.cuda.CUDAGraph()
        # Threads that read ahead allocate page-locked memory meanwhile, which
        # the default mode forbids.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for _ in range(CALLS):
                call()
        return median(_replay_seconds(graph) for _ in range(REPLAYS)) / CALLS


def _replay_seconds(graph: "torch.cuda.CUDAGraph") -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000
