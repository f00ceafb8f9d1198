"""Before a run on a GPU, the fused step's gradients are held against float64: no kernel trains a network that it gets wrong.

Kernels are compiled for the GPU that is there, by the Triton that is installed, with tiles that were chosen by measurement;
tests elsewhere cannot know all of these. So the first batch's first pictures go three ways through the network as it stands:

1. as training takes them: records, kernels;
2. plainly in float64, layer by layer on the CPU, from pictures made by the reference;
3. plainly in the first's type, by PyTorch's own layers on the GPU.

The same units are dropped in all three. A gradient of the first may be `FACTOR` times as far from the second as the third is,
and `ROOM` more, as roundings differ by chance. This is done in float32, where gradients are within 2e-6 of float64's, 1.4e-3
where one unit at a tie goes the other way, and mistakes show best; and in the type that the run computes in, as bfloat16 has
kernels of its own. There more units are near a tie, and eight pictures' gradients are 10 to 25 % from float64's in any program.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import kernels
from alexnet.arithmetic import Conv, Dropout, Linear
from alexnet.model import AlexNet
from alexnet.train.fused_step import FusedStep

PICTURES = 8
FACTOR, ROOM = 1.5, {torch.float32: 5e-3, torch.bfloat16: 2e-2}

Gradients = dict[str, Tensor]


def disagreement(step: FusedStep, epoch: int, number: int) -> str | None:
    """What is wrong with a step's gradients, in a few words; None if nothing is.

    Args:
        step: computes in float32 or bfloat16; it is not changed, nor are its weights.
        epoch, number: of the batch to look at.
    """
    try:
        with _exact_products():
            problem = _furthest(step, torch.float32, epoch, number)
        if problem or step.dtype == torch.float32:
            return problem
        return _furthest(step, step.dtype, epoch, number)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # a kernel that does not compile fails in many ways
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


def _furthest(step: FusedStep, dtype: torch.dtype, epoch: int, number: int) -> str | None:
    """The gradient that is furthest beyond what it may be, with its numbers."""
    batch, cpu = step.first(epoch, number, PICTURES, dtype), torch.device("cpu")
    weights = {name: parameter.detach() for name, parameter in step.model.named_parameters()}
    pictures = step.preprocessing.to(cpu).apply(*batch.drawn)

    def plainly(kind: torch.dtype, device: torch.device) -> Gradients:
        held = {name: weight.to(device, kind) for name, weight in weights.items()}
        return gradients(step.model, held, pictures, batch.labels, batch.seeds, step.smoothing)

    expected, theirs = plainly(torch.float64, cpu), plainly(dtype, batch.labels.device)
    found = {name: relative(batch.gradients[name], expected[name]) for name in expected}
    allowed = {name: FACTOR * relative(theirs[name], expected[name]) + ROOM[dtype] for name in expected}
    worst = max(found, key=lambda name: found[name] / allowed[name] if isfinite(found[name]) else inf)
    if found[worst] <= allowed[worst]:
        return None
    return f"in {str(dtype)[6:]} the gradient of {worst} is {found[worst]:.1%} from float64's, {allowed[worst]:.1%} are allowed"


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
    F.cross_entropy(x.double(), labels.to(some.device), label_smoothing=smoothing).backward()
    return {name: leaf.grad.double() for name, leaf in leaves.items() if leaf.grad is not None}


def relative(found: Tensor, expected: Tensor) -> float:
    """Distance over size: ||found - expected|| / ||expected||."""
    expected = expected.to(found.device)
    return float((found.detach().double() - expected).norm() / expected.norm().clamp_min(1e-300))
