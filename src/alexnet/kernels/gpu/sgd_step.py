"""The paper's update of all parameters in one launch.

It moves 22 bytes per parameter, each once: float32 weight and velocity in and out, the gradient in
(2 less where it is bfloat16), the bfloat16 weight for the next step out. The tensors' addresses
travel as arguments of the launch, so a captured graph needs no table that could go stale, and the
compiler sees which are aligned. The learning rates are read from the device, so that a replayed
graph follows the schedule.

Two launches, fully connected layers first, hide most of it: their gradients come first, hold 96 %
of the parameters, and can be applied on another stream while the convolutions still run backward.
For these to find room, the programs are few and each takes many pieces: a program for every piece
would fill every multiprocessor until the last is done.

The tile size is measured on scratch, once in a process: measuring repeats the update, which real
weights would suffer from.
"""

from collections.abc import Sequence
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels import reference
from alexnet.kernels.gpu.tiles import tuned

# Eight, four or sixteen numbers a thread.
CONFIGS = [
    triton.Config({"NUMBERS": numbers}, num_warps=warps) for numbers, warps in ((1024, 4), (512, 4), (2048, 4), (4096, 8))
]
PROGRAMS = 264  # at most, two for each of an H200's multiprocessors: what runs beside them finds room there
SCRATCH = 2**24  # numbers: 370 MB to move, seven times an H200's cache


@triton.jit
def _update(
    w_ptr,  # (size,)
    v_ptr,  # as w
    g_ptr,  # as w
    copy_ptr,  # as w
    at,
    size,
    lr,
    decay,
    momentum,
    COPY: tl.constexpr,
    NESTEROV: tl.constexpr,
):
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


@tuned(CONFIGS, key=["COPY"])
@triton.jit
def _step(
    weights,  # T pointers
    velocities,  # T, each in the same order in memory as its weight
    gradients,  # as velocities
    copies,  # as velocities
    sizes,  # T numbers
    decays,  # T numbers
    lr_ptr,  # (T,) float32
    momentum,
    T: tl.constexpr,
    COPY: tl.constexpr,
    NESTEROV: tl.constexpr,
    NUMBERS: tl.constexpr,
):
    """A program updates every so many pieces of each tensor."""
    for t in tl.static_range(T):
        lr = tl.load(lr_ptr + t)
        for start in range(tl.program_id(0) * NUMBERS, sizes[t], tl.num_programs(0) * NUMBERS):
            at = start + tl.arange(0, NUMBERS)
            _update(weights[t], velocities[t], gradients[t], copies[t], at, sizes[t], lr, decays[t], momentum, COPY, NESTEROV)


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
    config = _step.configs[0]
    if len(_step.configs) > 1:
        config = _measured(weights[0].device, bool(copies))
    _step.fn[min(PROGRAMS, triton.cdiv(max(sizes), config.kwargs["NUMBERS"])),](
        tuple(weights),
        tuple(velocities),
        tuple(gradients),
        tuple(copies or weights),
        sizes,
        tuple(decays),
        lr,
        momentum,
        T=len(sizes),
        COPY=bool(copies),
        NESTEROV=nesterov,
        enable_fp_fusion=True,
        **config.all_kwargs(),
    )
    return None


@cache
def _measured(device: torch.device, with_copies: bool) -> triton.Config:
    """The fastest configuration on one tensor, whose gradient is bfloat16 if it has a copy in
    it."""
    kinds = torch.float32, torch.float32, *[torch.bfloat16 if with_copies else torch.float32] * 2
    *tensors, copies = [(torch.zeros(SCRATCH, dtype=kind, device=device),) for kind in kinds]
    _step[PROGRAMS,](
        *tensors,
        copies,
        (SCRATCH,),
        (0.0,),
        torch.zeros(1, device=device),
        0.0,
        T=1,
        COPY=with_copies,
        NESTEROV=False,
        enable_fp_fusion=True,
    )
    return _step.best_config


def _in_one_order(tensors: Sequence[Tensor]) -> bool:
    """Whether the tensors fill their memory without gaps and in the same order."""
    return any(
        all(tensor.is_contiguous(memory_format=layout) for tensor in tensors)
        for layout in (torch.contiguous_format, torch.channels_last)
        if layout == torch.contiguous_format or tensors[0].dim() == 4
    )
