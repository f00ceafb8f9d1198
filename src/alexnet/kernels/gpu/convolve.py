"""Convolution without stride, in towers, as matrix products on the tensor cores: implicit GEMM, the
tower an axis of the grid.

A kernel of S x S over a tower's C channels sums `terms` = S * S * C products. Flattened in the
order (row, column, channel), in which weights lie in memory as channels-last, every pass is
one product of matrices:

    forward         y (positions, kernels)  = patches (positions, terms) @ weights (terms, kernels)
    grad of x       the same, of g: the taps in reverse order, kernels for channels; the weights are
                    read where they are
    grad of weight  (kernels, terms)        = g (positions, kernels)^T  @ patches (positions, terms)

Patches exist in no memory: a tile of them is gathered from the map when it is needed (`_patches`).
Products are of bfloat16 or tf32, sums float32. The gradient of the weights is small and its sums
are long, 93,312 terms for conv2 and a batch of 128: each program takes a stretch of the positions,
and the partial sums are added up afterwards in a fixed order, without atomics.

A forward pass that a bias and a ReLU alone follow may write them itself (`forward_relu`).

Maps may have their towers apart (`kernels/planes.py`): then each tower is a map of its own.

Why write it: a library's kernels for towers can be slow, and elsewhere it may well be the better
one; so `kernels/convolutions.py`, which knows the derivative, times each pass against the library
for every shape, and takes what wins. Floors per image of the forward pass, at 790 TFLOP/s and 4.3
TB/s (bfloat16; each gradient has as much arithmetic):

    conv1 in blocks  0.251 GFLOP 0.32 us   893 kB 0.21 us
    conv2            0.448 GFLOP 0.57 us   513 kB 0.12 us
    conv3            0.299 GFLOP 0.38 us   216 kB 0.05 us
    conv4            0.224 GFLOP 0.28 us   260 kB 0.06 us
    conv5            0.150 GFLOP 0.19 us   216 kB 0.05 us

Tiles cost more than that, as Triton's are powers of two: 96 of 128 kernels (conv1), 192 of 256
(conv4) and 48 of 64 (conv2's gradient of x) would be real. So a program may take a second tile of
half as many kernels, MORE, which shares the gathered patches: 64 + 32, 128 + 64, 32 + 16. Of terms
1200 of 1216 are real (conv2). Gathering costs instructions: compiled for compute capability 9.0,
the forward loop of 128 x 256 x 64 issues 178 a warp (conv2), 356 a scheduler, while the tensor
cores need 1024 clocks; the one of the weights' gradient 714. Both run at once. Which tile is best
is measured at the first launch on each shape (`tiles.py`), among those that can be (`useful`).
None of this has run on a GPU yet: it is right in Triton's interpreter, it compiles without spilling
(for 8.0 the largest tiles spill 24 to 40 bytes at some shapes), and how fast it is nobody knows.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels.gpu.planes import place
from alexnet.kernels.gpu.tiles import tuned

SHAPE = ["positions", "H", "W", "EACH", "KERNELS", "GROUPS", "SIZE", "PAD"]
PROGRAMS = 264  # of the weights' gradient at most, in tiles of 128 x 128: two for each multiprocessor of an H200
STRETCH = 128  # positions: a multiple of every tile's
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


def _tile(positions: int, kernels: int, terms: int, warps: int, stages: int) -> triton.Config:
    """Of `kernels` that are a power of two, K, or one and a half: K and MORE."""
    k = 1 << kernels.bit_length() - 1
    return triton.Config({"P": positions, "K": k, "MORE": kernels - k, "T": terms}, num_warps=warps, num_stages=stages)


TILES = [  # of the forward pass and of x's gradient, whose sums run over the terms
    _tile(64, 32, 32, warps=4, stages=4),
    _tile(128, 64, 64, warps=4, stages=4),
    _tile(128, 128, 32, warps=4, stages=4),
    _tile(128, 128, 64, warps=8, stages=3),
    _tile(256, 128, 64, warps=8, stages=3),
    _tile(128, 256, 64, warps=8, stages=3),
    _tile(128, 48, 64, warps=4, stages=4),
    _tile(128, 96, 64, warps=8, stages=3),
    _tile(128, 192, 64, warps=8, stages=3),
]
WEIGHT_TILES = [  # whose sums run over the positions
    _tile(32, 32, 64, warps=4, stages=4),
    _tile(64, 64, 128, warps=4, stages=4),
    _tile(32, 128, 128, warps=4, stages=4),
    _tile(64, 128, 128, warps=8, stages=3),
    _tile(64, 128, 256, warps=8, stages=3),
    _tile(64, 96, 128, warps=8, stages=3),
    _tile(64, 192, 128, warps=8, stages=3),
]


def width(tile: triton.Config) -> int:
    """Kernels of a tile."""
    return int(tile.kwargs["K"] + tile.kwargs["MORE"])


def useful(tiles: list[triton.Config], _: dict[str, Any], **shape: Any) -> list[triton.Config]:
    """Those that can be the fastest for a tower's KERNELS.

    Of one and a half times a power of two the widest that takes as few tiles as the next power of
    two, and fewer than the one before: so it has fewer zeros. Of 128 and 256 none whose half would
    hold all kernels.
    """
    kernels: int = shape["KERNELS"]

    def count(wide: int) -> int:
        return triton.cdiv(kernels, wide)

    one_and_a_half = {width(tile) for tile in tiles if tile.kwargs["MORE"]}
    best = max((w for w in one_and_a_half if count(w) == count(w // 3 * 4) < count(w // 3 * 2)), default=None)
    powers = {width(tile) for tile in tiles} - one_and_a_half
    kept = {best, *(w for w in powers if w // 2 < max(kernels, 64))}
    return [tile for tile in tiles if width(tile) in kept]


@triton.jit
def _product(a, b, sums):
    """a @ b + sums. Triton's interpreter (3.9) would multiply bfloat16's bits as integers; float32
    holds all its numbers."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums)


@triton.jit
def _patches(
    x_ptr,
    p,
    t,
    positions,
    group,
    H: tl.constexpr,
    W: tl.constexpr,
    EACH: tl.constexpr,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    PAD: tl.constexpr,
):
    """What a tower's kernels see of (N, H, W, GROUPS * EACH) at positions p, their terms t; 0
    beyond the map; (P, T)."""
    OH: tl.constexpr = H + 2 * PAD - SIZE + 1
    OW: tl.constexpr = W + 2 * PAD - SIZE + 1
    top, left = p // OW % OH - PAD, p % OW - PAD
    row, column = t // EACH // SIZE, t // EACH % SIZE
    at = ((p // OW // OH * H + top) * W + left) * (GROUPS * EACH) + group * EACH
    step = (row * W + column) * (GROUPS * EACH) + t % EACH
    mask = (p < positions)[:, None] & (t < SIZE * SIZE * EACH)[None, :]
    if PAD > 0:
        y, x = top[:, None] + row[None, :], left[:, None] + column[None, :]
        mask &= (y >= 0) & (y < H) & (x >= 0) & (x < W)
    return tl.load(x_ptr + at[:, None] + step[None, :], mask=mask, other=0)


@triton.jit
def _weights(
    w_ptr,
    t,
    k,
    group,
    EACH: tl.constexpr,
    KERNELS: tl.constexpr,
    TAPS: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """Of a tower's kernels k at terms t, (T, K)."""
    if BACKWARD:
        w_at = (((group * EACH + t % EACH) * TAPS + TAPS - 1 - t // EACH) * KERNELS)[:, None] + k[None, :]
    else:
        w_at = t[:, None] + ((group * KERNELS + k) * (TAPS * EACH))[None, :]
    return tl.load(w_ptr + w_at, mask=(t < TAPS * EACH)[:, None] & (k < KERNELS)[None, :], other=0)


@triton.jit
def _write(y, bias_ptr, y_ptr, p, k, positions, group, KERNELS: tl.constexpr, GROUPS: tl.constexpr, Y_PLANES: tl.constexpr):
    """A tower's kernels k at positions p; with biases, the ReLU of their sum."""
    WIDTH: tl.constexpr = GROUPS * KERNELS // Y_PLANES
    channel = group * KERNELS + k
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + channel, mask=k < KERNELS, other=0).to(tl.float32)
        y = tl.maximum(y + bias[None, :], 0.0, propagate_nan=tl.PropagateNan.ALL)
    y_at = (p * WIDTH)[:, None] + place(channel, positions, WIDTH, Y_PLANES)[None, :]
    tl.store(y_ptr + y_at, y.to(y_ptr.dtype.element_ty), mask=(p < positions)[:, None] & (k < KERNELS)[None, :])


@triton.jit
def _tower(
    x_ptr, positions, group, H: tl.constexpr, W: tl.constexpr, EACH: tl.constexpr, SIZE: tl.constexpr, PAD: tl.constexpr
):
    """Where a tower's (N, H, W, EACH) begin, if towers are apart."""
    PLACES: tl.constexpr = (H + 2 * PAD - SIZE + 1) * (W + 2 * PAD - SIZE + 1)
    return x_ptr + group * (positions // PLACES * (H * W * EACH))


@tuned(TILES, [*SHAPE, "BACKWARD"], useful)
@triton.jit
def _convolve(
    x_ptr,  # (N, H, W, GROUPS * EACH), or APART (GROUPS, N, H, W, EACH)
    w_ptr,  # (GROUPS * KERNELS, SIZE, SIZE, EACH); backward, as the forward pass has them, (GROUPS * EACH, SIZE, SIZE, KERNELS)
    bias_ptr,  # (GROUPS * KERNELS,), to be added before a ReLU; None for the convolution alone
    y_ptr,  # (Y_PLANES, N, OH, OW, GROUPS * KERNELS / Y_PLANES)
    positions,  # N * OH * OW
    H: tl.constexpr,
    W: tl.constexpr,
    EACH: tl.constexpr,
    KERNELS: tl.constexpr,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    PAD: tl.constexpr,
    APART: tl.constexpr,
    Y_PLANES: tl.constexpr,
    BACKWARD: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    MORE: tl.constexpr,
    T: tl.constexpr,
):
    """A program: P positions by K kernels of one tower, and by MORE, which see the same patches.
    Neighbours share positions, which memory is asked for once."""
    BLOCKS: tl.constexpr = (KERNELS + K + MORE - 1) // (K + MORE)
    TAPS: tl.constexpr = SIZE * SIZE
    p = tl.program_id(0) // BLOCKS * P + tl.arange(0, P)
    k = tl.program_id(0) % BLOCKS * (K + MORE) + tl.arange(0, K)
    group = tl.program_id(1)
    BESIDE: tl.constexpr = 1 if APART else GROUPS
    beside = 0 if APART else group
    if APART:
        x_ptr = _tower(x_ptr, positions, group, H, W, EACH, SIZE, PAD)
    y = tl.zeros((P, K), tl.float32)
    if MORE > 0:
        more_k = tl.program_id(0) % BLOCKS * (K + MORE) + K + tl.arange(0, MORE)
        more_y = tl.zeros((P, MORE), tl.float32)
    for start in range(0, TAPS * EACH, T):
        t = start + tl.arange(0, T)
        x = _patches(x_ptr, p, t, positions, beside, H, W, EACH, BESIDE, SIZE, PAD)
        y = _product(x, _weights(w_ptr, t, k, group, EACH, KERNELS, TAPS, BACKWARD), y)
        if MORE > 0:
            more_y = _product(x, _weights(w_ptr, t, more_k, group, EACH, KERNELS, TAPS, BACKWARD), more_y)
    _write(y, bias_ptr, y_ptr, p, k, positions, group, KERNELS, GROUPS, Y_PLANES)
    if MORE > 0:
        _write(more_y, bias_ptr, y_ptr, p, more_k, positions, group, KERNELS, GROUPS, Y_PLANES)


@triton.jit
def _gradients(g_ptr, p, k, positions, group, KERNELS: tl.constexpr, GROUPS: tl.constexpr):
    """Of a tower's kernels k at positions p, (K, P)."""
    g_at = (p * (GROUPS * KERNELS) + group * KERNELS)[:, None] + k[None, :]
    return tl.trans(tl.load(g_ptr + g_at, mask=(p < positions)[:, None] & (k < KERNELS)[None, :], other=0))


@triton.jit
def _write_sums(sums, sums_ptr, k, t, group, KERNELS: tl.constexpr, GROUPS: tl.constexpr, TERMS: tl.constexpr):
    """Of a tower's kernels k at terms t, over one stretch."""
    at = (((tl.program_id(2) * GROUPS + group) * KERNELS + k) * TERMS)[:, None] + t[None, :]
    tl.store(sums_ptr + at, sums, mask=(k < KERNELS)[:, None] & (t < TERMS)[None, :])


@tuned(WEIGHT_TILES, SHAPE, useful)
@triton.jit
def _weight_gradient(
    g_ptr,  # (N, OH, OW, GROUPS * KERNELS), or APART (GROUPS, N, OH, OW, KERNELS)
    x_ptr,  # (N, H, W, GROUPS * EACH), or (GROUPS, N, H, W, EACH)
    sums_ptr,  # (stretches, GROUPS * KERNELS, SIZE, SIZE, EACH) float32
    positions,  # N * OH * OW
    length,  # of a stretch
    H: tl.constexpr,
    W: tl.constexpr,
    EACH: tl.constexpr,
    KERNELS: tl.constexpr,
    GROUPS: tl.constexpr,
    SIZE: tl.constexpr,
    PAD: tl.constexpr,
    APART: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    MORE: tl.constexpr,
    T: tl.constexpr,
):
    """A program: K kernels of one tower and MORE by T terms, over one stretch of positions."""
    TERMS: tl.constexpr = SIZE * SIZE * EACH
    BLOCKS: tl.constexpr = (TERMS + T - 1) // T
    k = tl.program_id(0) // BLOCKS * (K + MORE) + tl.arange(0, K)
    t = tl.program_id(0) % BLOCKS * T + tl.arange(0, T)
    group = tl.program_id(1)
    BESIDE: tl.constexpr = 1 if APART else GROUPS
    beside = 0 if APART else group
    if APART:
        x_ptr = _tower(x_ptr, positions, group, H, W, EACH, SIZE, PAD)
        g_ptr += group * (positions * KERNELS)
    sums = tl.zeros((K, T), tl.float32)
    if MORE > 0:
        more_k = tl.program_id(0) // BLOCKS * (K + MORE) + K + tl.arange(0, MORE)
        more_sums = tl.zeros((MORE, T), tl.float32)
    first = tl.program_id(2) * length
    for start in range(first, tl.minimum(first + length, positions), P):
        p = start + tl.arange(0, P)
        x = _patches(x_ptr, p, t, positions, beside, H, W, EACH, BESIDE, SIZE, PAD)
        sums = _product(_gradients(g_ptr, p, k, positions, beside, KERNELS, BESIDE), x, sums)
        if MORE > 0:
            more_sums = _product(_gradients(g_ptr, p, more_k, positions, beside, KERNELS, BESIDE), x, more_sums)
    _write_sums(sums, sums_ptr, k, t, group, KERNELS, GROUPS, TERMS)
    if MORE > 0:
        _write_sums(more_sums, sums_ptr, more_k, t, group, KERNELS, GROUPS, TERMS)


# --- the passes -----------------------------------------------------------------------------------


def covers(maps: Tensor, weight: Tensor, padding: int, groups: int) -> bool:
    """Whether the kernels know the case; `maps` are x or y.

    float32 is left to the library unless tf32 is allowed: no tensor core has it.
    """
    tf32 = torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    known = maps.dtype == torch.bfloat16 or (maps.dtype == torch.float32 and tf32)
    size, (n, _, h, w) = weight.shape[-1], maps.shape
    largest = n * max(weight.shape[0], weight.shape[1] * groups) * (h + size) * (w + size)
    return known and weight.dtype == maps.dtype and padding < size and largest < 2**31


def forward(x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """(N, K, H', W') channels-last from x (N, C, H, W) and weight (K, C / groups, S, S); in all
    passes, all maps have their towers apart or none has."""
    return _launch(x, weight, padding, groups, backward=False)


def forward_relu(x: Tensor, weight: Tensor, bias: Tensor, padding: int, groups: int, planes: int) -> Tensor:
    """max(0, convolution + bias), bias (K,), rounded once and written in so many planes."""
    return _launch(x, weight, padding, groups, backward=False, bias=bias, planes=planes)


def data(g: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """Gradient of x from the gradient g of y: g, widened by what the padding left of a kernel's
    reach, convolved backwards."""
    return _launch(g, weight, weight.shape[-1] - 1 - padding, groups, backward=True)


def weight(g: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """Gradient of weight, (K, C / groups, S, S) channels-last, from the gradient g of y."""
    g, x = _channels_last(g, x)
    each, kernels, size = weight.shape[1], len(weight) // groups, weight.shape[-1]
    positions, terms = g.numel() // len(weight), size * size * each
    length = stretch(positions, kernels, terms, groups)
    stretches = triton.cdiv(positions, length)
    sums = torch.empty((stretches, len(weight), size, size, each), dtype=torch.float32, device=x.device)
    _weight_gradient[
        lambda tile: (triton.cdiv(kernels, tile["K"] + tile["MORE"]) * triton.cdiv(terms, tile["T"]), groups, stretches)
    ](
        g,
        x,
        sums,
        positions,
        length,
        H=x.shape[2],
        W=x.shape[3],
        EACH=each,
        KERNELS=kernels,
        GROUPS=groups,
        SIZE=size,
        PAD=padding,
        APART=x.shape[1] < groups * each,
        enable_fp_fusion=True,
    )
    return sums.sum(0).to(x.dtype).permute(0, 3, 1, 2)


def stretch(positions: int, kernels: int, terms: int, groups: int) -> int:
    """Positions that a program of the weights' gradient adds up, so that one wave of programs takes
    all: a second wave of a few would take as long as the first."""
    tiles = triton.cdiv(kernels, 128) * triton.cdiv(terms, 128) * groups
    return triton.cdiv(triton.cdiv(positions, max(1, PROGRAMS // tiles)), STRETCH) * STRETCH


def _channels_last(*tensors: Tensor) -> list[Tensor]:
    return [t.contiguous(memory_format=torch.channels_last) for t in tensors]


def _launch(
    x: Tensor, weight: Tensor, padding: int, groups: int, backward: bool, bias: Tensor | None = None, planes: int | None = None
) -> Tensor:
    """x convolved with the weight, which the way back reads in reverse; in `planes`, those of x if
    not said."""
    x, weight = _channels_last(x, weight)
    (_, _, h, w), size = x.shape, weight.shape[-1]
    each, kernels = weight.shape[1], len(weight) // groups
    if backward:
        each, kernels = kernels, each
    x_planes = groups * each // x.shape[1]
    planes = planes or x_planes
    shape = (len(x) // x_planes * planes, groups * kernels // planes, h + 2 * padding - size + 1, w + 2 * padding - size + 1)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    positions = y.numel() // (groups * kernels)
    _convolve[lambda tile: (triton.cdiv(positions, tile["P"]) * triton.cdiv(kernels, tile["K"] + tile["MORE"]), groups)](
        x,
        weight,
        bias,
        y,
        positions,
        H=h,
        W=w,
        EACH=each,
        KERNELS=kernels,
        GROUPS=groups,
        SIZE=size,
        PAD=padding,
        APART=x_planes > 1,
        Y_PLANES=planes,
        BACKWARD=backward,
        enable_fp_fusion=True,
    )
    return y
