"""ReLU and dropout in one pass, with no mask kept.

Which units are dropped is `reference.dropout`'s mixture of the picture's key and the unit's number:
the units that a CPU drops. The keys are on the device, so that a captured step drops others at
every replay. The way back needs neither: a unit with y > 0 was neither closed by the ReLU nor
dropped, and any other has no gradient. That holds for ReLU and dropout together, not for dropout of
numbers that can be negative, so the two are one function. Behind pool5, where nothing is negative,
it is plain dropout.

Bytes per unit in bfloat16: forward reads 2 and writes 2, backward reads 4 and writes 2; fc6 and fc7
have 8,192 units per image.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels.reference import drop_below

# A program's. Not tuned: a unit costs some 25 instructions, and memory is what it waits for.
UNITS = 1024


@triton.jit
def _mixed(bits):
    """As `reference._mixed`, on int32."""
    bits = (bits ^ (bits >> 16 & 0xFFFF)) * 0x21F0AAAD
    bits = (bits ^ (bits >> 15 & 0x1FFFF)) * 0x735A2D97
    return bits ^ (bits >> 15 & 0x1FFFF)


@triton.jit
def _forward(
    x_ptr,  # (N, units)
    keys_ptr,  # (N,) int32, `stride` apart
    y_ptr,  # (N, units)
    units,
    stride,
    drop_below,
    scale,
    UNITS: tl.constexpr,
):
    row, unit = tl.program_id(0), tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    at = row * units + unit
    x = tl.load(x_ptr + at, mask=unit < units, other=0).to(tl.float32)
    stays = _mixed(tl.load(keys_ptr + row * stride) ^ _mixed(unit)) >= drop_below
    y = tl.where(stays & ~(x <= 0), x * scale, 0.0)  # NaN passes
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=unit < units)


@triton.jit
def _backward(
    g_ptr,  # (units,)
    y_ptr,  # as g
    dx_ptr,  # as g
    units,
    scale,
    UNITS: tl.constexpr,
):
    at = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    g = tl.load(g_ptr + at, mask=at < units, other=0).to(tl.float32)
    y = tl.load(y_ptr + at, mask=at < units, other=0)
    tl.store(dx_ptr + at, tl.where(y > 0, g * scale, 0.0).to(dx_ptr.dtype.element_ty), mask=at < units)


@torch.library.custom_op("alexnet::relu_dropout", mutates_args=())
def relu_dropout_forward(x: Tensor, keys: Tensor, rate: float, scale: float) -> Tensor:
    """max(0, x) * scale, or 0 with probability `rate`; contiguous."""
    x = x.contiguous()
    y, units = torch.empty_like(x), x.shape[1:].numel()
    grid, limit = (len(x), triton.cdiv(units, UNITS)), drop_below(rate)
    _forward[grid](x, keys, y, units, keys.stride(0), limit, scale, UNITS=UNITS, enable_fp_fusion=True)
    return y


@relu_dropout_forward.register_fake
def _(x: Tensor, keys: Tensor, rate: float, scale: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("alexnet::relu_dropout_backward", mutates_args=())
def relu_dropout_backward(g: Tensor, y: Tensor, scale: float) -> Tensor:
    """Gradient of x from the gradient g of y."""
    g, y = g.contiguous(), y.contiguous()
    dx = torch.empty_like(g)
    _backward[triton.cdiv(g.numel(), UNITS),](g, y, dx, g.numel(), scale, UNITS=UNITS, enable_fp_fusion=True)
    return dx


@relu_dropout_backward.register_fake
def _(g: Tensor, y: Tensor, scale: float) -> Tensor:
    return torch.empty_like(g, memory_format=torch.contiguous_format)


def _save(ctx, inputs, output):
    ctx.save_for_backward(output)
    ctx.scale = inputs[3]


def _gradient(ctx, g):
    return relu_dropout_backward(g, *ctx.saved_tensors, ctx.scale), None, None, None


relu_dropout_forward.register_autograd(_gradient, setup_context=_save)


def relu_dropout(x: Tensor, rate: float, keys: Tensor, inverted: bool) -> Tensor:
    """As `reference.relu_dropout`; the output is contiguous."""
    return relu_dropout_forward(x, keys, rate, 1 / (1 - rate) if inverted else 1.0)
