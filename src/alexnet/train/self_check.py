"""Before a run on a GPU, the fused step is held against float64: a network is not trained by kernels that get it wrong.

Kernels are compiled for the GPU that is there, by the Triton that is installed, with tiles that were chosen by measurement;
tests elsewhere cannot know all of these. So a batch goes through the step as training takes it, with the weights of a network
that begins, and the gradients that its first pictures alone give are compared with two others:

1. plainly in float64, layer by layer on the CPU, from pictures made by the reference;
2. plainly in the step's type, by PyTorch's own layers on the GPU.

The same units are dropped in all three, and their share is looked at. A gradient may be `FACTOR` times as far from the first as
the second is, and `ROOM` more, as roundings differ by chance. This is done in float32, where gradients are within 2e-6 of
float64's, some 1e-3 where a unit at a tie goes the other way, and mistakes show best; and in the type that the run computes in,
by the very kernels that will train. In bfloat16 more units are near a tie, and eight pictures' gradients are 10 to 25 % from
float64's in any program. What fails must fail on two batches. At last one update of copies of all weights is held against
float64's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf, isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import kernels
from alexnet.arithmetic import Conv, Dropout, Linear
from alexnet.model import AlexNet
from alexnet.train.fused_step import FusedStep, Launch, out_of_memory

PICTURES = 8
FACTOR, ROOM = 2.0, {torch.float32: 1e-2, torch.bfloat16: 1e-1}
UPDATE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 4e-3}  # of an update's results, as of kernels in the tests
UNITS, SIGMAS = 1_000_000, 6  # to count what is dropped among, and how far from the rate it may be

Gradients = dict[str, Tensor]


def disagreement(step: FusedStep, epoch: int, number: int) -> str | None:
    """What is wrong with a step, in a few words; None if nothing is. The step and its weights stay as they are.

    Args:
        step: computes in float32 or bfloat16.
        epoch, number: of the batch to look at first.

    Raises:
        TrainingError: the GPU's memory is full, or a kernel broke more than its result.
    """
    device = step.sums.device
    try:
        with _exact_products():
            problem = _wrong_gradient(step, epoch, number) and _wrong_gradient(step, epoch + 1, 0)
            return problem or _wrong_dropout(step, device) or _wrong_update(step)
    except torch.cuda.OutOfMemoryError as error:
        smaller = f"--batch-size {step.batch_size // 2}, --feed pinned, or --fused off"
        raise out_of_memory(f"checking the fused step (batch_size = {step.batch_size})", device, smaller) from error
    except Exception as error:  # a kernel that does not compile fails in many ways
        kernels.check_alive(device, error)
        return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"


@contextmanager
def _exact_products() -> Iterator[None]:
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


def _wrong_gradient(step: FusedStep, epoch: int, number: int) -> str | None:
    """The gradient that is furthest beyond what it may be, with its numbers."""
    cpu, expected = torch.device("cpu"), None
    for dtype in dict.fromkeys((torch.float32, step.dtype)):
        leaves = step.fresh_leaves(dtype)
        batch = step.first(epoch, number, PICTURES, leaves)
        pictures = step.preprocessing.to(cpu).apply(*batch.drawn)
        rest = pictures, batch.labels, batch.seeds, step.smoothing
        if expected is None:
            exact = {name: leaf.detach().to(cpu, torch.float64) for name, leaf in leaves.items()}
            expected = gradients(step.model, exact, *rest)
        theirs = gradients(step.model, {name: leaf.detach().to(dtype) for name, leaf in leaves.items()}, *rest)
        found = {name: relative(batch.gradients[name], expected[name]) for name in expected}
        allowed = {name: FACTOR * relative(theirs[name], expected[name]) + ROOM[dtype] for name in expected}
        worst = max(found, key=lambda name: found[name] / allowed[name] if isfinite(found[name]) else inf)
        if not found[worst] <= allowed[worst]:
            amount = f"{found[worst]:.1%} from float64's, {allowed[worst]:.1%} are allowed"
            return f"in {str(dtype)[6:]} the gradient of {worst} is {amount}"
    return None


def _wrong_dropout(step: FusedStep, device: torch.device) -> str | None:
    for op in step.model.ops:
        if isinstance(op, Dropout):
            ones, seed = torch.ones(UNITS, device=device), torch.tensor([1], device=device)
            dropped = float((kernels.relu_dropout(ones, op.rate, seed, op.inverted) == 0).float().mean())
            if abs(dropped - op.rate) > SIGMAS * (op.rate * (1 - op.rate) / UNITS) ** 0.5:
                return f"dropout drops {dropped:.2%} of all units instead of {op.rate:.0%}"
    return None


def _wrong_update(step: FusedStep) -> str | None:
    """The first weights whose update, on copies, is not float64's; their velocity is a tenth of them, their gradient too."""
    momentum, nesterov = step.optimiser.momentum, step.optimiser.nesterov
    for launch in step.launches:
        found = _trial(launch)
        exact = replace(found, lr=found.lr.double(), **{kind: [t.double() for t in getattr(found, kind)] for kind in UPDATED})
        slopes = {name: leaf.detach() / 10 for name, leaf in zip(launch.names, launch.leaves, strict=True)}
        found.update(slopes, momentum, nesterov)
        exact.update({name: slope.double() for name, slope in slopes.items()}, momentum, nesterov)
        for kind in UPDATED:
            for name, ours, theirs in zip(launch.names, getattr(found, kind), getattr(exact, kind), strict=False):
                if not relative(ours, theirs) <= UPDATE[ours.dtype]:
                    return f"the update gives wrong {kind} of {name}, {relative(ours, theirs):.2g} from float64's"
    return None


UPDATED = ("weights", "velocities", "copies")


def _trial(launch: Launch) -> Launch:
    """The same update of copies."""
    weights = [weight.detach().clone() for weight in launch.weights]
    return replace(
        launch, weights=weights, velocities=[weight / 10 for weight in weights], lr=torch.full_like(launch.lr, 0.1),
        copies=[copy.detach().clone() for copy in launch.copies],
    )  # fmt: skip


def gradients(
    model: AlexNet, weights: dict[str, Tensor], images: Tensor, labels: Tensor, seeds: Tensor, smoothing: float = 0.0
) -> Gradients:
    """Of the mean loss, by the plain walk, with the units dropped that the fused step drops.

    Args:
        weights: the network's, in the type to compute in and where.
        images: (N, 3, K, K).
        seeds: (dropout layers,) int64, where the fused step computes.

    Returns:
        float64, where the weights are.
    """
    some = next(iter(weights.values()))
    leaves = {name: torch.nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    net, number = AlexNet.holding(model.variant, leaves), 0
    x = images.to(some.device, some.dtype)
    for op in net.ops:
        if isinstance(op, Dropout):
            ones = torch.ones(x.shape, device=seeds.device)
            stays = kernels.relu_dropout(ones, op.rate, seeds[number : number + 1], False).to(some.device) > 0
            x, number = x * stays * (1 / (1 - op.rate) if op.inverted else 1.0), number + 1
        elif isinstance(op, Conv | Linear):
            x = net._run(op, x)
        else:  # whose arithmetic is float32 at least
            x = net._run(op, x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # as logits are in training
    F.cross_entropy(x, labels.to(some.device), label_smoothing=smoothing).backward()
    return {name: leaf.grad.double() for name, leaf in leaves.items() if leaf.grad is not None}


def relative(found: Tensor, expected: Tensor) -> float:
    """Distance over size: ||found - expected|| / ||expected||."""
    expected = expected.to(found.device)
    return float((found.detach().double() - expected).norm() / expected.norm().clamp_min(1e-300))
