"""Every part of the step by itself, beside what it must take and what was predicted of it.

Each is timed as replays of CUDA graphs over rotating inputs (ReLU's outputs where the step has
such), forward and backward, a convolution's three passes apart, with its share of its own roofline:
the larger of bytes over the copy's speed and operations over the product's. The sum of these times
is what the step cannot beat part by part. What bounds a part follows from numbers alone: `launch`
if it takes less than 5 us, as a launch in a graph and its first loads take some; else `bytes` or
`operations`, whichever sets its floor. How far the part is above that floor is then the kernel's
own doing.

The bake-off times every pass of every convolution in every way (`kernels/convolutions.py`), with
its towers together in memory and apart; conv3's and conv4's forward passes with bias and ReLU.
"""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import kernels
from alexnet.arithmetic import LRN, Conv, Dropout, Layer, Linear, MaxPool
from alexnet.bench import noise, preprocessing_of, seconds
from alexnet.fused import NEUTRAL, STEPS, convolution_shapes, groups, planes
from alexnet.kernels import convolutions as towers
from alexnet.kernels.convolutions import RELU, Pass, Passes, Shape
from alexnet.kernels.planes import apart
from alexnet.variants import Variant

GPU = torch.device("cuda:0")
INPUTS, REPLAYS, BLOCKS = 8, 10, 5
BF16 = 2  # bytes
LAUNCH = 5e-6  # seconds; what takes less is bounded by launching it
#: Microseconds an image of the paper's network on an H200 at batch 1024, by the first words of the
#: parts' names: a prediction from counted bytes, operations and instructions.
PREDICTED = {
    ("augmentation",): 0.28,
    ("conv1 forward",): 0.75,
    ("conv1 weight",): 1.1,
    ("relu1+norm1+pool1 forward",): 0.50,
    ("relu1+norm1+pool1 backward",): 0.75,
    ("conv2 forward",): 1.1,
    ("conv2 data",): 2.0,
    ("conv2 weight",): 1.6,
    ("relu2+norm2+pool2 forward",): 0.25,
    ("relu2+norm2+pool2 backward",): 0.37,
    ("conv3 forward",): 0.55,
    ("conv3 data",): 0.58,
    ("conv3 weight",): 0.75,
    ("conv4 forward",): 0.60,
    ("conv4 data",): 0.65,
    ("conv4 weight",): 0.95,
    ("conv3's", "conv4's"): 0.42,
    ("conv5 forward",): 0.35,
    ("conv5 data",): 0.45,
    ("conv5 weight",): 0.60,
    ("relu5+pool5",): 0.13,
    ("fc",): 0.70,
    ("update",): 0.20,
}


# --- parts of the step ----------------------------------------------------------------------------


@dataclass(frozen=True)
class StepPart:
    """One launch or a few, the least that they must move and compute, and how to call them.

    Attributes:
        make: gives a function on inputs of its own, to be called again and again.
    """

    name: str
    bytes: float
    flop: float
    make: Callable[[], Callable[[], object]]


def maps(*shape: int, relu: bool = True) -> Tensor:
    """What a layer hands on: bfloat16, channels-last, half of it zero behind a ReLU."""
    x = torch.randn(shape, device=GPU) * 50
    x = (F.relu(x) if relu else x).to(torch.bfloat16)
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def forward_backward(
    name: str,
    function: Callable[..., Tensor],
    make_inputs: Callable[[], list[Tensor]],
    moved: tuple[float, float],
    flop: tuple[float, float],
) -> list[StepPart]:
    """A part forward, and the same part backward; `moved` and `flop` are for each."""

    def forward() -> Callable[[], object]:
        inputs = [x.requires_grad_(x.is_floating_point()) for x in make_inputs()]
        return lambda: function(*inputs)

    def backward() -> Callable[[], object]:
        inputs = [x.requires_grad_(x.is_floating_point()) for x in make_inputs()]
        wanted = [x for x in inputs if x.requires_grad]
        y = function(*inputs)
        g = torch.randn_like(y)
        return lambda: torch.autograd.grad(y, wanted, g, retain_graph=True, allow_unused=True)

    return [StepPart(f"{name} forward", moved[0], flop[0], forward), StepPart(f"{name} backward", moved[1], flop[1], backward)]


def parts(variant: Variant, batch: int, ways: dict[str, Passes]) -> Iterator[StepPart]:
    """The step's, in its order."""
    layers = {layer.name: layer for layer in variant.layers()}
    shapes = convolution_shapes(variant, batch, torch.bfloat16, GPU)
    yield augmentation(variant, batch, shapes["conv1"])
    cut = groups(variant.ops())
    for group, following in zip(cut, (*cut[1:], ()), strict=True):
        first = layers[group[0].name]
        if isinstance(first.op, Conv):
            yield from convolution(first, shapes[first.name], ways[first.name])
            both = planes(group, ways), planes(following, ways)
            if any(isinstance(op, LRN | MaxPool) for op in group):
                yield from after_convolution(group, first, layers[group[-1].name], batch, both)
            elif len(group) > 1:
                forward, backward = bias_and_relu(first, batch, both)
                yield from [backward] if ways[first.name].forward == RELU else [forward, backward]
        elif isinstance(first.op, Linear):
            yield from fully_connected(first, batch)
        elif isinstance(group[-1], Dropout):
            yield from dropout(first, batch)
    yield loss(batch, variant.num_classes)
    yield update(variant)


def augmentation(variant: Variant, batch: int, shape: Shape) -> StepPart:
    """From resident records to blocks; the mean image stays in the cache."""
    preprocessing = preprocessing_of(variant).to(GPU)
    pixels = batch * variant.input_size**2

    def make() -> Callable[[], object]:
        records = torch.from_numpy(noise(preprocessing.stored_size, batch, variant.num_classes).records).to(GPU)
        zeros, colour = torch.zeros(batch, dtype=torch.int64, device=GPU), torch.zeros(batch, 3, device=GPU)
        drawn = records, zeros, zeros, zeros > 0, colour, zeros + torch.arange(batch, device=GPU)
        return lambda: preprocessing.apply(*drawn, variant.conv1_padding, torch.bfloat16)

    return StepPart("augmentation", 1.5 * pixels + BF16 * batch * shape.channels * shape.side**2, 0.0, make)


def convolution(layer: Layer, shape: Shape, ways: Passes) -> Iterator[StepPart]:
    """Without bias, unless it and a ReLU are written at once; conv1 in blocks, and without a
    gradient for its input.
    """
    x_bytes, w_bytes, y_bytes = bytes_of(layer, shape)
    moved = {"forward": x_bytes + w_bytes + y_bytes, "data": y_bytes + w_bytes + x_bytes, "weight": y_bytes + x_bytes + w_bytes}
    shape = replace(shape, apart=ways.apart)
    for which in shape.passes:
        way = getattr(ways, which)
        make = partial(shape.call_timed if way == RELU else shape.call, which, way)
        yield StepPart(
            f"{layer.name} {which} ({way}{' apart' * ways.apart})", moved[which], 2.0 * shape.batch * layer.multiply_adds, make
        )


def bytes_of(layer: Layer, shape: Shape) -> tuple[float, float, float]:
    """Of input, weight and output, in bfloat16."""
    weights = shape.kernels * shape.channels // shape.groups * shape.size**2
    maps = shape.channels * shape.side**2, prod(layer.output)
    return BF16 * shape.batch * maps[0], BF16 * weights, BF16 * shape.batch * maps[1]


def after_convolution(
    group: tuple[Any, ...], conv: Layer, last: Layer, batch: int, planes: tuple[int, int]
) -> Iterator[StepPart]:
    """Bias, ReLU, normalisation, pooling; `planes` of input and output."""
    norm = next((op for op in group if isinstance(op, LRN)), NEUTRAL)
    steps = tuple(STEPS[type(op)] for op in group[1:])
    channels = conv.output[0]
    x_bytes, y_bytes = BF16 * batch * prod(conv.output), BF16 * batch * prod(last.output)
    winners = batch * prod(last.output)

    def run(x: Tensor, bias: Tensor) -> Tensor:
        return kernels.relu_lrn_pool(x, bias, steps, norm.size, norm.coefficient, norm.beta, norm.k, norm.towers, planes[1])

    def inputs() -> list[Tensor]:
        return [apart(maps(batch, *conv.output, relu=False), planes[0]), torch.randn(channels, device=GPU)]

    moved = (x_bytes + y_bytes + winners, 2 * x_bytes + y_bytes + winners)
    yield from forward_backward("+".join(op.name for op in group[1:]), run, inputs, moved, (0.0, 0.0))


def bias_and_relu(conv: Layer, batch: int, planes: tuple[int, int]) -> Iterator[StepPart]:
    """What follows conv3 and conv4; `planes` of input and output."""
    each = BF16 * batch * prod(conv.output)

    def inputs() -> list[Tensor]:
        return [apart(maps(batch, *conv.output, relu=False), planes[0]), torch.randn(conv.output[0], device=GPU)]

    run = partial(kernels.bias_relu, planes=planes[1])
    yield from forward_backward(f"{conv.name}'s bias+ReLU", run, inputs, (2 * each, 3 * each), (0.0, 0.0))


def fully_connected(layer: Layer, batch: int) -> Iterator[StepPart]:
    """With bias; fc8 in float32."""
    fan_in, units = prod(layer.input), layer.output[0]
    dtype = torch.float32 if layer.name == "fc8" else torch.bfloat16
    each = dtype.itemsize
    x_bytes, y_bytes, w_bytes = each * batch * fan_in, each * batch * units, each * units * fan_in

    def inputs() -> list[Tensor]:
        return [x.to(dtype) for x in (maps(batch, fan_in), maps(units, fan_in, relu=False) / 1000, maps(units, relu=False))]

    flop = 2.0 * batch * units * fan_in
    moved = (x_bytes + y_bytes + w_bytes, 2 * x_bytes + y_bytes + 2 * w_bytes)
    yield from forward_backward(layer.name, F.linear, inputs, moved, (flop, 2 * flop))


def dropout(layer: Layer, batch: int) -> Iterator[StepPart]:
    """Dropout before fc6 and fc7."""
    units = prod(layer.input)
    keys = torch.arange(batch, dtype=torch.int32, device=GPU)
    moved = (2.0 * BF16 * batch * units, 3.0 * BF16 * batch * units)
    yield from forward_backward(
        f"{layer.name}+dropout",
        lambda x: kernels.relu_dropout(x, 0.5, keys, False),
        lambda: [maps(batch, units, relu=False)],
        moved,
        (0.0, 0.0),
    )


def loss(batch: int, classes: int) -> StepPart:
    """Softmax cross-entropy, with its gradient and the counts of right guesses."""

    def make() -> Callable[[], object]:
        logits, labels = torch.randn(batch, classes, device=GPU), torch.randint(classes, (batch,), device=GPU)
        return lambda: kernels.cross_entropy_topk(logits, labels)

    return StepPart("loss and its gradient", 8.0 * batch * classes, 0.0, make)


def update(variant: Variant) -> StepPart:
    """Of all parameters, in one launch."""

    def make() -> Callable[[], object]:
        layers = [layer for layer in variant.layers() if layer.parameters]
        sizes = [count for layer in layers for count in (layer.parameters - layer.output[0], layer.output[0])]
        weights = [torch.randn(count, device=GPU) for count in sizes]
        velocities, gradients = [torch.zeros_like(w) for w in weights], [torch.randn_like(w).bfloat16() for w in weights]
        copies = [w.bfloat16() for w in weights]
        lr, decays = torch.full((len(weights),), 1e-6, device=GPU), [5e-4] * len(weights)
        return lambda: kernels.sgd_step(weights, velocities, gradients, copies, lr, decays, 0.9)

    return StepPart("update", 20.0 * variant.parameters, 0.0, make)


@dataclass(frozen=True)
class Timed:
    """A part's time beside what its bytes and its operations would take at the ceilings;
    seconds.
    """

    name: str
    seconds: float
    bytes_seconds: float
    flop_seconds: float

    @property
    def floor(self) -> float:
        """Seconds that bytes or operations take at the ceilings, whichever is more."""
        return max(self.bytes_seconds, self.flop_seconds)

    @property
    def bound(self) -> str:
        """launch, bytes or operations, by the rule at the top of the file."""
        if self.seconds < LAUNCH:
            return "launch"
        return "operations" if self.flop_seconds > self.bytes_seconds else "bytes"

    def line(self) -> str:
        """A row of the table."""
        share = self.floor / self.seconds
        return f"{self.name:43}{1e6 * self.seconds:10.1f}{1e6 * self.floor:12.1f}{share:8.0%}  {self.bound}"

    def reason(self) -> str:
        """Why it is not faster, as far as numbers tell."""
        above, by_bytes, by_flop = (1e6 * t for t in (self.seconds - self.floor, self.bytes_seconds, self.flop_seconds))
        alone = f"bytes alone take {by_bytes:.1f} us, operations {by_flop:.1f}"
        if self.bound == "launch":
            return f"{above:.1f} us above its floor, less than {1e6 * LAUNCH:.0f} in all: bounded by its launch ({alone})"
        ceiling = "the product's" if self.bound == "operations" else "the copy's"
        share = self.floor / self.seconds
        return f"{above:.1f} us above its floor: bounded by {self.bound}, at {share:.0%} of {ceiling} speed ({alone})"

    def as_json(self) -> dict[str, Any]:
        """Plain data: microseconds, share of the roofline, and what bounds the part."""
        share = round(self.floor / self.seconds, 3)
        return {"us": round(1e6 * self.seconds, 2), "share": share, "bound": self.bound}


def part_seconds(part: StepPart) -> float:
    """Median over blocks of one call, within a graph of `INPUTS` calls on inputs of their own;
    fewer where memory is short.
    """
    count = INPUTS if part.bytes < 1e9 else 2
    calls = [part.make() for _ in range(count)]

    def all_calls() -> None:
        for call in calls:
            call()

    for _ in range(3):
        all_calls()
    graph = torch.cuda.CUDAGraph()
    # Threads of an earlier scene may still allocate page-locked memory, which
    # the default mode forbids.
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        all_calls()
    seconds(graph.replay, GPU, 2)
    return statistics.median(seconds(graph.replay, GPU, REPLAYS) for _ in range(BLOCKS)) / count


def print_parts(variant: Variant, batch: int, ways: dict[str, Passes], flops: float, speed: float) -> dict[str, Any]:
    """Time and print every part; the parts as plain data."""
    print(f"\nbatch {batch}: parts{'':30}{'us':>10}{'floor, us':>12}{'share':>8}  bound by")
    found: list[Timed] = []
    for part in parts(variant, batch, ways):
        found.append(Timed(part.name, part_seconds(part), part.bytes / speed, part.flop / flops))
        print(found[-1].line(), flush=True)
    total, floor = 1e6 * sum(one.seconds for one in found), 1e6 * sum(one.floor for one in found)
    print(f"{'sum':43}{total:10.1f}{floor:12.1f}{floor / total:8.0%}   {batch / total:.3f}, {batch / floor:.3f} M images/s")
    worst = sorted(found, key=lambda one: one.seconds - one.floor, reverse=True)[:3]
    print("furthest from their floor, in time:")
    for one in worst:
        print(f"  {one.name}: {one.reason()}")
    return {
        "predicted": print_predictions(found, batch) if variant.name == "paper" else None,
        "parts": {one.name: one.as_json() for one in found},
        "worst": {one.name: one.reason() for one in worst},
        "sum_us": round(total, 1),
        "floor_us": round(floor, 1),
    }


def print_predictions(found: list[Timed], batch: int) -> dict[str, tuple[float, float]]:
    """Microseconds an image, predicted and measured."""
    rows = {}
    print(f"predicted at batch 1024 on an H200, measured{'':10}{'us/image':>10}{'measured':>10}{'ratio':>8}")
    for prefixes, predicted in PREDICTED.items():
        measured = 1e6 * sum(one.seconds for one in found if one.name.startswith(prefixes)) / batch
        rows[" and ".join(prefixes)] = predicted, round(measured, 3)
        print(f"{' and '.join(prefixes):52}{predicted:10.2f}{measured:10.2f}{measured / predicted:8.2f}")
    return rows


# --- the bake-off ---------------------------------------------------------------------------------


def kernel_names(call: Callable[[], object]) -> list[str]:
    """What a call launches, as the library names it."""
    if GPU.type != "cuda":
        return []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    return sorted({event.name[:120] for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA})


def contestants(shape: Shape, which: Pass) -> Iterator[tuple[str, float, Callable[[], object]]]:
    """A pass's ways: name, seconds (infinite for what fails or errs), and a call of it."""
    for name, found in towers.timings(shape)[which].items():
        yield name + " apart" * shape.apart, found, shape.call_timed(which, name)
    if shape.groups > 1 and not shape.apart:
        yield from contestants(replace(shape, apart=True), which)


def bake_off(variant: Variant, batch: int, flops: float, speed: float) -> dict[str, Any]:
    """Every pass of every convolution in every way, printed; microseconds, floor and kernels."""
    layers = {layer.name: layer for layer in variant.layers()}
    table: dict[str, Any] = {}
    print(f"\nbatch {batch}: us of each way{'':12}{'floor':>10}{'chosen':>15}")
    for name, shape in convolution_shapes(variant, batch, torch.bfloat16, GPU).items():
        floor = 1e6 * max(2.0 * batch * layers[name].multiply_adds / flops, sum(bytes_of(layers[name], shape)) / speed)
        for which in shape.passes:
            ways = {
                way: (1e6 * found, kernel_names(call) if math.isfinite(found) else [])
                for way, found, call in contestants(shape, which)
            }
            best = towers.fastest(shape)
            chosen = getattr(best, which) + " apart" * best.apart
            row = "  ".join(f"{way} {found:.1f}" for way, (found, _) in ways.items())
            print(f"{name} {which:32}{floor:10.1f}{chosen:>15}  {row}", flush=True)
            kept = {
                way: {"us": round(found, 2) if math.isfinite(found) else None, "kernels": names}
                for way, (found, names) in ways.items()
            }
            table[f"{name} {which}"] = {"floor_us": round(floor, 2), "chosen": chosen, "ways": kept}
    return table
