"""A convolution's bias and ReLU in one pass, and backward the ReLU's mask and
the bias's gradient in one.

For conv3 and conv4, which nothing but a ReLU follows, unless our own convolution writes both
(`convolve.py`); the way back is the same then. What is saved for the way back is the output:
a unit passes its gradient where it is positive. The bias's gradient is one partial sum per program,
added up afterwards in a fixed order. The number of programs does not depend on the tile's size:
each takes every so many tiles, and writes its sum, if only of nothing.

x and y may each have their towers apart.

Bytes per number in bfloat16: forward reads 2 and writes 2, backward reads 4 and writes 2. conv3 and
conv4 have 64,896 an image.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels import reference
from alexnet.kernels.gpu.planes import new_maps, place
from alexnet.kernels.gpu.tiles import octave, tuned

C = 128  # channels in a program's tile: 256 bytes a row in bfloat16
# P positions in a tile: 16, 8 or 32 numbers a thread.
CONFIGS = [triton.Config({"P": p}, num_warps=warps) for p, warps in ((16, 4), (8, 4), (32, 4), (32, 8))]
SMALLEST_P = 8
# Programs of the backward kernel for each block of channels, at most: conv3 and conv4 have three
# blocks, which makes twelve for each of an H200's 132 multiprocessors.
PROGRAMS = 512


@tuned(CONFIGS, key=["CHANNELS", "octave"])
@triton.jit
def _forward(
    x_ptr,  # (X_PLANES, positions, CHANNELS / X_PLANES)
    bias_ptr,  # (CHANNELS,)
    y_ptr,  # (Y_PLANES, positions, CHANNELS / Y_PLANES)
    positions,
    octave,
    CHANNELS: tl.constexpr,
    X_PLANES: tl.constexpr,
    Y_PLANES: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
):
    X_WIDTH: tl.constexpr = CHANNELS // X_PLANES
    Y_WIDTH: tl.constexpr = CHANNELS // Y_PLANES
    p = tl.program_id(0) * P + tl.arange(0, P)[:, None]
    c = tl.program_id(1) * C + tl.arange(0, C)[None, :]
    mask = (p < positions) & (c < CHANNELS)
    bias = tl.load(bias_ptr + c, mask=c < CHANNELS, other=0).to(tl.float32)
    x = tl.load(x_ptr + p * X_WIDTH + place(c, positions, X_WIDTH, X_PLANES), mask=mask, other=0).to(tl.float32)
    y = tl.maximum(x + bias, 0.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(y_ptr + p * Y_WIDTH + place(c, positions, Y_WIDTH, Y_PLANES), y.to(y_ptr.dtype.element_ty), mask=mask)


@tuned(CONFIGS, key=["CHANNELS", "octave"])
@triton.jit
def _backward(
    g_ptr,  # (Y_PLANES, positions, CHANNELS / Y_PLANES)
    y_ptr,  # as g
    dx_ptr,  # (X_PLANES, positions, CHANNELS / X_PLANES)
    dbias_ptr,  # (programs, CHANNELS) float32
    positions,
    octave,
    CHANNELS: tl.constexpr,
    X_PLANES: tl.constexpr,
    Y_PLANES: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
):
    X_WIDTH: tl.constexpr = CHANNELS // X_PLANES
    Y_WIDTH: tl.constexpr = CHANNELS // Y_PLANES
    c = tl.program_id(1) * C + tl.arange(0, C)[None, :]
    x_at, y_at = place(c, positions, X_WIDTH, X_PLANES), place(c, positions, Y_WIDTH, Y_PLANES)
    dbias = tl.zeros((P, C), tl.float32)
    for start in range(tl.program_id(0) * P, positions, tl.num_programs(0) * P):
        p = start + tl.arange(0, P)[:, None]
        mask = (p < positions) & (c < CHANNELS)
        g = tl.load(g_ptr + p * Y_WIDTH + y_at, mask=mask, other=0).to(tl.float32)
        y = tl.load(y_ptr + p * Y_WIDTH + y_at, mask=mask, other=0)
        dx = tl.where(y > 0, g, 0.0)
        tl.store(dx_ptr + p * X_WIDTH + x_at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
        dbias += dx
    tl.store(dbias_ptr + tl.program_id(0) * CHANNELS + c, tl.sum(dbias, 0)[None, :], mask=c < CHANNELS)


@torch.library.custom_op("alexnet::bias_relu", mutates_args=())
def bias_relu_forward(x: Tensor, bias: Tensor, planes: int) -> Tensor:
    """max(0, x + bias), channels-last, in planes."""
    x = x.contiguous(memory_format=torch.channels_last)
    channels = len(bias)
    y = new_maps(x, channels, planes, *x.shape[2:])
    positions = x.numel() // channels
    _forward[lambda meta: (triton.cdiv(positions, meta["P"]), triton.cdiv(channels, C))](
        x,
        bias,
        y,
        positions,
        octave(x.numel()),
        CHANNELS=channels,
        X_PLANES=channels // x.shape[1],
        Y_PLANES=planes,
        C=C,
        enable_fp_fusion=True,
    )
    return y


@bias_relu_forward.register_fake
def _(x: Tensor, bias: Tensor, planes: int) -> Tensor:
    return new_maps(x, len(bias), planes, *x.shape[2:])


@torch.library.custom_op("alexnet::bias_relu_backward", mutates_args=())
def bias_relu_backward(g: Tensor, y: Tensor, channels: int, planes: int) -> tuple[Tensor, Tensor]:
    """Gradient of x in its planes, and of the bias in float32, from the gradient g of y."""
    g, y = (t.contiguous(memory_format=torch.channels_last) for t in (g, y))
    dx = new_maps(g, channels, planes, *g.shape[2:])
    positions = g.numel() // channels
    programs = min(triton.cdiv(positions, SMALLEST_P), PROGRAMS)
    dbias = torch.empty((programs, channels), dtype=torch.float32, device=g.device)
    _backward[programs, triton.cdiv(channels, C)](
        g,
        y,
        dx,
        dbias,
        positions,
        octave(g.numel()),
        CHANNELS=channels,
        X_PLANES=planes,
        Y_PLANES=channels // g.shape[1],
        C=C,
        enable_fp_fusion=True,
    )
    return dx, dbias.sum(0)


@bias_relu_backward.register_fake
def _(g: Tensor, y: Tensor, channels: int, planes: int) -> tuple[Tensor, Tensor]:
    return new_maps(g, channels, planes, *g.shape[2:]), torch.empty(channels, dtype=torch.float32, device=g.device)


def _save(ctx, inputs, output):
    x, bias, _ = inputs
    ctx.save_for_backward(output)
    ctx.constants = len(bias), len(bias) // x.shape[1]
    ctx.bias_dtype = bias.dtype


def _gradient(ctx, g):
    dx, dbias = bias_relu_backward(g, *ctx.saved_tensors, *ctx.constants)
    return dx, dbias.to(ctx.bias_dtype), None


bias_relu_forward.register_autograd(_gradient, setup_context=_save)


def bias_relu(x: Tensor, bias: Tensor, planes: int = 1) -> Tensor:
    """As `reference.bias_relu`; the output is channels-last."""
    if x.numel() >= 2**31:
        return reference.bias_relu(x, bias, planes)
    return bias_relu_forward(x, bias, planes)
