"""Bias, ReLU, local response normalisation and overlapping 3 x 3 / 2 max pooling in one pass
over a convolution's output.

With a = max(0, x + bias), d = k + coefficient * (sum of a^2 over five
channels) and r = 1 / sqrt(d):

    z = a * d^-0.75 = a * r * sqrt(r)       y = max of z over each window
    dx = d^-0.75 dz - 1.5 coefficient a * (sum over five channels of dz a d^-1.75)

What is saved for the way back is x, which the convolution wrote anyhow, and for each output one
byte: which of the nine taps won, or 9 for none. A window has no winner if its largest value is not
positive, whichever side of the pool the ReLU is on; so the byte is the ReLU's mask as well. The
ReLU's place shows only in a, which without a ReLU before it is x + bias. d is cheaper to compute
again than to read.

* Windows share inputs: nine taps an output are 2.25 an input. The forward kernel walks down the map
  and keeps the best of the last row for the next window, which leaves 1.5.
* It compares sign(a) a^2 r^3, the square of z, which needs one special-function call where z needs
  two, and takes the root of the winner. (Below |z| = 1e-19 the square is 0.)
* The backward kernel takes inputs in cells of 2 x 2, which touch four windows: nine comparisons for
  four inputs, no atomics.
* A thread holds eight neighbouring channels, 16 bytes, and gets the two beyond each end from the
  threads beside it by shuffles, without shared memory (`_window_sum`). A tower is a program of its
  own, so no window crosses the seam.
* x and y may each have the towers of their convolutions apart, in planes of memory; eight
  neighbouring channels are neighbours there too, and windows cross planes as the norm's towers say.

Bytes per image, bfloat16, block 1 (55 x 55 x 96 to 27 x 27 x 96): forward reads 580,800 and
writes 139,968 + 69,984; backward reads as much and writes 580,800. The bias's gradient falls out
of the same pass as one partial sum per program, added up afterwards in a fixed order. The number
of programs does not depend on the tile's size: each takes every so many tiles, and writes its
sum, if only of nothing.

Compiled for compute capability 9.0 the kernels issue 40 and 49 instructions per input of block 1 (a
quarter of them for the 32 of 128 channels in a tile that do not exist) and 30 and 37 of block 2, so
that there instructions weigh more than bytes: at 132 multiprocessors, 128 a clock and 1.98 GHz,
0.35 and 0.42 us for block 1, 0.17 and 0.20 for block 2 (predictions).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet.kernels import reference
from alexnet.kernels.gpu.planes import new_maps, place
from alexnet.kernels.gpu.tiles import octave, tuned
from alexnet.kernels.planes import apart

RELU_FIRST = {("relu", "norm", "pool"): True, ("norm", "pool", "relu"): False, ("relu", "pool"): True, ("pool", "relu"): False}
# Tiles of eight channels a thread, with which the backward kernel already takes 128 registers a
# thread. Output rows that a program of the forward kernel walks down: 27 = 7 + 7 + 7 + 6, 13 = 7 +
# 6; more rows make it read fewer inputs twice, fewer make more programs.
FORWARD = [
    triton.Config({"ELEMENTS": 256 * warps, "ROWS": rows}, num_warps=warps)
    for warps, rows in ((4, 7), (4, 4), (4, 14), (2, 7), (2, 14), (8, 7))
]
BACKWARD = [triton.Config({"ELEMENTS": 256 * warps}, num_warps=warps) for warps in (4, 2, 1, 8)]
SMALLEST_ELEMENTS = 256
# Programs of the backward kernel for each tower, at most: fifteen for each of an H200's 132
# multiprocessors, whose registers are enough for four of four warps at a time.
PROGRAMS = 2048


@triton.constexpr_function
def _positions(elements, c):
    """P: positions in a tile of `elements` with C channels."""
    return max(1, elements // c)


# --- the sum over five channels -------------------------------------------------------------------


@triton.jit
def _beside(t, P: tl.constexpr, G: tl.constexpr, STEP: tl.constexpr):
    """What the thread `STEP` groups of channels further holds: t[:, g + STEP], and 0
    beyond the ends; (P, G)."""
    g = tl.arange(0, G)[None, :] + tl.zeros((P, 1), tl.int32) + STEP
    return tl.where((g >= 0) & (g < G), tl.gather(t, g & (G - 1), 1), 0.0)


@triton.jit
def _window_sum(t, P: tl.constexpr, C: tl.constexpr):
    """Sum over each channel and the two on either side, for groups of eight
    channels in a thread; (P, C).

    `split` takes the last axis apart, the lowest bit of the channel first: t04 holds
    channels 0 and 4 of each group.
    """
    G: tl.constexpr = C // 8
    even, odd = tl.split(tl.reshape(t, (P, G, 2, 2, 2)))
    t04, t26 = tl.split(even)
    t15, t37 = tl.split(odd)
    t0, t4 = tl.split(t04)
    t1, t5 = tl.split(t15)
    t2, t6 = tl.split(t26)
    t3, t7 = tl.split(t37)
    before6, before7 = _beside(t6, P, G, -1), _beside(t7, P, G, -1)
    after0, after1 = _beside(t0, P, G, 1), _beside(t1, P, G, 1)
    t01, t23, t45, t67 = t0 + t1, t2 + t3, t4 + t5, t6 + t7
    s04 = tl.join(before6 + before7 + t01 + t2, t23 + t45 + t6)
    s15 = tl.join(before7 + t01 + t23, t3 + t45 + t67)
    s26 = tl.join(t01 + t23 + t4, t45 + t67 + after0)
    s37 = tl.join(t1 + t23 + t45, t5 + t67 + after0 + after1)
    return tl.reshape(tl.join(tl.join(s04, s26), tl.join(s15, s37)), (P, C))


@triton.jit
def _activation(x_ptr, at, mask, bias, RELU_FIRST: tl.constexpr):
    a = tl.load(x_ptr + at, mask=mask, other=0).to(tl.float32) + bias
    return tl.maximum(a, 0.0, propagate_nan=tl.PropagateNan.ALL) if RELU_FIRST else a


# --- forward --------------------------------------------------------------------------------------


@triton.jit
def _better(best, tap, value, at):
    """The larger of two values, or NaN, and its place; the first of equals, as in PyTorch."""
    return tl.maximum(best, value, propagate_nan=tl.PropagateNan.ALL), tl.where(value > best, at, tap)


@triton.jit
def _key(x_ptr, at, mask, bias, coefficient, k, P: tl.constexpr, C: tl.constexpr, RELU_FIRST: tl.constexpr, NORM: tl.constexpr):
    """What is pooled: the activation, or the square of its normalised value, with its sign;
    (P, C)."""
    a = _activation(x_ptr, at, mask, bias, RELU_FIRST)
    if NORM:
        square = a * a
        r = tl.rsqrt(k + coefficient * _window_sum(square, P, C))
        a = (square if RELU_FIRST else a * tl.abs(a)) * (r * r * r)
    return a


@triton.jit
def _best_of_row(
    x_ptr,
    at,
    mask,
    bias,
    coefficient,
    k,
    STEP: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
    RELU_FIRST: tl.constexpr,
    NORM: tl.constexpr,
):
    """The best of three columns, `STEP` numbers apart, and which of them it is."""
    best = _key(x_ptr, at, mask, bias, coefficient, k, P, C, RELU_FIRST, NORM)
    tap = tl.zeros((P, C), tl.int32)
    for column in tl.static_range(1, 3):
        key = _key(x_ptr, at + column * STEP, mask, bias, coefficient, k, P, C, RELU_FIRST, NORM)
        best, tap = _better(best, tap, key, column)
    return best, tap


@tuned(FORWARD, key=["H", "W", "EACH", "TOWERS", "RELU_FIRST", "NORM", "octave"])
@triton.jit
def _forward(
    x_ptr,  # (X_PLANES, N, H, W, ALL / X_PLANES)
    bias_ptr,  # (ALL,), which is TOWERS * EACH
    y_ptr,  # (Y_PLANES, N, OH, OW, ALL / Y_PLANES)
    winner_ptr,  # the same, uint8
    columns,  # N * OW
    H,
    W,
    OH,
    OW,
    coefficient,
    k,
    octave,
    EACH: tl.constexpr,
    TOWERS: tl.constexpr,
    X_PLANES: tl.constexpr,
    Y_PLANES: tl.constexpr,
    C: tl.constexpr,
    RELU_FIRST: tl.constexpr,
    NORM: tl.constexpr,
    ELEMENTS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """A program: P columns of the output (over all images), one tower's
    channels, ROWS rows downwards."""
    P: tl.constexpr = _positions(ELEMENTS, C)
    column = tl.program_id(0) * P + tl.arange(0, P)
    n, j = (column // OW)[:, None], (column % OW)[:, None]
    c = tl.arange(0, C)[None, :]
    channel = tl.program_id(1) * EACH + c
    mask = (column < columns)[:, None] & (c < EACH)
    bias = tl.load(bias_ptr + channel, mask=c < EACH, other=0).to(tl.float32)
    X_WIDTH: tl.constexpr = TOWERS * EACH // X_PLANES
    Y_WIDTH: tl.constexpr = TOWERS * EACH // Y_PLANES

    first = tl.program_id(2) * ROWS
    x_at = ((n * H + 2 * first) * W + 2 * j) * X_WIDTH + place(channel, columns // OW * H * W, X_WIDTH, X_PLANES)
    y_at = ((n * OH + first) * OW + j) * Y_WIDTH + place(channel, columns * OH, Y_WIDTH, Y_PLANES)
    top, top_tap = _best_of_row(x_ptr, x_at, mask, bias, coefficient, k, X_WIDTH, P, C, RELU_FIRST, NORM)
    for _ in range(first, tl.minimum(first + ROWS, OH)):
        row = x_at + W * X_WIDTH
        middle, middle_tap = _best_of_row(x_ptr, row, mask, bias, coefficient, k, X_WIDTH, P, C, RELU_FIRST, NORM)
        row += W * X_WIDTH
        low, low_tap = _best_of_row(x_ptr, row, mask, bias, coefficient, k, X_WIDTH, P, C, RELU_FIRST, NORM)
        best, tap = _better(top, top_tap, middle, middle_tap + 3)
        best, tap = _better(best, tap, low, low_tap + 6)
        tap = tl.where(best <= 0, 9, tap)
        best = tl.maximum(best, 0.0, propagate_nan=tl.PropagateNan.ALL)
        y = tl.sqrt(best) if NORM else best
        tl.store(y_ptr + y_at, y.to(y_ptr.dtype.element_ty), mask=mask)
        tl.store(winner_ptr + y_at, tap.to(tl.uint8), mask=mask)
        top, top_tap = low, low_tap
        x_at += 2 * W * X_WIDTH
        y_at += OW * Y_WIDTH


# --- backward -------------------------------------------------------------------------------------


@triton.jit
def _window(g_ptr, winner_ptr, at, mask):
    """A window's gradient and its winner."""
    return tl.load(g_ptr + at, mask=mask, other=0).to(tl.float32), tl.load(winner_ptr + at, mask=mask, other=9)


@triton.jit
def _through_norm(
    dz,
    x_ptr,
    dx_ptr,
    at,
    mask,
    bias,
    coefficient,
    k,
    P: tl.constexpr,
    C: tl.constexpr,
    RELU_FIRST: tl.constexpr,
    NORM: tl.constexpr,
):
    """Gradient of x at one position of each cell, stored and returned; 0, as dz
    is, where mask is False."""
    dx = dz
    if NORM:
        a = _activation(x_ptr, at, mask, bias, RELU_FIRST)
        r = tl.rsqrt(k + coefficient * _window_sum(a * a, P, C))
        dx = dz * (r * tl.sqrt(r))
        dx -= (1.5 * coefficient) * a * _window_sum(dx * a * (r * r), P, C)
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
    return dx


@tuned(BACKWARD, key=["H", "W", "EACH", "TOWERS", "RELU_FIRST", "NORM", "octave"])
@triton.jit
def _backward(
    g_ptr,  # (Y_PLANES, N, OH, OW, ALL / Y_PLANES)
    winner_ptr,  # the same, uint8
    x_ptr,  # (X_PLANES, N, H, W, ALL / X_PLANES)
    bias_ptr,  # (ALL,), which is TOWERS * EACH
    dx_ptr,  # as x
    dbias_ptr,  # (programs, ALL) float32
    cells,  # N * ceil(H / 2) * ceil(W / 2)
    H,
    W,
    OH,
    OW,
    coefficient,
    k,
    octave,
    EACH: tl.constexpr,
    TOWERS: tl.constexpr,
    X_PLANES: tl.constexpr,
    Y_PLANES: tl.constexpr,
    C: tl.constexpr,
    RELU_FIRST: tl.constexpr,
    NORM: tl.constexpr,
    ELEMENTS: tl.constexpr,
):
    """A program: every so many tiles of P cells, one tower's channels; it may be
    that there is none for it.

    Cell (i, j) is rows 2i and 2i + 1, columns 2j and 2j + 1. Window (i, j) has them as taps 0, 1,
    3, 4; the window above, with row 2i as its last, as taps 6, 7; the one to the left as 2, 5;
    the one above that as 8.
    """
    P: tl.constexpr = _positions(ELEMENTS, C)
    c = tl.arange(0, C)[None, :]
    channel = tl.program_id(1) * EACH + c
    bias = tl.load(bias_ptr + channel, mask=c < EACH, other=0).to(tl.float32)
    ALL: tl.constexpr = TOWERS * EACH
    X_WIDTH: tl.constexpr = ALL // X_PLANES
    Y_WIDTH: tl.constexpr = ALL // Y_PLANES
    height, width = (H + 1) // 2, (W + 1) // 2
    pictures = cells // (height * width)
    x_place = place(channel, pictures * H * W, X_WIDTH, X_PLANES)
    y_place = place(channel, pictures * OH * OW, Y_WIDTH, Y_PLANES)
    dbias = tl.zeros((P, C), tl.float32)
    for start in range(tl.program_id(0) * P, cells, tl.num_programs(0) * P):
        cell = start + tl.arange(0, P)
        live = (cell < cells)[:, None] & (c < EACH)
        n, i, j = (cell // width // height)[:, None], (cell // width % height)[:, None], (cell % width)[:, None]

        at = ((n * OH + i) * OW + j) * Y_WIDTH + y_place
        here, here_won = _window(g_ptr, winner_ptr, at, live & (i < OH) & (j < OW))
        above, above_won = _window(g_ptr, winner_ptr, at - OW * Y_WIDTH, live & (i > 0) & (j < OW))
        left, left_won = _window(g_ptr, winner_ptr, at - Y_WIDTH, live & (i < OH) & (j > 0))
        corner, corner_won = _window(g_ptr, winner_ptr, at - OW * Y_WIDTH - Y_WIDTH, live & (i > 0) & (j > 0))
        dz00 = tl.where(here_won == 0, here, 0.0) + tl.where(above_won == 6, above, 0.0)
        dz00 += tl.where(left_won == 2, left, 0.0) + tl.where(corner_won == 8, corner, 0.0)
        dz01 = tl.where(here_won == 1, here, 0.0) + tl.where(above_won == 7, above, 0.0)
        dz10 = tl.where(here_won == 3, here, 0.0) + tl.where(left_won == 5, left, 0.0)
        dz11 = tl.where(here_won == 4, here, 0.0)

        at = ((n * H + 2 * i) * W + 2 * j) * X_WIDTH + x_place
        right, below = live & (2 * j + 1 < W), live & (2 * i + 1 < H)
        dbias += _through_norm(dz00, x_ptr, dx_ptr, at, live, bias, coefficient, k, P, C, RELU_FIRST, NORM)
        dbias += _through_norm(dz01, x_ptr, dx_ptr, at + X_WIDTH, right, bias, coefficient, k, P, C, RELU_FIRST, NORM)
        at += W * X_WIDTH
        dbias += _through_norm(dz10, x_ptr, dx_ptr, at, below, bias, coefficient, k, P, C, RELU_FIRST, NORM)
        at += X_WIDTH
        dbias += _through_norm(dz11, x_ptr, dx_ptr, at, below & right, bias, coefficient, k, P, C, RELU_FIRST, NORM)
    tl.store(dbias_ptr + tl.program_id(0) * ALL + channel, tl.sum(dbias, 0)[None, :], mask=c < EACH)


# --- the operators --------------------------------------------------------------------------------


def _padded(channels: int) -> int:
    """C: channels of a tile, a power of two."""
    return max(8, triton.next_power_of_2(channels))


def _pooled(x: Tensor, channels: int, planes: int) -> tuple[Tensor, Tensor]:
    """Memory for y and winner."""
    height, width = ((side - 3) // 2 + 1 for side in x.shape[2:])
    return new_maps(x, channels, planes, height, width), new_maps(x, channels, planes, height, width, torch.uint8)


@torch.library.custom_op("alexnet::relu_lrn_pool", mutates_args=())
def relu_lrn_pool_forward(
    x: Tensor, bias: Tensor, relu_first: bool, norm: bool, coefficient: float, k: float, towers: int, planes: int
) -> tuple[Tensor, Tensor]:
    """(y, winner), both (N, C, H', W') channels-last, in planes; winner is uint8: the
    tap 0 ... 8, or 9 for none."""
    x, channels = x.contiguous(memory_format=torch.channels_last), len(bias)
    y, winner = _pooled(x, channels, planes)
    (h, w), (oh, ow) = x.shape[2:], y.shape[2:]
    n = len(y) // planes
    c = _padded(channels // towers)
    _forward[lambda meta: (triton.cdiv(n * ow, _positions(meta["ELEMENTS"], c)), towers, triton.cdiv(oh, meta["ROWS"]))](
        x,
        bias,
        y,
        winner,
        n * ow,
        h,
        w,
        oh,
        ow,
        coefficient,
        k,
        octave(x.numel()),
        EACH=channels // towers,
        TOWERS=towers,
        X_PLANES=channels // x.shape[1],
        Y_PLANES=planes,
        C=c,
        RELU_FIRST=relu_first,
        NORM=norm,
        enable_fp_fusion=True,
    )
    return y, winner


@relu_lrn_pool_forward.register_fake
def _(
    x: Tensor, bias: Tensor, relu_first: bool, norm: bool, coefficient: float, k: float, towers: int, planes: int
) -> tuple[Tensor, Tensor]:
    return _pooled(x, len(bias), planes)


@torch.library.custom_op("alexnet::relu_lrn_pool_backward", mutates_args=())
def relu_lrn_pool_backward(
    g: Tensor, winner: Tensor, x: Tensor, bias: Tensor, relu_first: bool, norm: bool, coefficient: float, k: float, towers: int
) -> tuple[Tensor, Tensor]:
    """(dx, dbias) from the gradient g of y."""
    g, winner, x = (t.contiguous(memory_format=torch.channels_last) for t in (g, winner, x))
    (h, w), (oh, ow), channels = x.shape[2:], g.shape[2:], len(bias)
    n = x.numel() // (channels * h * w)
    c = _padded(channels // towers)
    cells = n * triton.cdiv(h, 2) * triton.cdiv(w, 2)
    programs = min(triton.cdiv(cells, _positions(SMALLEST_ELEMENTS, c)), PROGRAMS)
    dx, dbias = torch.empty_like(x), torch.empty((programs, channels), dtype=torch.float32, device=x.device)
    _backward[programs, towers](
        g,
        winner,
        x,
        bias,
        dx,
        dbias,
        cells,
        h,
        w,
        oh,
        ow,
        coefficient,
        k,
        octave(x.numel()),
        EACH=channels // towers,
        TOWERS=towers,
        X_PLANES=channels // x.shape[1],
        Y_PLANES=channels // g.shape[1],
        C=c,
        RELU_FIRST=relu_first,
        NORM=norm,
        enable_fp_fusion=True,
    )
    return dx, dbias.sum(0).to(bias.dtype)


@relu_lrn_pool_backward.register_fake
def _(
    g: Tensor, winner: Tensor, x: Tensor, bias: Tensor, relu_first: bool, norm: bool, coefficient: float, k: float, towers: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.channels_last), torch.empty_like(bias)


def _save(ctx, inputs, output):
    x, bias, *ctx.constants, _ = inputs
    ctx.save_for_backward(output[1], x, bias)
    ctx.set_materialize_grads(False)  # of the winners it would be a tensor of zeros


def _gradient(ctx, g, _):
    if g is None:
        return (None,) * 8
    dx, dbias = relu_lrn_pool_backward(g, *ctx.saved_tensors, *ctx.constants)
    return dx, dbias, None, None, None, None, None, None


relu_lrn_pool_forward.register_autograd(_gradient, setup_context=_save)


def relu_lrn_pool(
    x: Tensor,
    bias: Tensor,
    steps: tuple[str, ...],
    size: int,
    coefficient: float,
    beta: float,
    k: float,
    towers: int = 1,
    planes: int = 1,
) -> Tensor:
    """As `reference.relu_lrn_pool`; the output is channels-last."""
    arguments = size, coefficient, beta, k, towers
    if steps == ("relu", "pool", "norm"):  # a second pass, over a quarter of the numbers
        pooled = relu_lrn_pool(x, bias, ("relu", "pool"), *arguments)
        return apart(reference.lrn(pooled.float(), *arguments).to(x.dtype, memory_format=torch.channels_last), planes)
    covered = steps in RELU_FIRST and (size, beta) == (5, 0.75) and x.dtype in (torch.float32, torch.bfloat16)
    if not covered or x.numel() >= 2**31:
        return reference.relu_lrn_pool(x, bias, steps, *arguments, planes)
    return relu_lrn_pool_forward(x, bias, RELU_FIRST[steps], "norm" in steps, coefficient, k, towers, planes)[0]
