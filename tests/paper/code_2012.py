"""The network that won in 2012, written out once more in plain NumPy: the executable
specification of `code-2012`.

It is written from the facts about the source of 2012 (`layers-145.cfg`) and shares no line with the
package: float64, no PyTorch, and a backward by hand. `test_code_2012.py` holds the PyTorch network
to it. Read it from top to bottom: what a window is, then each layer with its gradient below it,
then `forward`, the whole network, and `backward`, the same lines in reverse.

Where it departs from the paper's text:

* the picture gets no zeros at the left and the top and 3 at the right and the bottom
  (output sizes were rounded up);
* block 1 is conv, LRN, pool, ReLU; block 5 is conv, pool, ReLU;
* the window of the local response normalisation (LRN) ends at the seam between the two towers
  (each lived on one GPU), and its alpha of 1e-4 is divided by the five maps of the window;
* a second normalisation, over 5 x 5 positions of one map, follows the LRN of block 2.

Letters: N pictures, C maps going in, K maps coming out (kernels), H x W positions, F x F a window
with its own positions I, J. A gradient is named d...: dy comes from the layer above and has y's
shape, dx goes to the layer below.
"""

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Kept = NDArray[np.bool_] | float  # what dropout keeps: in training a mask (N, units), true where a unit stays; at test a share

TOWERS = 2
POOL_SIZE, POOL_STRIDE = 3, 2
LRN_MAPS, LRN_COEFFICIENT, LRN_POWER, LRN_K = 5, 1e-4 / 5, 0.75, 2.0
RNORM_SIDE, RNORM_COEFFICIENT, RNORM_POWER, RNORM_K = 5, 1e-3 / 25, 0.75, 1.0
AT_TEST: Mapping[str, Kept] = {"drop6": 0.5, "drop7": 0.5}


# Windows. A convolution and a pooling look at a picture through F x F windows, one
# every `stride` positions.


def windows(x: Array, size: int, stride: int) -> Array:
    """(N, C, H, W) -> (N, C, H', W', F, F): what each window sees, as a view that copies
    nothing.
    """
    return sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def windows_backward(dy: Array, side: int, stride: int) -> Array:
    """(N, C, H', W', F, F) -> (N, C, side, side): each position adds up what it receives from
    all windows that see it.
    """
    n, c, h, w, size, _ = dy.shape
    dx = np.zeros((n, c, side, side))
    for i in range(size):
        for j in range(size):
            dx[:, :, i : i + stride * h : stride, j : j + stride * w : stride] += dy[..., i, j]
    return dx


def pad(x: Array, before: int, after: int) -> Array:
    """Zeros around each map: `before` at the left and the top, `after` at the right and the
    bottom.
    """
    return np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))


# Convolution: y[n, k, h, w] = bias[k] + sum over c, i, j of x[n, c, stride h + i, stride w +
# j] weight[k, c, i, j].


def conv(x: Array, weight: Array, bias: Array, stride: int = 1, padding: tuple[int, int] = (0, 0)) -> Array:
    """(N, C, H, W) with (K, C, F, F) and (K,) -> (N, K, H', W')."""
    seen = windows(pad(x, *padding), weight.shape[-1], stride)
    return np.einsum("nchwij,kcij->nkhw", seen, weight, optimize=True) + bias[:, None, None]


def conv_backward(
    dy: Array, x: Array, weight: Array, stride: int = 1, padding: tuple[int, int] = (0, 0)
) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias. A weight meets every position, an input every window that sees it:
    both gradients are sums.
    """
    (before, after), side = padding, x.shape[-1]
    seen = windows(pad(x, before, after), weight.shape[-1], stride)
    dweight = np.einsum("nkhw,nchwij->kcij", dy, seen, optimize=True)
    dseen = np.einsum("nkhw,kcij->nchwij", dy, weight, optimize=True)
    dpadded = windows_backward(dseen, before + side + after, stride)
    return dpadded[:, :, before : before + side, before : before + side], dweight, dy.sum((0, 2, 3))


# The two towers: the first half of the kernels sees the first half of the maps, the
# second half the second.


def tower_conv(x: Array, weight: Array, bias: Array, padding: tuple[int, int]) -> Array:
    """(N, C, H, W) with (K, C / 2, F, F) and (K,) -> (N, K, H', W')."""
    halves = zip(np.split(x, TOWERS, axis=1), np.split(weight, TOWERS), np.split(bias, TOWERS), strict=True)
    return np.concatenate([conv(*half, padding=padding) for half in halves], axis=1)


def tower_conv_backward(dy: Array, x: Array, weight: Array, padding: tuple[int, int]) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias."""
    halves = zip(np.split(dy, TOWERS, axis=1), np.split(x, TOWERS, axis=1), np.split(weight, TOWERS), strict=True)
    dx, dweight, dbias = zip(*(conv_backward(*half, padding=padding) for half in halves), strict=True)
    return np.concatenate(dx, axis=1), np.concatenate(dweight), np.concatenate(dbias)


# Normalisation: y = x / (k + coefficient * (sum of x^2 over the neighbours)) ^ power.
# Who is whose neighbour is a matrix of zeros and ones, so that the sum is a product with it.


def neighbours(count: int, window: int, groups: int = 1) -> Array:
    """(count, count): 1 where j lies in the window around i and in i's group. Windows
    are cut off at both ends.
    """
    i, j = np.arange(count)[:, None], np.arange(count)[None, :]
    each = count // groups
    return ((abs(i - j) <= window // 2) & (i // each == j // each)).astype(np.float64)


def sum_across_maps(q: Array) -> Array:
    """Sum over 5 neighbouring maps of the same tower."""
    return np.einsum("cd,ndhw->nchw", neighbours(q.shape[1], LRN_MAPS, TOWERS), q, optimize=True)


def sum_within_map(q: Array) -> Array:
    """Sum over the 5 x 5 positions around each position of the same map."""
    return neighbours(q.shape[2], RNORM_SIDE) @ q @ neighbours(q.shape[3], RNORM_SIDE)


def lrn(x: Array) -> Array:
    """Local response normalisation, across maps."""
    return x * (LRN_K + LRN_COEFFICIENT * sum_across_maps(x**2)) ** -LRN_POWER


def lrn_backward(dy: Array, x: Array) -> Array:
    """x acts on its own y directly and on all its neighbours' through their denominators; being
    neighbours is mutual.
    """
    base = LRN_K + LRN_COEFFICIENT * sum_across_maps(x**2)
    from_neighbours = sum_across_maps(dy * x * base ** (-LRN_POWER - 1))
    return dy * base**-LRN_POWER - 2 * LRN_COEFFICIENT * LRN_POWER * x * from_neighbours


def rnorm(x: Array) -> Array:
    """The spatial norm, within one map. It is not in the paper."""
    return x * (RNORM_K + RNORM_COEFFICIENT * sum_within_map(x**2)) ** -RNORM_POWER


def rnorm_backward(dy: Array, x: Array) -> Array:
    """As `lrn_backward`, with other neighbours."""
    base = RNORM_K + RNORM_COEFFICIENT * sum_within_map(x**2)
    from_neighbours = sum_within_map(dy * x * base ** (-RNORM_POWER - 1))
    return dy * base**-RNORM_POWER - 2 * RNORM_COEFFICIENT * RNORM_POWER * x * from_neighbours


# The layers without parameters.


def max_pool(x: Array) -> Array:
    """The largest value of each 3 x 3 window; the windows stand 2 apart and overlap."""
    return windows(x, POOL_SIZE, POOL_STRIDE).max((4, 5))


def max_pool_backward(dy: Array, x: Array) -> Array:
    """The gradient goes to where the largest value was. Two equal largest values would both get
    it: the tests have none.
    """
    largest = windows(x, POOL_SIZE, POOL_STRIDE) == max_pool(x)[..., None, None]
    return windows_backward(dy[..., None, None] * largest, x.shape[-1], POOL_STRIDE)


def relu(x: Array) -> Array:
    """max(0, x)."""
    return np.maximum(x, 0)


def relu_backward(dy: Array, x: Array) -> Array:
    """The gradient passes where x did."""
    return dy * (x > 0)


def dropout(x: Array, kept: Kept) -> Array:
    """In training some units are zeroed and the others left as they are; at
    test all are halved instead.
    """
    return x * kept


def dropout_backward(dy: Array, kept: Kept) -> Array:
    """One factor a unit, in both directions."""
    return dy * kept


def linear(x: Array, weight: Array, bias: Array) -> Array:
    """(N, inputs) with (units, inputs) and (units,) -> (N, units)."""
    return x @ weight.T + bias


def linear_backward(dy: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias."""
    return dy @ weight, dy.T @ x, dy.sum(0)


def flatten(x: Array) -> Array:
    """(N, C, H, W) -> (N, C * H * W), read in the order C, H, W."""
    return x.reshape(len(x), -1)


# Softmax and cross-entropy: loss = mean over pictures of -log p[label], p =
# exp(logits) / sum of exp(logits).


def log_softmax(logits: Array) -> Array:
    """(N, classes) -> (N, classes). Subtracting the largest first keeps exp within
    range and changes nothing.
    """
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def cross_entropy(logits: Array, labels: Labels) -> float:
    """(N, classes) with (N,) -> the mean loss."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def cross_entropy_backward(logits: Array, labels: Labels) -> Array:
    """What the net believes minus what is so, divided by N."""
    truth = np.eye(logits.shape[1])[labels]
    return (np.exp(log_softmax(logits)) - truth) / len(labels)


# The network.


def forward(picture: Array, p: Mapping[str, Array], kept: Mapping[str, Kept] = AT_TEST) -> dict[str, Array]:
    """Every layer's output by name, in order; the last is fc8, the logits.

    Args:
        picture: (N, 3, H, H), pixels in [0, 255] minus their mean, RGB.
        p: conv1.weight (K, C, F, F), conv1.bias (K,), ..., fc8.weight
            (classes, units), fc8.bias (classes,).
        kept: masks for drop6 and drop7, in training.
    """
    y: dict[str, Array] = {}  # shapes at full size in the comments, without N
    y["conv1"] = conv(picture, p["conv1.weight"], p["conv1.bias"], stride=4, padding=(0, 3))  # (96, 55, 55)
    y["norm1"] = lrn(y["conv1"])
    y["pool1"] = max_pool(y["norm1"])  # (96, 27, 27)
    y["relu1"] = relu(y["pool1"])

    y["conv2"] = tower_conv(y["relu1"], p["conv2.weight"], p["conv2.bias"], padding=(2, 2))  # (256, 27, 27)
    y["relu2"] = relu(y["conv2"])
    y["norm2"] = lrn(y["relu2"])
    y["rnorm2"] = rnorm(y["norm2"])
    y["pool2"] = max_pool(y["rnorm2"])  # (256, 13, 13)

    y["conv3"] = conv(y["pool2"], p["conv3.weight"], p["conv3.bias"], padding=(1, 1))  # (384, 13, 13), sees both towers
    y["relu3"] = relu(y["conv3"])

    y["conv4"] = tower_conv(y["relu3"], p["conv4.weight"], p["conv4.bias"], padding=(1, 1))  # (384, 13, 13)
    y["relu4"] = relu(y["conv4"])

    y["conv5"] = tower_conv(y["relu4"], p["conv5.weight"], p["conv5.bias"], padding=(1, 1))  # (256, 13, 13)
    y["pool5"] = max_pool(y["conv5"])  # (256, 6, 6)
    y["relu5"] = relu(y["pool5"])

    y["fc6"] = linear(flatten(y["relu5"]), p["fc6.weight"], p["fc6.bias"])  # (4096,)
    y["relu6"] = relu(y["fc6"])
    y["drop6"] = dropout(y["relu6"], kept["drop6"])

    y["fc7"] = linear(y["drop6"], p["fc7.weight"], p["fc7.bias"])  # (4096,)
    y["relu7"] = relu(y["fc7"])
    y["drop7"] = dropout(y["relu7"], kept["drop7"])

    y["fc8"] = linear(y["drop7"], p["fc8.weight"], p["fc8.bias"])  # (1000,)
    return y


def backward(
    picture: Array, p: Mapping[str, Array], y: Mapping[str, Array], labels: Labels, kept: Mapping[str, Kept] = AT_TEST
) -> dict[str, Array]:
    """The gradient of the mean cross-entropy for every parameter, by its name, and for
    the input, as "picture".

    `y` is what `forward` gave for the same picture, parameters and `kept`. Each line undoes one
    line of `forward`, last first; d is the gradient on its way down.
    """
    g: dict[str, Array] = {}
    d = cross_entropy_backward(y["fc8"], labels)
    d, g["fc8.weight"], g["fc8.bias"] = linear_backward(d, y["drop7"], p["fc8.weight"])

    d = dropout_backward(d, kept["drop7"])
    d = relu_backward(d, y["fc7"])
    d, g["fc7.weight"], g["fc7.bias"] = linear_backward(d, y["drop6"], p["fc7.weight"])

    d = dropout_backward(d, kept["drop6"])
    d = relu_backward(d, y["fc6"])
    d, g["fc6.weight"], g["fc6.bias"] = linear_backward(d, flatten(y["relu5"]), p["fc6.weight"])

    d = relu_backward(d.reshape(y["pool5"].shape), y["pool5"])
    d = max_pool_backward(d, y["conv5"])
    d, g["conv5.weight"], g["conv5.bias"] = tower_conv_backward(d, y["relu4"], p["conv5.weight"], padding=(1, 1))

    d = relu_backward(d, y["conv4"])
    d, g["conv4.weight"], g["conv4.bias"] = tower_conv_backward(d, y["relu3"], p["conv4.weight"], padding=(1, 1))

    d = relu_backward(d, y["conv3"])
    d, g["conv3.weight"], g["conv3.bias"] = conv_backward(d, y["pool2"], p["conv3.weight"], padding=(1, 1))

    d = max_pool_backward(d, y["rnorm2"])
    d = rnorm_backward(d, y["norm2"])
    d = lrn_backward(d, y["relu2"])
    d = relu_backward(d, y["conv2"])
    d, g["conv2.weight"], g["conv2.bias"] = tower_conv_backward(d, y["relu1"], p["conv2.weight"], padding=(2, 2))

    d = relu_backward(d, y["pool1"])
    d = max_pool_backward(d, y["norm1"])
    d = lrn_backward(d, y["conv1"])
    g["picture"], g["conv1.weight"], g["conv1.bias"] = conv_backward(d, picture, p["conv1.weight"], stride=4, padding=(0, 3))
    return g
