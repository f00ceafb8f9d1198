"""The paper's update of all parameters in one launch.

It moves 22 bytes per parameter, each once: float32 weight and velocity in and out, the gradient in (2 less where it is
bfloat16), the bfloat16 weight for the next step out. The tensors' addresses travel as arguments of the launch, so a captured
graph needs no table that could go stale, and the compiler sees which are aligned. The learning rates are read from the
device, so that a replayed graph follows the schedule.

Two launches, fully connected layers first, hide most of it: their gradients come first, hold 96 % of the parameters, and can
be applied on another stream while the convolutions still run backward.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels import reference

NUMBERS = 1024  # a program's


@triton.jit
def _update(
    w_ptr, v_ptr, g_ptr, copy_ptr,  # (size,)
    at, size, lr, decay, momentum,
    COPY: tl.constexpr, NESTEROV: tl.constexpr,
):  # fmt: skip
    mask = at < size
    w = tl.load(w_ptr + at, mask=mask)
    g = tl.load(g_ptr + at, mask=mask).to(tl.float32)
    push = decay * lr * w + lr * g
    v = momentum * tl.load(v_ptr + at, mask=mask) - push
    w += momentum * v - push if NESTEROV else v
    tl.store(v_ptr + at, v, mask=mask)
    tl.store(w_ptr + at, w, mask=mask)
    if COPY:
        tl.store(copy_ptr + at, w.to(copy_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _step(
    weights, velocities, gradients, copies,  # T pointers each; one tensor's four have the same order in memory
    sizes, decays,  # T numbers each
    lr_ptr,  # (T,) float32
    momentum,
    T: tl.constexpr, COPY: tl.constexpr, NESTEROV: tl.constexpr, NUMBERS: tl.constexpr,
):  # fmt: skip
    """A program finds the tensor that its number falls into, and updates its piece."""
    piece = tl.program_id(0)
    for t in tl.static_range(T):
        pieces = tl.cdiv(sizes[t], NUMBERS)
        if (piece >= 0) & (piece < pieces):
            at = piece * NUMBERS + tl.arange(0, NUMBERS)
            lr = tl.load(lr_ptr + t)
            _update(weights[t], velocities[t], gradients[t], copies[t], at, sizes[t], lr, decays[t], momentum, COPY, NESTEROV)
        piece -= pieces


def sgd_step(
    weights: Sequence[Tensor],
    velocities: Sequence[Tensor],
    gradients: Sequence[Tensor],
    copies: Sequence[Tensor],
    lr: Tensor,
    decays: Sequence[float],
    momentum: float,
    nesterov: bool = False,
) -> None:
    """As `reference.sgd_step`."""
    groups = (weights, velocities, gradients, *([copies] if copies else []))
    if not all(_in_one_order(tensors) for tensors in zip(*groups, strict=True)):
        return reference.sgd_step(weights, velocities, gradients, copies, lr, decays, momentum, nesterov)
    sizes = tuple(w.numel() for w in weights)
    pieces = sum(triton.cdiv(size, NUMBERS) for size in sizes)
    _step[pieces,](
        tuple(weights), tuple(velocities), tuple(gradients), tuple(copies or weights), sizes, tuple(decays), lr, momentum,
        T=len(sizes), COPY=bool(copies), NESTEROV=nesterov, NUMBERS=NUMBERS, enable_fp_fusion=True,
    )  # fmt: skip
    return None


def _in_one_order(tensors: Sequence[Tensor]) -> bool:
    """Whether the tensors fill their memory without gaps and in the same order."""
    return any(
        all(tensor.is_contiguous(memory_format=layout) for tensor in tensors)
        for layout in (torch.contiguous_format, torch.channels_last)
        if layout == torch.contiguous_format or tensors[0].dim() == 4
    )
