"""Before a run on a GPU, check the fused step against float64, so that wrong kernels never train a
network.

Kernels are compiled for the GPU that is there, by the Triton that is installed, with tiles that
were chosen by measurement; tests elsewhere cannot know all of these. So a batch goes through the
step as training takes it, with the weights of a network that begins, and what its first and last
pictures alone give (pool5's maps, logits, gradients) is compared with two others:

1. plainly in float64, layer by layer on the CPU, from pictures made by the reference;
2. plainly in the step's type, by PyTorch's own layers on the GPU.

The same units are dropped in all three. A value may be `FACTOR` times as far from the first as the
second is, and some room more (`FORWARD`, `BACKWARD`), as roundings differ by chance. This is done
in float32, where gradients are within 2e-6 of float64's, some 1e-3 where a unit at a tie goes the
other way, and mistakes show best; and in the type that the run computes in, by the very kernels
that will train. In bfloat16 maps and logits are within 1 %, but more units are near a tie, and
eight pictures' gradients are 10 to 25 % from float64's in any program; what fails there must fail
on two batches. At last one update of copies of all weights is held against float64's.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import inf, isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import kernels
from alexnet.arithmetic import Conv, Dropout, Linear
from alexnet.console import say
from alexnet.devices import room_for
from alexnet.errors import TrainingError
from alexnet.model import AlexNet
from alexnet.train.optim import SGD
from alexnet.train.steps.fused import FusedStep, Launch, Sample

PICTURES = 8
FACTOR = 2.0
FORWARD = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 1e-2}
BACKWARD = {"float32": 1e-2, "tf32": 5e-2, "bfloat16": 1e-1}
UPDATE = {torch.float32: 1e-5, torch.bfloat16: 4e-3}  # of an update's results, as of kernels in the tests
UPDATED = ("weights", "velocities", "copies")

Values = dict[str, Tensor]


def disagreement(step: FusedStep, epoch: int, number: int) -> str | None:
    """A description of what is wrong with a step, or None. The step and its weights stay as they
    are.

    Args:
        step: computes in float32 or bfloat16.
        epoch, number: of the batch to look at first.

    Raises:
        TrainingError: the GPU's memory is full, or a kernel broke more than its result.
    """
    device = step.sums.device
    say("Checking the fused step against float64 ...")
    fresh = AlexNet(step.model.variant, torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = {name: weight.detach() for name, weight in fresh.named_parameters()}
    smaller = f"--batch-size {max(1, step.batch_size // 2)}, --feed pinned, or --fused off"
    try:
        with room_for(f"checking the fused step (batch_size = {step.batch_size})", device, smaller):
            return _problem(step, weights, epoch, number)
    except TrainingError:
        raise
    except Exception as error:
        return kernels.failure(device, error, "start again with --fused off")


def _problem(step: FusedStep, weights: Values, epoch: int, number: int) -> str | None:
    """What is wrong with values or update, in float32 and then in the step's type."""
    device = step.sums.device
    with exact_products():
        problem = _wrong_value(step, weights, "float32", epoch, number)
        problem = problem or _wrong_update(step)
    tf32 = device.type == "cuda" and torch.backends.cudnn.conv.fp32_precision != "ieee"  # type: ignore[attr-defined]
    if problem or (step.dtype == torch.float32 and not tf32):
        return problem
    kind = "tf32" if step.dtype == torch.float32 else "bfloat16"
    problem = _wrong_value(step, weights, kind, epoch, number)
    if problem and not _wrong_value(step, weights, kind, epoch + 1, 0):
        say(f"On a first batch, {problem}; on a second batch all was right.")
        return None
    return problem


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 numbers in float32, not in tf32."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, kind in zip(backends, before, strict=True):
            backend.fp32_precision = kind


def _wrong_value(step: FusedStep, weights: Values, kind: str, epoch: int, number: int) -> str | None:
    """The value that is furthest beyond what it may be, with its numbers.

    Args:
        weights: to compute with; float32, on the CPU.
    """
    cpu, dtype = torch.device("cpu"), torch.bfloat16 if kind == "bfloat16" else torch.float32
    sample = step.sample(epoch, number, PICTURES, step.leaves_of(weights, dtype))
    pictures = step.preprocessing.to(cpu).apply(*sample.drawn)

    def plainly(kind: torch.dtype, device: torch.device) -> Values:
        there = {name: weight.to(device, kind) for name, weight in weights.items()}
        return values(step.model, there, pictures, sample, step.smoothing)

    expected, theirs = plainly(torch.float64, cpu), plainly(dtype, sample.labels.device)
    errors = {name: relative(sample.values[name], expected[name]) for name in expected}
    room = {name: (FORWARD if name in ("pool5", "logits") else BACKWARD)[kind] for name in expected}
    allowed = {name: FACTOR * relative(theirs[name], expected[name]) + room[name] for name in expected}
    worst = max(errors, key=lambda name: errors[name] / allowed[name] if isfinite(errors[name]) else inf)
    if errors[worst] <= allowed[worst]:
        return None
    what = worst if worst in ("pool5", "logits") else f"the gradient of {worst}"
    return f"{what} in {kind}: relative error against float64 is {errors[worst]:.1%} (limit {allowed[worst]:.1%})"


def _wrong_update(step: FusedStep) -> str | None:
    """The first tensor whose update, on copies, is not float64's."""
    generator = torch.Generator(step.sums.device).manual_seed(0)
    for launch in step.launches:
        for kind, name, actual, exact in _updates(launch, step.optimiser, generator):
            distance = relative(actual, exact)
            if not distance <= UPDATE[actual.dtype]:
                return f"the update gives wrong {kind} of {name}: relative error against float64 is {distance:.2g}"
    return None


def _updates(launch: Launch, optimiser: SGD, generator: torch.Generator) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """A launch on copies: each updated tensor's kind, parameter, values, and float64's."""
    momentum, nesterov = optimiser.momentum, optimiser.nesterov
    trial, slopes = _trial(launch, generator)
    before = [(weight.clone(), velocity.clone()) for weight, velocity in zip(trial.weights, trial.velocities, strict=True)]
    trial.update(slopes, momentum, nesterov)
    for place, name in enumerate(launch.names):
        weight, velocity = (tensor.double() for tensor in before[place])
        lr, decay = trial.lr[place : place + 1].double(), launch.decays[place]
        kernels.sgd_step([weight], [velocity], [slopes[name].double()], [], lr, [decay], momentum, nesterov)
        for kind, exact in zip(UPDATED, (weight, velocity, weight), strict=True):
            if tensors := getattr(trial, kind):
                yield kind, name, tensors[place], exact


def _trial(launch: Launch, generator: torch.Generator) -> tuple[Launch, Values]:
    """The same update of copies, and gradients for it; conv1's come in another order than its
    weights, as in training.
    """

    def drawn(like: Tensor) -> Tensor:
        return torch.empty_like(like).normal_(generator=generator)

    trial = replace(
        launch,
        weights=[drawn(weight.detach()) for weight in launch.weights],
        velocities=[drawn(velocity) for velocity in launch.velocities],
        lr=torch.full_like(launch.lr, 0.1),
        copies=[drawn(copy.detach()) for copy in launch.copies],
    )
    slopes = {name: drawn(leaf.detach()) for name, leaf in zip(launch.names, launch.leaves, strict=True)}
    return trial, {name: slope.contiguous() if name == "conv1.weight" else slope for name, slope in slopes.items()}


def values(model: AlexNet, weights: Mapping[str, Tensor], images: Tensor, sample: Sample, smoothing: float = 0.0) -> Values:
    """pool5's maps, logits, and gradients of the mean loss, by the plain walk; it drops the units
    that the fused step drops.

    Args:
        weights: the network's, in the type to compute in and where.
        images: (n, 3, K, K), those of the sample.

    Returns:
        float64, where the weights are.
    """
    some = next(iter(weights.values()))
    leaves = {name: torch.nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    net, of_layers = AlexNet.holding(model.variant, leaves), iter(sample.keys.to(some.device).unbind(1))
    x, results = images.to(some.device, some.dtype), {}
    for op in net.ops:
        if isinstance(op, Dropout):
            x = kernels.dropout(x, op.rate, next(of_layers), op.inverted)
        elif isinstance(op, Conv | Linear):
            x = net.compute(op, x)
        else:  # whose arithmetic is float32 at least
            x = net.compute(op, x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)
        if x.dim() == 4 and not isinstance(op, Dropout):
            results["pool5"] = x
    results["logits"] = x = x.to(torch.promote_types(x.dtype, torch.float32))  # as they are in training
    F.cross_entropy(x, sample.labels.to(some.device), label_smoothing=smoothing).backward()
    results |= {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return {name: value.detach().double() for name, value in results.items()}


def relative(actual: Tensor, expected: Tensor) -> float:
    """Distance over size: ||found - expected|| / ||expected||."""
    expected = expected.to(actual.device)
    return float((actual.detach().double() - expected).norm() / expected.norm().clamp_min(1e-300))
