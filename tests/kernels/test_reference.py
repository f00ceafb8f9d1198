"""The references against their formulas, in float64 and plain NumPy loops, on shapes with odd sides
and inputs where they matter.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alexnet import kernels
from alexnet.kernels import reference

COEFFICIENT, BETA, K = 2e-5, 0.75, 2.0


def lrn_by_formula(
    x: NDArray[np.float64], size: int, coefficient: float, beta: float, k: float, towers: int
) -> NDArray[np.float64]:
    out = np.empty_like(x)
    each = x.shape[1] // towers
    for c in range(x.shape[1]):
        tower = c // each
        low, high = max(tower * each, c - size // 2), min((tower + 1) * each, c + size // 2 + 1)
        out[:, c] = x[:, c] / (k + coefficient * (x[:, low:high] ** 2).sum(axis=1)) ** beta
    return out


@pytest.mark.parametrize(("shape", "towers"), [((2, 7, 13, 13), 1), ((1, 4, 3, 5), 2), ((3, 16, 1, 2), 1), ((3, 16, 1, 2), 2)])
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_lrn(shape: tuple[int, ...], towers: int, beta: float) -> None:
    x = torch.randn(shape, dtype=torch.float64) * 300  # sums of 1e5: the denominator is far from k
    expected = lrn_by_formula(x.numpy(), 5, COEFFICIENT, beta, K, towers)
    assert abs(expected - x.numpy() * K**-beta).max() > 10  # it matters
    np.testing.assert_allclose(kernels.lrn(x, 5, COEFFICIENT, beta, K, towers).numpy(), expected, rtol=1e-13)


def test_lrn_in_float32() -> None:
    """Six roundings of relative size 6e-8 each."""
    x = torch.randn(2, 96, 9, 9) * 300
    expected = lrn_by_formula(x.double().numpy(), 5, COEFFICIENT, BETA, K, 1)
    np.testing.assert_allclose(kernels.lrn(x, 5, COEFFICIENT, BETA, K).numpy(), expected, rtol=1e-6)


def test_lrn_is_pytorchs() -> None:
    """PyTorch divides alpha by n, as the code of 2012 and Caffe do."""
    x = torch.randn(2, 12, 5, 5, dtype=torch.float64) * 300
    expected = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=2.0)
    torch.testing.assert_close(kernels.lrn(x, 5, COEFFICIENT, BETA, K), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_lrn_gradient(towers: int, memory_format: torch.memory_format) -> None:
    x = (torch.randn(2, 8, 3, 3, dtype=torch.float64) * 300).contiguous(memory_format=memory_format).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: kernels.lrn(x, 5, COEFFICIENT, BETA, K, towers), x, eps=1e-3, atol=1e-8, rtol=1e-6
    )


def lrn_and_gradient(x: torch.Tensor, towers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a batch, with the gradient of its sum of squares."""
    leaf = x.detach().requires_grad_()
    y = kernels.lrn(leaf, 5, COEFFICIENT, BETA, K, towers)
    (gradient,) = torch.autograd.grad(y.float().square().sum(), leaf)
    return y.detach(), gradient


@pytest.mark.parametrize("towers", [1, 2])
def test_lrn_in_parts_has_the_bits_of_the_whole(towers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven pictures by twos; the last part is one."""
    x = (torch.randn(7, 8, 3, 5) * 300).contiguous(memory_format=torch.channels_last)
    whole = lrn_and_gradient(x, towers)
    monkeypatch.setattr(reference, "CACHED", 2 * x[0].nbytes)
    assert [len(part) for (part,) in reference._parts(x)] == [2, 2, 2, 1]
    assert all(map(torch.equal, lrn_and_gradient(x, towers), whole))


@pytest.mark.parametrize("towers", [1, 2])
def test_lrn_of_bfloat16_is_that_of_float32_rounded(towers: int) -> None:
    """In bfloat16's own arithmetic k = 2 plus a small sum would be 2."""
    x = (torch.randn(3, 8, 3, 5) * 30).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y, gradient = lrn_and_gradient(x, towers)
    expected = kernels.lrn(x.float(), 5, COEFFICIENT, BETA, K, towers)
    assert y.dtype == gradient.dtype == torch.bfloat16 and y.equal(expected.bfloat16())
    leaf = x.float().requires_grad_()
    g = 2 * y.float()
    (of_float32,) = torch.autograd.grad(kernels.lrn(leaf, 5, COEFFICIENT, BETA, K, towers), leaf, g.bfloat16().float())
    assert gradient.equal(of_float32.bfloat16())
    assert torch.func.vmap(lambda x: kernels.lrn(x[None], 5, COEFFICIENT, BETA, K, towers))(x)[:, 0].equal(y)


def pytorchs_lrn(x: torch.Tensor, size: int, coefficient: float, beta: float, k: float, towers: int = 1) -> torch.Tensor:
    parts = [F.local_response_norm(part, size, coefficient * size, beta, k) for part in x.chunk(towers, -3)]
    return torch.cat(parts, -3)


@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_lrn_second_derivative(towers: int, beta: float) -> None:
    x, g = (torch.randn(2, 6, 2, 2, dtype=torch.float64).mul_(300).requires_grad_() for _ in range(2))
    assert torch.autograd.gradgradcheck(
        lambda x: kernels.lrn(x, 5, COEFFICIENT, beta, K, towers), x, g, eps=1e-2, atol=1e-7, rtol=1e-6
    )


@pytest.mark.parametrize("towers", [1, 2])
def test_lrn_tangents(towers: int) -> None:
    x = torch.randn(2, 6, 2, 2, dtype=torch.float64).mul_(300).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: kernels.lrn(x, 5, COEFFICIENT, BETA, K, towers),
        x,
        eps=1e-3,
        atol=1e-8,
        rtol=1e-6,
        check_forward_ad=True,
        check_batched_forward_grad=True,
    )


#: What `torch.func` makes of a function of x and a direction. Sums of squares: a plain sum's second
#: derivative could hide.
TRANSFORMS = {
    "grad": lambda f, x, t: torch.func.grad(lambda x: f(x).square().sum())(x),
    "jacrev": lambda f, x, t: torch.func.jacrev(f)(x),
    "jacfwd": lambda f, x, t: torch.func.jacfwd(f)(x),
    "jvp": lambda f, x, t: torch.func.jvp(f, (x,), (t,))[1],
    "vjp": lambda f, x, t: torch.func.vjp(f, x)[1](t)[0],
    "vmap": lambda f, x, t: torch.func.vmap(f, in_dims=-1)(torch.stack([x, t], -1)),
    "hessian": lambda f, x, t: torch.func.hessian(lambda x: f(x).square().sum())(x),
    "grad of jvp": lambda f, x, t: torch.func.grad(lambda x: torch.func.jvp(f, (x,), (t,))[1].square().sum())(x),
    "jvp of grad": lambda f, x, t: torch.func.jvp(torch.func.grad(lambda x: f(x).square().sum()), (x,), (t,))[1],
    "grads of each": lambda f, x, t: torch.func.vmap(torch.func.grad(lambda x: f(x[None]).square().sum()))(x),
    "third": lambda f, x, t: torch.func.grad(lambda x: torch.func.hessian(lambda x: f(x).square().sum())(x).square().sum())(x),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("towers", [1, 2])
def test_lrn_under_torch_func(transform: str, towers: int) -> None:
    """As PyTorch's own, of which autograd knows every derivative; float64 rounds at 1e-16, a third
    derivative some hundred times.
    """
    x, t = torch.randn(2, 2, 6, 2, 1, dtype=torch.float64) * 300

    def made(lrn: Callable[..., torch.Tensor]) -> torch.Tensor:
        return TRANSFORMS[transform](lambda x: lrn(x, 5, COEFFICIENT, BETA, K, towers), x, t)

    expected = made(pytorchs_lrn)
    assert expected.abs().max() > 0
    torch.testing.assert_close(made(kernels.lrn), expected, rtol=1e-11, atol=1e-13 * float(expected.abs().max()))


def test_lrn_returns_a_new_tensor() -> None:
    x = torch.randn(1, 5, 2, 2)
    kept = x.clone()
    kernels.lrn(x, 5, COEFFICIENT, BETA, K).zero_()
    assert torch.equal(x, kept)


def test_spatial_norm() -> None:
    x = np.random.default_rng(0).normal(0, 300, (2, 3, 7, 9))
    expected = np.empty_like(x)
    for i in range(7):
        for j in range(9):
            window = x[:, :, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3]
            expected[:, :, i, j] = x[:, :, i, j] / (1 + 4e-5 * (window**2).sum(axis=(2, 3))) ** 0.75
    np.testing.assert_allclose(kernels.spatial_norm(torch.from_numpy(x), 5, 4e-5, 0.75, 1.0).numpy(), expected, rtol=1e-12)


def test_spatial_norm_gradient() -> None:
    x = (torch.randn(1, 2, 6, 7, dtype=torch.float64) * 300).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: kernels.spatial_norm(x, 5, 4e-5, 0.75, 1.0), x, eps=1e-3, atol=1e-8, rtol=1e-6)


def test_yuv_to_rgb_on_known_colours() -> None:
    """JFIF's primaries, to the rounding of their bytes: YCbCr of pure red,
    green, blue, white, black.
    """
    colours = {
        (76, 85, 255): (254, 0, 0),
        (150, 44, 21): (0, 255, 1),
        (29, 255, 107): (0, 0, 254),
        (255, 128, 128): (255,) * 3,
        (0, 128, 128): (0,) * 3,
    }
    for yuv, rgb in colours.items():
        found = kernels.yuv_to_rgb(*(torch.tensor([float(v)]) for v in yuv))
        assert [float(v) for v in found] == pytest.approx(rgb, abs=1.01)


def augment_by_formula(
    record: NDArray[np.uint8],
    side: int,
    top: int,
    left: int,
    mirror: bool,
    colour: NDArray[np.float64],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    size: int,
    bgr: bool,
) -> NDArray[np.float64]:
    half = side // 2
    y = record[: side * side].reshape(side, side).astype(float)
    u = record[side * side : side * side + half * half].reshape(half, half).astype(float) - 128
    v = record[side * side + half * half :].reshape(half, half).astype(float) - 128
    out = np.empty((3, size, size))
    for i in range(size):
        for j in range(size):
            row, column = top + i, left + (size - 1 - j if mirror else j)
            cu, cv = u[row // 2, column // 2], v[row // 2, column // 2]
            luma = y[row, column]
            rgb = np.clip([luma + 1.402 * cv, luma - 0.344136286 * cu - 0.714136286 * cv, luma + 1.772 * cu], 0, 255)
            at = mean[:, row, column] if mean.shape[1] > 1 else mean[:, 0, 0]
            value = (rgb + colour - at) * scale
            out[:, i, j] = value[::-1] if bgr else value
    return out


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("mean_image", [False, True])
def test_augment(bgr: bool, mean_image: bool) -> None:
    """Odd crops at odd corners, both mirrors; float32 arithmetic on values up to 300: 1e-4."""
    rng = np.random.default_rng(7)
    n, side, size = 4, 20, 13
    records = rng.integers(0, 256, (n, side * side * 3 // 2), dtype=np.uint8)
    top, left = np.array([0, 7, 3, 2]), np.array([7, 0, 5, 1])
    mirror = np.array([True, False, True, False])
    colour = rng.normal(0, 20, (n, 3)).astype(np.float32)
    mean = rng.uniform(0, 255, (3, side, side) if mean_image else (3, 1, 1)).astype(np.float32)
    scale = np.array([1.0, 0.5, 2.0], np.float32)
    tensors = [torch.from_numpy(array) for array in (records, top, left, mirror, colour, mean, scale)]
    found = kernels.augment(*tensors, size, bgr)
    assert found.shape == (n, 3, size, size)
    for i in range(n):
        expected = augment_by_formula(records[i], side, top[i], left[i], mirror[i], colour[i], mean, scale, size, bgr)
        np.testing.assert_allclose(found[i].numpy(), expected, atol=1e-4 * 2, rtol=1e-5)


def test_float16_does_not_overflow() -> None:
    """300^2 is beyond float16; the reference is float32 on the same values."""
    x = torch.randn(2, 7, 13, 13) * 300
    for op in (lambda t: kernels.lrn(t, 5, 2e-5, 0.75, 2.0), lambda t: kernels.spatial_norm(t, 5, 4e-5, 0.75, 1.0)):
        found = op(x.half())
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.float(), op(x.half().float()), rtol=1e-3, atol=1e-3)


# --- fully connected layers -----------------------------------------------------------------------


def layer(rows: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Input, weight and bias, leaves."""
    shapes = ((rows, 37), (23, 37), (23,))
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def first_and_second(f: Callable[..., torch.Tensor], tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """A layer's result, gradients, and the gradients of these."""
    y = f(*tensors)
    once = torch.autograd.grad(y.square().sum(), tensors, create_graph=True)
    twice = torch.autograd.grad(sum((g.square().sum() for g in once), torch.zeros(())), tensors)
    return [y, *once, *twice]


@pytest.mark.parametrize("rows", [1, 15, 16, 61])
def test_linear(rows: int) -> None:
    """Against float64, result, gradients and second derivatives."""
    tensors = layer(rows)
    expected = first_and_second(F.linear, [tensor.detach().double().requires_grad_() for tensor in tensors])
    for actual, exact in zip(first_and_second(kernels.linear, tensors), expected, strict=True):
        assert (actual.double() - exact).norm() <= 2e-6 * exact.norm()


def test_linear_gradient_without_a_graph() -> None:
    """As training takes it."""
    tensors = layer(61)
    kernels.linear(*tensors).square().sum().backward()
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    F.linear(*exact).square().sum().backward()
    for one, other in zip(tensors, exact, strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad.double() - other.grad).norm() <= 2e-6 * other.grad.norm()


def test_linear_of_frozen_weights() -> None:
    x, weight, bias = layer(20)
    kernels.linear(x, weight.detach(), bias.detach()).sum().backward()
    assert x.grad is not None
    kernels.linear(x.detach(), weight, bias).sum().backward()
    assert weight.grad is not None and bias.grad is not None


@pytest.mark.parametrize("which", range(3))
def test_linear_under_transforms(which: int) -> None:
    tensors = layer(20)
    tangent = torch.randn_like(tensors[which])

    def f(kind: Callable[..., torch.Tensor], one: torch.Tensor) -> torch.Tensor:
        return kind(*[one if number == which else tensor for number, tensor in enumerate(tensors)])

    for transform in (
        lambda kind: torch.func.jvp(lambda one: f(kind, one), (tensors[which],), (tangent,))[1],
        lambda kind: torch.func.grad(lambda one: f(kind, one).square().sum())(tensors[which]),
    ):
        torch.testing.assert_close(transform(kernels.linear), transform(F.linear), rtol=1e-5, atol=1e-5)
