"""Are the kernels right on this GPU? In three minutes, without an installed alexnet.

    PYTHONPATH=src python -W default benchmarks/check_gpu.py

It needs PyTorch, Triton, NumPy, Pillow, filelock, protobuf, rich and safetensors.

1. Every kernel at training's own sizes, forward and backward, against the reference in float64:
   ||found - expected|| / ||expected||, on random numbers, into memory filled with NaN; of maps with
   their towers together, and apart where the network has towers. One tile for each kernel, the
   first: what others give is compared when they are chosen, before a run and by the full suite
   (`pytest -m gpu`, which compiles some thousand kernels).
2. The whole step: maps, logits, every gradient, dropout and the update, as before each run
   (`train/steps/check.py`), with our own convolutions, with the library's, and with the library's
   of towers that are apart.
3. The recorded step: the losses of the one that is not, and the host waits for nothing.

A part that fails is printed and passed over. It exits with 1 if one did.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import kernels
from alexnet.arithmetic import LRN, Conv, Layer
from alexnet.bench import noise, preprocessing_of
from alexnet.data.augment import Augmentation
from alexnet.data.feed import open_feed
from alexnet.devices import set_precision
from alexnet.fused import NEUTRAL, STEPS, convolution_shapes, groups, planes
from alexnet.kernels import reference
from alexnet.kernels.convolutions import RELU, Passes, convolve, convolve_relu
from alexnet.kernels.planes import apart, together
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start
from alexnet.train.steps.check import disagreement, relative
from alexnet.train.steps.fused import FusedStep, build
from alexnet.variants import Variant, get_variant

OWN, LIBRARY, SPLIT_APART = (
    dict.fromkeys((f"conv{n}" for n in range(1, 6)), ways)
    for ways in (Passes("own", "own", "own"), Passes(), Passes("split", "split", "split", apart=True))
)
OWN_RELU = {name: ways._replace(forward=RELU) if name in ("conv3", "conv4") else ways for name, ways in OWN.items()}
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 4e-3}
UNCERTAIN = 0.05  # of the sums' deviation: bfloat16 rounds a sum of four deviations by up to 0.016 of one
EAGER, STEPS_TAKEN = 4, 10
LR = 1e-4
Part = Callable[[], str]


def wrong(found: list[Tensor], expected: list[Tensor], limits: dict[torch.dtype, float]) -> str:
    """The largest error relative to its limit, as "0.0017 of 0.004".

    Raises:
        ArithmeticError: it is above the limit, or no number.
    """
    errors = [(relative(one, other.detach().double()), limits[one.dtype]) for one, other in zip(found, expected, strict=True)]
    error, limit = max(errors, key=lambda pair: pair[0] / pair[1] if pair[0] == pair[0] else float("inf"))
    text = f"{error:.2g} of {limit:g}"
    if not error <= limit:
        raise ArithmeticError(f"relative error against float64 is {text}")
    return text


@contextmanager
def poisoned() -> Iterator[None]:
    """New tensors hold NaN until something is written to them."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def both_ways(
    function: Callable[..., Tensor], inputs: list[Tensor], limits: dict[torch.dtype, float], certain: Tensor | None = None
) -> str:
    """A function on its inputs and, in float64, by the reference: result and gradients, of the
    `certain` units alone if given.
    """
    results = []
    for arguments in (inputs, [x.double() for x in inputs]):
        leaves = [x.detach().requires_grad_() for x in arguments]
        with poisoned():
            y = function(*leaves)
            g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(inputs[0].dtype).to(y.device, y.dtype)
            g = g if certain is None else g * certain
            results.append([y, *torch.autograd.grad(y, leaves, g)])
    return wrong(*results, limits)  # type: ignore[misc]


def drawn(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Normal numbers, channels-last."""
    x = torch.randn(shape, generator=torch.Generator(device).manual_seed(len(shape)), device=device) * 3
    return x.to(dtype).contiguous(memory_format=torch.channels_last if len(shape) == 4 else torch.contiguous_format)


def kernel_parts(
    variant: Variant, batch: int, device: torch.device, limits: dict[torch.dtype, float]
) -> Iterator[tuple[str, Part]]:
    """Each kernel of the step, in its order, but the update."""
    layers = {layer.name: layer for layer in variant.layers()}
    shapes = convolution_shapes(variant, batch, torch.bfloat16, device)
    yield "augmentation", lambda: augmentation(variant, batch, device, limits)
    cut = groups(variant.ops())
    for group, following in zip(cut, (*cut[1:], ()), strict=True):
        first = layers[group[0].name]
        if isinstance(first.op, Conv):
            shape = shapes[first.name]
            yield first.name, lambda shape=shape: convolution(shape, limits)
            both = planes(group, SPLIT_APART), planes(following, SPLIT_APART)
            if shape.relu:
                yield (
                    "+".join(op.name for op in group),
                    lambda shape=shape, both=both: convolution_relu(shape, both, limits),
                )
            yield (
                "+".join(op.name for op in group[1:]),
                lambda group=group, conv=first, both=both: after(group, conv, both, batch, device, limits),
            )
    yield "dropout", lambda: dropout(batch, device, limits)
    yield "loss", lambda: loss(variant.num_classes, batch, device, limits)


def augmentation(variant: Variant, batch: int, device: torch.device, limits: dict[torch.dtype, float]) -> str:
    """From records to blocks."""
    preprocessing = preprocessing_of(variant)
    rng, room = np.random.default_rng(0), preprocessing.stored_size - variant.input_size + 1
    records = torch.from_numpy(noise(preprocessing.stored_size, batch, variant.num_classes).records)
    top, left = (torch.from_numpy(rng.integers(0, room, batch)) for _ in range(2))
    mirror, colour = torch.from_numpy(rng.random(batch) < 0.5), torch.from_numpy(rng.normal(0, 20, (batch, 3))).float()
    chosen = [x.to(device) for x in (records, top, left, mirror, colour, preprocessing.mean, preprocessing.scale)]
    rest: dict[str, Any] = {"size": variant.input_size, "bgr": preprocessing.bgr, "padding": variant.conv1_padding}
    with poisoned():
        found = [kernels.augment(*chosen, **rest, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    return wrong(found, [reference.augment(*chosen, **rest)] * 2, limits)


def convolution(shape: Any, limits: dict[torch.dtype, float]) -> str:
    """Our own."""
    x, weight, _ = shape.draw()

    def run(x: Tensor, weight: Tensor, planes: int = 1) -> Tensor:
        ways = OWN["conv1"]._replace(apart=planes > 1)
        return together(convolve(apart(x, planes), weight, ways, shape.padding, shape.groups), planes)

    return in_both_layouts(run, shape.groups > 1, {"planes": shape.groups}, [x, weight], limits)


def convolution_relu(shape: Any, planes: tuple[int, int], limits: dict[torch.dtype, float]) -> str:
    """Our own that adds the bias and takes the ReLU; `planes` of input and output if towers are
    apart.

    Gradients are those of units further from zero than bfloat16 rounds: nearer to it some pass
    their gradient in one arithmetic and not in the other, and each is more than the limit.
    """
    x, weight, _ = shape.draw()
    bias = shape.draw_bias()
    sums = F.conv2d(x.double(), weight.double(), bias.double(), padding=shape.padding, groups=shape.groups)
    certain = sums.abs() > UNCERTAIN * sums.std()

    def run(x: Tensor, weight: Tensor, bias: Tensor, x_planes: int = 1, y_planes: int = 1) -> Tensor:
        ways = OWN_RELU["conv3"]._replace(apart=x_planes > 1)
        x = apart(x, x_planes)
        return together(convolve_relu(x, weight, bias, ways, shape.padding, shape.groups, y_planes), y_planes)

    apart_planes = dict(zip(("x_planes", "y_planes"), planes, strict=True))
    return in_both_layouts(run, max(planes) > 1, apart_planes, [x, weight, bias], limits, certain)


def in_both_layouts(
    run: Callable[..., Tensor],
    towers: bool,
    planes: dict[str, Any],
    inputs: list[Tensor],
    limits: dict[torch.dtype, float],
    certain: Tensor | None = None,
) -> str:
    """With towers together and, if there are any, apart."""
    found = both_ways(run, inputs, limits, certain)
    return f"{found}, apart {both_ways(partial(run, **planes), inputs, limits, certain)}" if towers else found


def after(
    group: Any, conv: Layer, planes: tuple[int, int], batch: int, device: torch.device, limits: dict[torch.dtype, float]
) -> str:
    """What follows a convolution, in bfloat16; `planes` of input and output if towers are apart."""
    steps = tuple(STEPS[type(op)] for op in group[1:])
    norm = next((op for op in group if isinstance(op, LRN)), NEUTRAL)
    constants = norm.size, norm.coefficient, norm.beta, norm.k, norm.towers

    def run(x: Tensor, bias: Tensor, x_planes: int = 1, y_planes: int = 1) -> Tensor:
        x = apart(x, x_planes)
        if steps == ("relu",):
            return together(kernels.bias_relu(x, bias, y_planes), y_planes)
        return together(kernels.relu_lrn_pool(x, bias, steps, *constants, y_planes), y_planes)

    x = drawn(batch, *conv.output, dtype=torch.bfloat16, device=device) * 20
    inputs = [x, drawn(conv.output[0], dtype=torch.float32, device=device)]
    return in_both_layouts(run, max(planes) > 1, dict(zip(("x_planes", "y_planes"), planes, strict=True)), inputs, limits)


def dropout(batch: int, device: torch.device, limits: dict[torch.dtype, float]) -> str:
    """fc6's and fc7's."""
    keys = torch.randint(-(2**31), 2**31, (batch,), generator=torch.Generator().manual_seed(2)).int().to(device)
    x = drawn(batch, 4096, dtype=torch.bfloat16, device=device)
    return both_ways(lambda x: kernels.relu_dropout(x, 0.5, keys, False), [x], limits)


def loss(classes: int, batch: int, device: torch.device, limits: dict[torch.dtype, float]) -> str:
    """Its gradient too."""
    labels = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(3)).to(device)
    logits = drawn(batch, classes, dtype=torch.float32, device=device)
    return both_ways(lambda x: kernels.cross_entropy_topk(x, labels)[0], [logits], limits)


# --- the step -------------------------------------------------------------------------------------


def made(variant: Variant, batch: int, device: torch.device, ways: dict[str, Passes], record: bool = True) -> FusedStep:
    """A step on noise; the same for the same arguments."""
    preprocessing = preprocessing_of(variant).to(device)
    split = noise(preprocessing.stored_size, STEPS_TAKEN * batch, variant.num_classes)  # one epoch
    augmentation = Augmentation(preprocessing, True, True, np.eye(3))
    start = Start.on_records(Recipe(), variant, split, augmentation).in_batches_of(batch)
    feed = open_feed("resident", start.loader, device)
    step = build(feed, start.model, start.augmentation, start.optimiser, torch.bfloat16, ways=ways)
    step._record &= record
    return step


def whole(variant: Variant, batch: int, device: torch.device, ways: dict[str, Passes]) -> str:
    """As before a run."""
    step = made(variant, batch, device, ways)
    try:
        problem = disagreement(step, 0, 0)
    finally:
        step.close()
    if problem:
        raise ArithmeticError(problem)
    return "maps, logits, gradients, dropout and update are float64's"


def recorded(variant: Variant, batch: int, device: torch.device) -> str:
    """Its losses, and that the host waits for nothing."""
    losses = []
    for record in (True, False):
        step = made(variant, batch, device, OWN_RELU, record)
        try:
            losses.append(taken(step, record and device.type == "cuda"))
        finally:
            step.close()
    if not all(abs(one - other) <= 1e-3 * abs(other) for one, other in zip(*losses, strict=True)):
        raise ArithmeticError(f"losses recorded and not: {losses}")
    return f"loss {losses[0][0]:.4f} to {losses[0][-1]:.4f}, recorded or not"


def taken(step: FusedStep, alarmed: bool) -> list[float]:
    """The loss of each step; the last ones under PyTorch's alarm, where the mean of them counts."""
    found = []
    for number in range(EAGER):
        step.take(0, number, LR, 1.0)
        found.append(step.collect()[0])
    if alarmed:
        assert step._graph is not None, "the step was not recorded"
        torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(EAGER, STEPS_TAKEN):
            step.take(0, number, LR, 1.0)
    finally:
        if alarmed:
            torch.cuda.set_sync_debug_mode("default")
    total, _, steps = step.collect()
    return [*found, total / steps]


# --- all of it ------------------------------------------------------------------------------------


def first_tiles_only() -> None:
    """For the rest of the process."""
    from alexnet.kernels.gpu import augment, bias_relu, convolve, relu_lrn_pool, sgd_step

    for module in (augment, bias_relu, convolve, relu_lrn_pool, sgd_step):
        for kernel in vars(module).values():
            if hasattr(kernel, "configs"):
                kernel.configs = kernel.configs[:1]


def run(parts: list[tuple[str, Part]]) -> dict[str, Any]:
    """Each part printed, with its time; whether all were right, and what each gave."""
    found: dict[str, Any] = {}
    for name, part in parts:
        start = time.monotonic()
        try:
            result, right = part(), True
        except Exception as error:  # of a compiler, of a kernel: the rest is worth having
            result, right = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}", False
        found[name] = {"right": right, "result": result, "seconds": round(time.monotonic() - start, 2)}
        print(f"{'ok   ' if right else 'WRONG'} {name:24} {found[name]['seconds']:6.1f} s  {result}", flush=True)
    return {"right": all(one["right"] for one in found.values()), "parts": found}


def check(variant: Variant, batch: int, device: torch.device, limits: dict[torch.dtype, float] = LIMITS) -> dict[str, Any]:
    """All parts."""
    set_precision("bf16", device)
    first_tiles_only()
    parts = list(kernel_parts(variant, batch, device, limits))
    parts += [(f"step, {name}", lambda ways=ways: whole(variant, batch, device, ways)) for name, ways in WAYS_TRIED]
    return run([*parts, ("recorded step", lambda: recorded(variant, batch, device))])


WAYS_TRIED = [("our own convolutions", OWN_RELU), ("the library's", LIBRARY), ("the library's, apart", SPLIT_APART)]


def main() -> None:
    """Check, print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="paper")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cuda", help="on a CPU the kernels' reference is checked against itself")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("No CUDA device is here, and this checks one. `pytest tests/kernels` checks the kernels without.")
    found = check(get_variant(arguments.variant), arguments.batch, torch.device(arguments.device))
    print(json.dumps({"benchmark": "check_gpu", **found}))
    if not found["right"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
