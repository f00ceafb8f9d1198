"""Normalisation, fully connected layers, the 2012 code's spatial norm, pooling, augmentation,
dropout, loss and update, in PyTorch.

The specification of each is its formula; the way it is computed here is for a CPU's speed:

* `lrn` sums five shifted copies of the squares and takes d^-0.75 as r * sqrt(r) with r = 1 /
  sqrt(d), where `F.local_response_norm` runs a 3-d average pool and `pow`. Its backward is written
  out, works in place and keeps r, and both take a few pictures at a time, which stay in the cache.
  So it is fast uncompiled (conv1's maps, batch 64: 21 + 25 ms, at once 42 + 49). The compiler fuses
  each direction into one loop: 50 images/s at full size, 40 with autograd's backward of the same
  sum, 52 with no normalisation at all (docs/log.md).
* `linear` goes to oneDNN, the library of the convolutions, where PyTorch's own takes Intel's MKL,
  which uses half of what AMD's processors have.
* `augment` gathers the crop, mirrored or not, from the three planes of a record and does all
  arithmetic on the crop only.

`relu_lrn_pool`, `bias_relu`, `relu_dropout`, `cross_entropy_topk` and `sgd_step` say in a few lines
what the GPU does in one pass each.

N images, C channels, H x W positions, T tensors; S the side of a stored square, K of the crop, B
of the map of its blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from alexnet.kernels.blocks import picture_blocks
from alexnet.kernels.planes import apart, together

#: Types in which normalisation is computed in float32: in float16 the square of a number above 256
#: overflows, and in bfloat16 a small sum is lost when k = 2 is added.
NARROW = (torch.float16, torch.bfloat16)
#: Bytes of float32 maps that `lrn` processes at a time, so that a dozen passes find them in the
#: processor's cache: conv1's maps, batch 64, forward and backward, take 42 + 49 ms at once, 21 + 25
#: in fours. In twos 18 + 20, but beside other programs waking the threads so often costs more.
CACHED = 6 << 20


def lrn(x: Tensor, size: int, coefficient: float, beta: float, k: float, towers: int = 1) -> Tensor:
    """Local response normalisation: x / (k + coefficient * sum of x^2 over `size`
    neighbouring channels)^beta.

    Args:
        x: (N, C, H, W), float.
        size: channels in the window, odd; at the first and last channels of a
            tower the window is cut off.
        coefficient: factor on the plain sum (alpha / size in programs that divide).
        beta: exponent; 0.75 takes the fast path.
        k: constant added.
        towers: groups of channels whose windows end at the seam.

    Returns:
        (N, C, H, W), a new tensor.
    """
    if _followed(x):
        if x.dtype in NARROW:
            return lrn(x.float(), size, coefficient, beta, k, towers).to(x.dtype)
        return x * (k + coefficient * _window_sum(x * x, size, towers)).pow(-beta)
    y, _ = _LRNFunction.apply(x, size, coefficient, beta, k, towers)
    return y


def _followed(x: Tensor) -> bool:
    """Whether `torch.func` or forward mode watches the operations on x: every level of
    it must see all of them.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    return not torch.compiler.is_compiling() and forward_ad.unpack_dual(x).tangent is not None


def _window_sum(q: Tensor, size: int, towers: int) -> Tensor:
    """Sum over `size` neighbouring channels of the same tower; (N, C, H, W) to a new
    tensor of the same shape."""
    n, c, h, w = q.shape
    each, reach = c // towers, size // 2
    if towers > 1:  # channels last, as in memory, so that no copy changes the layout
        q = F.pad(q.permute(0, 2, 3, 1).reshape(n, h, w, towers, each), (reach, reach))
        total = q[..., :each].clone()
        for shift in range(1, size):
            total += q[..., shift : shift + each]
        return total.reshape(n, h, w, c).permute(0, 3, 1, 2)
    q = F.pad(q, (0, 0, 0, 0, reach, reach))
    total = q[:, :each].clone()
    for shift in range(1, size):
        total += q[:, shift : shift + each]
    return total


def _power(r: Tensor, beta: float) -> Tensor:
    """d^-beta from r = d^-1/2; a new tensor."""
    return r.sqrt().mul_(r) if beta == 0.75 else r.pow(2 * beta)


class _LRNFunction(torch.autograd.Function):
    """x to x p and r = d^-1/2, with d = k + coefficient window_sum(x^2) and p = d^-beta. r
    is for the backward only.

    dx = g p - 2 coefficient beta x window_sum(g x p / d); the window is its own transpose.
    Where the derivative of this is needed in turn, r is computed from x once more, by
    operations that autograd follows.
    """

    @staticmethod
    def forward(x: Tensor, size: int, coefficient: float, beta: float, k: float, towers: int) -> tuple[Tensor, Tensor]:
        y, r = torch.empty_like(x), torch.empty_like(x, dtype=_wide(x))
        for y_, r_, x_ in _parts(y, r, x):
            z = x_.to(r.dtype)
            r_.copy_(_window_sum(z * z, size, towers).mul_(coefficient).add_(k).rsqrt_())
            y_.copy_(_power(r_, beta).mul_(z))
        return y, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, *ctx.constants = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # for r it would be a tensor of zeros
        ctx.save_for_backward(x, output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: None) -> tuple[Tensor | None, None, None, None, None, None]:
        if g is None:
            return None, None, None, None, None, None
        x, r = ctx.saved_tensors
        size, coefficient, beta, _, towers = ctx.constants
        if not torch.compiler.is_compiling() and (torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(g)):
            # The compiler differentiates once only. With is_grads_batched, r lacks
            # a dimension that g has.
            dx = _lrn_gradient(x.to(r.dtype), g.to(r.dtype), *ctx.constants).to(x.dtype)
        else:
            dx = torch.empty_like(x)
            for dx_, x_, r_, g_ in _parts(dx, x, r, g):
                z, gp = x_.to(r.dtype), _power(r_, beta).mul_(g_)
                around = _window_sum((gp * z).mul_(r_).mul_(r_), size, towers)
                dx_.copy_(gp.addcmul_(around, z, value=-2 * coefficient * beta))
        return dx, None, None, None, None, None


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _parts(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape, split into runs of pictures of at most `CACHED` bytes; whole for the
    compiler, which fuses the passes.
    """
    bytes_each = maps[0][:1].numel() * 4
    count = len(maps[0]) if torch.compiler.is_compiling() else max(1, CACHED // max(1, bytes_each))
    return zip(*(one.split(max(1, count)) for one in maps), strict=True)


def _lrn_gradient(x: Tensor, g: Tensor, size: int, coefficient: float, beta: float, k: float, towers: int) -> Tensor:
    """`_LRNFunction.backward` from x alone, without writing in place: autograd can follow it."""
    d = k + coefficient * _window_sum(x * x, size, towers)
    gp = g * d.pow(-beta)
    return gp - 2 * coefficient * beta * x * _window_sum(gp * x / d, size, towers)


#: oneDNN's product beside MKL's; processors other than x86's have one library for both.
ONEDNN = torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
FEW = 16  # rows, below which reading the weight takes all the time


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A fully connected layer.

    With 64 rows and 4096 x 9216 weights, in GFLOP/s on two cores: MKL 162 forward, 127 and 168 for
    the gradients of x and weight; oneDNN 345, 287 and 419 (AMD EPYC, AVX-512). With AVX2 alone MKL
    is as fast as with AVX-512, and oneDNN's sum of the three is 1.1 to 1.3 times that.

    Args:
        x: (N, inputs) float.
        weight: (outputs, inputs).
        bias: (outputs,).

    Returns:
        (N, outputs).
    """
    ours = ONEDNN and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and len(x) >= FEW
    if not ours or torch.compiler.is_compiling() or torch.jit.is_tracing() or any(map(_followed, (x, weight, bias))):
        return F.linear(x, weight, bias)
    y: Tensor = _LinearFunction.apply(x, weight, bias)
    return y


class _LinearFunction(torch.autograd.Function):
    """y = x W' + b. Where the derivative of its gradient is needed in turn, autograd follows
    PyTorch's operations, as with `_LRNFunction`.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], _: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        followed = torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(g)
        product: Callable[[Tensor, Tensor], Tensor] = F.linear if followed else _product
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(g, weight.t()) if of_x else None,
            product(g.t(), x.t()) if of_weight else None,
            g.sum(0) if of_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W' + b by oneDNN."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def spatial_norm(x: Tensor, size: int, coefficient: float, beta: float, k: float) -> Tensor:
    """The 2012 code's `rnorm`: as `lrn`, with the sum over a size x size square of the same
    map, cut off at the border.

    Args and returns as in `lrn`. Only `code-2012` has it, after conv2.
    """
    if x.dtype in NARROW:
        return spatial_norm(x.float(), size, coefficient, beta, k).to(x.dtype)
    total = F.avg_pool2d(x * x, size, stride=1, padding=size // 2, divisor_override=1)
    return x * (k + coefficient * total).pow(-beta)


def max_pool(x: Tensor, size: int, stride: int) -> Tensor:
    """Largest value of each size x size window, one every `stride` positions, no padding:
    (N, C, H, W) to (N, C, H', W')."""
    return F.max_pool2d(x, size, stride)


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
    """What follows a convolution: its bias, and then ReLU, LRN and 3 x 3 / 2 max
    pooling in the variant's order.

    Args:
        x: (N, C, H, W), a convolution's output without bias, or the same with its towers apart
            (`planes.py`); at least float32 arithmetic is done on it.
        bias: (C,), float32.
        steps: "relu", "norm" and "pool", each at most once, as in a
            variant's block after its "conv".
        size, coefficient, beta, k, towers: as in `lrn`.
        planes: in how many the result is wanted.

    Returns:
        (N, C, H', W') in the type of x, or (planes * N, C / planes, H', W').
    """
    z = together(x, len(bias) // x.shape[1]) + bias[:, None, None]
    for step in steps:
        if step == "relu":
            z = F.relu(z)
        elif step == "norm":
            z = lrn(z, size, coefficient, beta, k, towers)
        else:
            z = max_pool(z, 3, 2)
    return apart(z.to(x.dtype), planes)


def bias_relu(x: Tensor, bias: Tensor, planes: int = 1) -> Tensor:
    """What follows a convolution that only a ReLU follows: max(0, x + bias) in the type of x.

    Args and returns as in `relu_lrn_pool`.
    """
    z = together(x, len(bias) // x.shape[1]) + bias[:, None, None]
    return apart(F.relu(z).to(x.dtype), planes)


def dropout(x: Tensor, rate: float, keys: Tensor, inverted: bool, first: int = 0) -> Tensor:
    """Dropout as in training: each unit is zeroed with probability `rate`, to 2^-32.

    Which ones is a function of the picture's key and the unit's number, so a picture loses the same
    units wherever it is in a batch, on a CPU and on a GPU.

    Args:
        x: (N, ...) float.
        rate: in [0, 1).
        keys: (N,) int32, random; another for every picture, layer and epoch.
        inverted: whether what stays is divided by 1 - rate.
        first: number of x's first unit in the layer, if x is a slice of it.

    Returns:
        A new tensor like x.
    """
    if rate == 0:
        return x.clone()
    stays = (_unit_bits(keys, x.shape[1:].numel(), first) >= drop_below(rate)).to(x.dtype)  # (N, units)
    return x * (stays.mul_(1 / (1 - rate)) if inverted else stays).view(x.shape)


def drop_below(rate: float) -> int:
    """A unit whose 32 bits, as a signed number, are below this is dropped."""
    return min(round(rate * 2**32), 2**32 - 1) - 2**31


def _unit_bits(keys: Tensor, units: int, first: int = 0) -> Tensor:
    """(N, units) int32, uniformly random: a mixture of each picture's key with each unit's number.

    A number that is mixed before it meets the key makes pairs of pictures that share a part of
    their bits as rare as chance does.
    """
    numbers = torch.arange(first, first + units, dtype=torch.int32, device=keys.device)
    return _mixed(keys[:, None] ^ _mixed(numbers))


def _mixed(bits: Tensor) -> Tensor:
    """One to one on 32 bits, each of which changes every other with probability 1/2: two rounds of
    a multiplication modulo 2^32, and each upper half into the lower one.
    """
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):  # found by C. Wellons' hash-prospector
        bits = (bits ^ (bits >> shift & (1 << 32 - shift) - 1)) * factor
    return bits ^ (bits >> 15 & 0x1FFFF)


def relu_dropout(x: Tensor, rate: float, keys: Tensor, inverted: bool) -> Tensor:
    """ReLU, then `dropout`, whose arguments and result these are."""
    return dropout(F.relu(x), rate, keys, inverted)


def cross_entropy_topk(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The loss, and how often the network was right.

    Args:
        logits: (N, classes) float.
        labels: (N,) int64 in [0, classes).
        smoothing: share of the target that is spread evenly over all classes.

    Returns:
        The mean softmax cross-entropy, a scalar of float32 at least; (2,) float32, in how many
        pictures the right class has the largest logit, and in how many one of the five largest. Of
        equal logits the first counts as larger.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    label = labels[:, None]
    right = logits.detach().gather(1, label)  # (N, 1)
    ahead = (logits > right) | ((logits == right) & (torch.arange(logits.shape[1], device=logits.device) < label))
    rank = ahead.sum(1, dtype=torch.float32).where(right[:, 0] == right[:, 0], torch.inf)  # NaN is never right
    return loss, torch.stack([(rank < k).sum(dtype=torch.float32) for k in (1, 5)])


@torch.no_grad()
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
    """The paper's update, in place: v <- momentum * v - decay * lr * w - lr * g; w <- w + v.

    With Nesterov's momentum, w <- w + momentum * v - decay * lr * w - lr * g, by
    the new v and the old w.

    Args:
        weights, velocities: T tensors each, float32.
        gradients: T tensors, float32 or bfloat16.
        copies: T tensors, bfloat16, that receive the new weights for the
            next forward pass; or none.
        lr: (T,) float32, the learning rate of each tensor, on their device.
        decays: T weight decays.
        momentum, nesterov: for all.
    """
    for t, (w, v, g) in enumerate(zip(weights, velocities, gradients, strict=True)):
        push = decays[t] * lr[t] * w + lr[t] * g.to(v.dtype)
        v.mul_(momentum).sub_(push)
        w.add_(momentum * v - push if nesterov else v)
        if copies:
            copies[t].copy_(w)


def yuv_to_rgb(y: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """JFIF's full-range YCbCr to RGB (ITU-R BT.601), clipped to [0, 255] and not rounded.

    Args:
        y, u, v: float tensors of one shape, in [0, 255].
    """
    u, v = u - 128.0, v - 128.0
    red = (y + 1.402 * v).clamp_(0, 255)
    green = (y - 0.344136286 * u - 0.714136286 * v).clamp_(0, 255)
    blue = (y + 1.772 * u).clamp_(0, 255)
    return red, green, blue


def augment(
    records: Tensor,
    top: Tensor,
    left: Tensor,
    mirror: Tensor,
    colour: Tensor,
    mean: Tensor,
    scale: Tensor,
    size: int,
    bgr: bool,
    index: Tensor | None = None,
    padding: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Crop, mirror, shift the colour of and normalise a batch of stored pictures
    (section 4.1 of the paper).

    out[n, c, i, j] = scale[c] * (rgb[n, c, y, x] + colour[n, c] - mean[c, y, x]) at y = top + i and
    x = left + j, or left + size - 1 - j where the picture is mirrored. Chroma is at half resolution
    and taken without interpolation.

    Args:
        records: (M, S * S * 3 / 2) uint8: planes Y (S, S), U and V
            (S / 2, S / 2) of full-range YCbCr.
        top, left: (N,) int64, the crop's corner.
        mirror: (N,) bool.
        colour: (N, 3) float32, added to R, G, B in [0, 255] after clipping.
        mean: (3, S, S) mean image or (3, 1, 1) mean colour, float32, RGB in [0, 255].
        scale: (3,) float32, RGB.
        size: K, side of the crop.
        bgr: order of the output's channels; everything else is RGB.
        index: (N,) int64, which records; None for all of them in order, N = M.
        padding: conv1's, for an output in its 4 x 4 blocks (see `blocks.py`); None for pictures.
        dtype: of the output; arithmetic is float32.

    Returns:
        (N, 3, K, K), or (N, 48, B, B) with `padding`.
    """
    if index is not None:
        records = records[index]
    n, length = records.shape
    side = stored_side(length)
    half, area = side // 2, side * side
    steps = torch.arange(size, device=records.device)
    rows = (top[:, None] + steps)[:, :, None]  # (N, K, 1)
    columns = (left[:, None] + torch.where(mirror[:, None], size - 1 - steps, steps))[:, None, :]  # (N, 1, K)

    luma = (rows * side + columns).flatten(1)  # (N, K * K)
    chroma = (rows // 2 * half + columns // 2).flatten(1) + area
    planes = [records.gather(1, index).float() for index in (luma, chroma, chroma + half * half)]
    rgb = yuv_to_rgb(*planes)

    whole_image = mean.shape[1] > 1
    out = records.new_empty((n, 3, size, size), dtype=torch.float32)
    for c in range(3):
        subtrahend = mean[c].reshape(-1)[luma] if whole_image else mean[c].reshape(1, 1)
        plane = (rgb[c] + colour[:, c, None] - subtrahend) * scale[c]
        out[:, 2 - c if bgr else c] = plane.view(n, size, size)
    return (picture_blocks(out, padding) if padding else out).to(dtype)


def stored_side(length: int) -> int:
    """S for a record of S * S * 3 / 2 bytes."""
    side = round((length / 1.5) ** 0.5)
    assert side * side * 3 == 2 * length, f"{length} bytes do not form a YUV 4:2:0 square"
    return side
