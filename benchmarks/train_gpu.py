"""Training on a GPU, in one command: check every kernel, time every part, run against the peers,
keep it up for a minute.

    python benchmarks/train_gpu.py                      # about ten minutes
    python benchmarks/train_gpu.py --batch 128 --no-check --sustained 0
    python benchmarks/train_gpu.py --batch 1024 --full  # and an epoch of ImageNet's size
    python benchmarks/train_gpu.py --full --data STORE  # and all of it on photos

1. The ceilings: a bfloat16 product of 8192 x 8192 matrices, a copy of 1 GiB
   within the GPU's memory.
2. The checks: `pytest -m gpu`, float64 comparisons of kernels and of
   whole-net gradients among them.
3. Every part of the step by itself, forward and backward, as replays of CUDA graphs over
   rotating inputs (ReLU's outputs where the step has such), with its share of its own roofline:
   the larger of bytes over the copy's speed and operations over the product's. The sum of these
   times is what the step cannot beat part by part. What bounds a part follows from numbers alone:
   `launch` if it takes less than 5 us, as a launch in a graph and its first loads take some;
   else `bytes` or `operations`, whichever sets its floor. How far the part is above that floor
   is then the kernel's own doing.
4. The step against its peers, in turns, by the GPU's events: our network naive, under AMP and
   compiled, torchvision's under AMP and compiled. The peers get one ready batch; ours makes its
   batches from resident records. Ratios are block by block.
5. The step kept up for `--sustained` seconds, its loss read every 20 steps as in
   training; the data path alone.
6. With `--full`, an epoch over 1,281,167 resident records (`full_epoch.py`).
7. With `--data`, the fused step against the plain one on photos: loss curves, then accuracy at
   the end (`real_data.py`).

It needs nothing but the package; without `--data` pictures are noise. It exits with 1 if a check
fails or if 7 shows that the two steps differ. The last line is one JSON object.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import real_data
import torch
import torch.nn.functional as F
from full_epoch import IMAGENET, FullEpochs, check_store
from torch import Tensor

from alexnet import arithmetic, kernels
from alexnet.arithmetic import LRN, Conv, Dropout, Layer, Linear, MaxPool
from alexnet.bench import Scene, Steps, Timing, contest, noise, preprocessing_of, product_flops, seconds
from alexnet.errors import AlexNetError, TrainingError
from alexnet.fused import NEUTRAL, STEPS, convolution_shapes, groups
from alexnet.kernels import convolutions as towers
from alexnet.run_folder import environment
from alexnet.train.health.signals import gradient_norms, update_ratios
from alexnet.train.health.signals import look as look_at
from alexnet.train.health.watch import LOOK_STEPS
from alexnet.train.steps.fused import FusedStep, choose_ways
from alexnet.variants import Variant, get_variant

ROOT = Path(__file__).resolve().parents[1]
GPU = torch.device("cuda")
INPUTS, REPLAYS, BLOCKS = 8, 10, 5
PREDICTED = {128: 64_000, 1024: 80_000}  # images a second of an H200 with the library's convolutions
WANTED = {128: 64_000, 1024: 90_000}  # images a second of an H200, kept up
LOOK_SHARE = 0.01  # of the steps' time, for looking at the network
WANTED_DATA = 1_000_000  # images a second of the data path alone
WANTED_TIMES = {"torchvision's, AMP": 3.0, "torchvision's, AMP, compiled": 1.5}
BF16 = 2  # bytes
OURS = "fused, from resident records"
LAUNCH = 5e-6  # seconds; what takes less is bounded by launching it


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


def parts(variant: Variant, batch: int, ways: dict[str, str]) -> Iterator[StepPart]:
    """The step's, in its order."""
    layers = {layer.name: layer for layer in variant.layers()}
    shapes = convolution_shapes(variant, batch, torch.bfloat16, GPU)
    yield augmentation(variant, batch, shapes["conv1"])
    for group in groups(variant.ops()):
        first = layers[group[0].name]
        if isinstance(first.op, Conv):
            yield from convolution(first, shapes[first.name], ways[first.name])
            if any(isinstance(op, LRN | MaxPool) for op in group):
                yield from after_convolution(group, first, layers[group[-1].name], batch)
            elif len(group) > 1:
                yield from bias_and_relu(first, batch)
        elif isinstance(first.op, Linear):
            yield from fully_connected(first, batch)
        elif isinstance(group[-1], Dropout):
            yield from dropout(first, batch)
    yield loss(batch, variant.num_classes)
    yield update(variant)


def augmentation(variant: Variant, batch: int, shape: towers.Shape) -> StepPart:
    """From resident records to blocks; the mean image stays in the cache."""
    preprocessing = preprocessing_of(variant).to(GPU)
    pixels = batch * variant.input_size**2

    def make() -> Callable[[], object]:
        records = torch.from_numpy(noise(preprocessing.stored_size, batch, variant.num_classes).records).to(GPU)
        zeros, colour = torch.zeros(batch, dtype=torch.int64, device=GPU), torch.zeros(batch, 3, device=GPU)
        drawn = records, zeros, zeros, zeros > 0, colour, zeros + torch.arange(batch, device=GPU)
        return lambda: preprocessing.apply(*drawn, variant.conv1_padding, torch.bfloat16)

    return StepPart("augmentation", 1.5 * pixels + BF16 * batch * shape.channels * shape.side**2, 0.0, make)


def convolution(layer: Layer, shape: towers.Shape, way: str) -> Iterator[StepPart]:
    """Without bias; conv1 in blocks, and without a gradient for its input."""
    weights = shape.kernels * shape.channels // shape.groups * shape.size**2
    x_bytes, w_bytes = BF16 * shape.batch * shape.channels * shape.side**2, BF16 * weights
    y_bytes = BF16 * shape.batch * prod(layer.output)
    flop = 2.0 * shape.batch * layer.multiply_adds

    def inputs() -> list[Tensor]:
        weight = maps(shape.kernels, shape.channels // shape.groups, shape.size, shape.size, relu=False) / 1000
        return [weight, maps(shape.batch, shape.channels, shape.side, shape.side, relu=not shape.first)]

    def convolve(weight: Tensor, x: Tensor) -> Tensor:
        return towers.WAYS[way](x.detach() if shape.first else x, weight, None, shape.padding, shape.groups)

    backward_bytes = y_bytes + x_bytes + w_bytes * 2 + (0 if shape.first else x_bytes)
    moved = (x_bytes + w_bytes + y_bytes, backward_bytes)
    flops = (flop, flop if shape.first else 2 * flop)
    yield from forward_backward(f"{layer.name} ({way})", convolve, inputs, moved, flops)


def after_convolution(group: tuple[Any, ...], conv: Layer, last: Layer, batch: int) -> Iterator[StepPart]:
    """Bias, ReLU, normalisation, pooling."""
    norm = next((op for op in group if isinstance(op, LRN)), NEUTRAL)
    steps = tuple(STEPS[type(op)] for op in group[1:])
    channels = conv.output[0]
    x_bytes, y_bytes = BF16 * batch * prod(conv.output), BF16 * batch * prod(last.output)
    winners = batch * prod(last.output)

    def run(x: Tensor, bias: Tensor) -> Tensor:
        return kernels.relu_lrn_pool(x, bias, steps, norm.size, norm.coefficient, norm.beta, norm.k, norm.towers)

    def inputs() -> list[Tensor]:
        return [maps(batch, *conv.output, relu=False), torch.randn(channels, device=GPU)]

    moved = (x_bytes + y_bytes + winners, 2 * x_bytes + y_bytes + winners)
    yield from forward_backward("+".join(op.name for op in group[1:]), run, inputs, moved, (0.0, 0.0))


def bias_and_relu(conv: Layer, batch: int) -> Iterator[StepPart]:
    """What follows conv3 and conv4."""
    each = BF16 * batch * prod(conv.output)

    def inputs() -> list[Tensor]:
        return [maps(batch, *conv.output, relu=False), torch.randn(conv.output[0], device=GPU)]

    yield from forward_backward(f"{conv.name}'s bias+ReLU", kernels.bias_relu, inputs, (2 * each, 3 * each), (0.0, 0.0))


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


# --- the whole ------------------------------------------------------------------------------------


def copy_speed() -> float:
    """Bytes a second that a copy within the GPU's memory reads and writes."""
    source = torch.randint(0, 255, (2**30,), dtype=torch.uint8, device=GPU)
    target = torch.empty_like(source)
    seconds(lambda: target.copy_(source), GPU, 3)
    return 2.0 * 2**30 / min(seconds(lambda: target.copy_(source), GPU, 10) for _ in range(3))


def print_parts(variant: Variant, batch: int, flops: float, speed: float) -> dict[str, Any]:
    """Time and print every part; the parts as plain data."""
    ways = choose_ways(variant, batch, torch.bfloat16, GPU)
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
        "parts": {one.name: one.as_json() for one in found},
        "worst": {one.name: one.reason() for one in worst},
        "sum_us": round(total, 1),
        "floor_us": round(floor, 1),
    }


def print_contest(rows: list[Timing], batch: int) -> None:
    """The table of the step and its peers; ratios are ours over theirs, block by block."""
    print(f"\nbatch {batch}{'':26}{'images/s':>10}{'steps/s':>10}{'of the floor':>14}{'ours is':>10}{'range':>18}")
    for row in rows:
        share = f"{row.rate / row.floor:.1%}" if row.floor else ""
        span = f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"
        rates = f"{row.rate:10,.0f}{row.rate / batch:10,.1f}"
        span += met(statistics.median(row.ratios), WANTED_TIMES.get(row.name), "x")
        print(f"{row.name:34}{rates}{share:>14}{statistics.median(row.ratios):9.2f}x{span:>18}", flush=True)
    if batch in PREDICTED:
        print(f"predicted for an H200: {PREDICTED[batch]:,}; measured {rows[0].rate / PREDICTED[batch]:.2f} of it")


def met(found: float, wanted: float | None, unit: str, most: bool = False) -> str:
    """Whether a figure for an H200 is reached, or not exceeded; nothing where there is none."""
    if wanted is None:
        return ""
    reached = found <= wanted if most else found >= wanted
    return f"  ({'met' if reached else 'missed'}: at {'most' if most else 'least'} {wanted:,.10g}{unit} wanted of an H200)"


def look_share(fused: FusedStep, step: float) -> float:
    """Time that a watched step takes longer than another, relative to the steps
    from one look to the next.
    """

    def look(images: Tensor) -> None:
        look_at(fused.model, images)
        gradient_norms(fused.model)
        update_ratios(fused.model, fused.optimiser)

    run = Steps(fused.feed.loader, lambda epoch, number: fused.take(epoch, number, 1e-4, 1.0, look))
    seconds(run, GPU, 3)
    return (seconds(run, GPU, 10) - step) / (LOOK_STEPS * step)


def sustained(fused: FusedStep, duration: float, number: int) -> float:
    """Images a second over `duration` seconds of the host's clock, from an idle GPU to an idle
    GPU.
    """
    run = Steps(fused.feed.loader, lambda epoch, step: fused.take(epoch, step, 1e-4, 1.0))
    run.number = number
    torch.cuda.synchronize()
    start, taken = time.monotonic(), 0
    while time.monotonic() - start < duration:
        for _ in range(20):  # as often as training reads the loss
            run()
        taken += 20
        fused.collect()
    torch.cuda.synchronize()
    return taken * fused.batch_size / (time.monotonic() - start)


def measure(variant: Variant, batch: int, duration: float, flops: float, speed: float) -> dict[str, Any]:
    """Everything for one size of batch."""
    result = print_parts(variant, batch, flops, speed)
    floor = flops / arithmetic.training_flop(variant.layers())
    scene = Scene(variant, GPU, batch, compile=True)
    try:
        return result | whole(scene, floor, duration)
    finally:
        scene.close()


def whole(scene: Scene, floor: float, duration: float) -> dict[str, Any]:
    """The step against its peers, kept up, and its data path."""
    batch, ours = scene.batch, scene.training()
    rows = contest({OURS: ours} | scene.peers(), GPU, batch, floor, BLOCKS, 0)
    if not rows or rows[0].name != OURS:
        raise TrainingError("the fused step does not run here, as said above")
    print_contest(rows, batch)
    result: dict[str, Any] = {
        "rows": {row.name: row.as_json() | {"steps_per_second": round(row.rate / batch, 2)} for row in rows}
    }
    fused = scene._fused
    assert fused is not None and isinstance(ours, Steps)
    if duration:
        rate = sustained(fused, duration, ours.number)
        epochs = 90 * IMAGENET / rate / 60
        print(f"over {duration:.0f} s: {rate:,.0f} images/s, {rate / batch:,.1f} steps/s, {rate / floor:.1%} of the floor")
        print(f"90 epochs of ImageNet at that rate: {epochs:.1f} minutes{met(rate, WANTED.get(batch), ' images/s')}")
        result["sustained"] = {"seconds": duration, "images_per_second": round(rate, 1), "share": round(rate / floor, 4)}
    (data,) = contest({"data": scene.data()}, GPU, batch, None, BLOCKS, 0)
    print(f"data path alone: {data.rate:,.0f} images/s{met(data.rate, WANTED_DATA, '')}")
    share = look_share(fused, seconds(ours, GPU, 200))
    print(
        f"looking at the network once in {LOOK_STEPS} steps takes {share:.2%} of their time"
        f"{met(share, LOOK_SHARE, '', most=True)}"
    )
    print(f"GPU memory at most: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB; clocks {clocks()}")
    return result | {"data_images_per_second": round(data.rate), "look_share": round(share, 5)}


def clocks() -> str:
    """The card's clocks now; printed, never set."""
    query = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip().replace("\n", "; ")
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def checked() -> str:
    """Run the tests that need a GPU; their last line.

    Raises:
        SystemExit: one of them failed: wrong kernels are not timed.
    """
    if not find_spec("pytest"):
        return "not checked: pytest is not installed (pip install -e '.[dev]')"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(ROOT / "tests")], cwd=ROOT, text=True, capture_output=True
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}\nThe checks failed: nothing was timed.")
    return done.stdout.strip().splitlines()[-1]


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="paper")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 256, 1024])
    parser.add_argument("--sustained", type=float, default=60, help="seconds; 0 for none")
    parser.add_argument("--full", action="store_true", help="an epoch over 1,281,167 resident records too (117 GiB)")
    parser.add_argument("--no-check", action="store_true", help="time without checking first")
    photos = parser.add_argument_group("on photos")
    photos.add_argument("--data", metavar="STORE", help="compare the fused step with the plain one on it, fill --full with it")
    real_data.add_arguments(photos)
    arguments = parser.parse_args()
    real_data.check(parser, arguments)
    return arguments


def demand_gpu() -> None:
    """Stop where nothing can be measured; begin a stream of our own, as graphs are
    recorded on none but such.
    """
    if not torch.cuda.is_available():
        raise SystemExit("No CUDA device is here, and this measures one. `alexnet bench` measures any machine.")
    if reason := kernels.lacking(GPU):
        raise SystemExit(f"The kernels cannot run on {torch.cuda.get_device_name()}: {reason}.")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}; {clocks()}", flush=True)
    torch.manual_seed(0)
    torch.cuda.set_stream(torch.cuda.Stream())


def opened(arguments: argparse.Namespace, variant: Variant) -> real_data.Photos | None:
    """The store with the recipes to compare on, looked at before anything is measured."""
    if not arguments.data:
        return None
    try:
        photos = real_data.opened(arguments, GPU)
        if arguments.full:
            check_store(variant, photos.store)
    except AlexNetError as error:
        raise SystemExit(str(error)) from None
    return photos


def in_memory(what: str, measured: Callable[..., Any], *arguments: Any) -> Any:
    """What was measured; None, with a line that says why, where it needs more memory than
    this GPU has or cannot run.
    """
    gc.collect()
    torch.cuda.empty_cache()
    try:
        return measured(*arguments)
    except (torch.cuda.OutOfMemoryError, TrainingError) as error:
        print(f"{what} could not be measured: {str(error).splitlines()[0]}")
        return None


def main() -> None:
    """Check, time and compare; print the tables and the line."""
    arguments = asked()
    variant = get_variant(arguments.variant)
    demand_gpu()
    photos = opened(arguments, variant)
    store = photos.store if photos else None
    check = "not checked" if arguments.no_check else checked()
    print(f"checks: {check}", flush=True)
    flops, speed = product_flops(GPU, "bf16"), copy_speed()
    print(f"ceilings: {flops / 1e12:.0f} TFLOP/s (bfloat16 product), {speed / 1e12:.2f} TB/s (copy)", flush=True)
    sizes = {
        batch: in_memory(f"batch {batch}", measure, variant, batch, arguments.sustained, flops, speed)
        for batch in arguments.batch
    }
    records = in_memory("ImageNet", FullEpochs, variant, store, GPU) if arguments.full else None
    full = {batch: in_memory(f"batch {batch}", records.run, batch) for batch in arguments.batch} if records else None
    del records  # 117 GiB
    gc.collect()
    torch.cuda.empty_cache()
    learned = real_data.compare(photos, arguments) if photos else None
    result = {
        "benchmark": "train_gpu",
        "variant": variant.name,
        "checks": check,
        "product_tflops": round(flops / 1e12, 1),
        "copy_tb_per_second": round(speed / 1e12, 3),
        "batches": sizes,
        "full_epoch": full,
        "photos": learned,
        "clocks": clocks(),
        "environment": environment(),
    }
    print(json.dumps(result))
    if learned and not learned["agree"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
