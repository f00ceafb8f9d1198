"""Bias, ReLU, LRN and pool: the reference against the network's own layers, the kernel against the
reference in float64.
"""

import pytest
import torch
import torch.nn.functional as F
from precision import check, poisoned
from torch import Tensor

from alexnet.kernels import reference
from alexnet.kernels.planes import apart, together
from alexnet.model import AlexNet

STEPS = [
    ("relu", "norm", "pool"),  # the paper
    ("norm", "pool", "relu"),  # code-2012
    ("relu", "pool", "norm"),  # caffenet
    ("relu", "pool"),  # block 5
    ("pool", "relu"),
]
LRN = 5, 2e-5, 0.75, 2.0


def maps(*shape: int) -> tuple[Tensor, Tensor]:
    """A convolution's output and a bias, large enough for LRN to matter."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator) * 300, torch.randn(shape[1], generator=generator) * 50


@pytest.mark.parametrize("name", ["paper", "code-2012", "caffenet"])
def test_reference_is_what_the_network_does(name: str) -> None:
    model = AlexNet(name, torch.Generator().manual_seed(1))
    torch.nn.init.normal_(model.conv1.bias, std=100)
    variant, conv = model.variant, model.conv1
    images = torch.randn(1, 3, variant.input_size, variant.input_size) * 100
    stages = model.stages(images)
    last = {"relu": "relu1", "norm": "norm1", "pool": "pool1"}[variant.block1[-1]]
    towers = variant.towers if variant.lrn_window == "tower" else 1
    x = stages["conv1"] - conv.bias[:, None, None]
    found = reference.relu_lrn_pool(x, conv.bias, variant.block1[1:], 5, variant.lrn_coefficient, 0.75, variant.lrn_k, towers)
    torch.testing.assert_close(found, stages[last], rtol=1e-4, atol=1e-3)  # the bias is taken off and added again: 500 * 2^-24


@pytest.mark.parametrize("steps", STEPS)
def test_gradient_of_the_reference(steps: tuple[str, ...]) -> None:
    x, bias = (t.double().requires_grad_() for t in maps(1, 6, 5, 7))
    assert torch.autograd.gradcheck(
        lambda x, bias: reference.relu_lrn_pool(x, bias, steps, *LRN, 2), (x, bias), eps=1e-4, atol=1e-6, rtol=1e-5
    )


def decided(x: Tensor, bias: Tensor, steps: tuple[str, ...], towers: int) -> Tensor:
    """Windows whose winner float32 cannot mistake: nothing in them is nearly the largest, and not
    it. (N, C, H', W') bool.

    Of the nine million windows of a batch a few are not, and the gradient of each goes another way.
    """
    z = reference.relu_lrn_pool(x, bias, steps[: steps.index("pool")], *LRN, towers).detach()
    taps = torch.stack([z[:, :, i:, j:][:, :, : z.shape[2] - 2 : 2, : z.shape[3] - 2 : 2] for i in range(3) for j in range(3)])
    behind = taps.amax(0) - taps
    return ~((behind > 0) & (behind < 1e-5 * taps.amax(0).abs())).any(0)


def compare(
    x: Tensor,
    bias: Tensor,
    steps: tuple[str, ...],
    towers: int,
    dtype: torch.dtype,
    device: torch.device,
    planes: tuple[int, int] = (1, 1),
) -> None:
    """Output and both gradients of the kernel, against the reference in float64 on
    the same rounded numbers; `planes` of x and of y.
    """
    from alexnet.kernels.gpu.relu_lrn_pool import relu_lrn_pool

    x, bias = x.to(device, dtype), bias.to(device)
    exact_x, exact_bias = x.double().requires_grad_(), bias.double().requires_grad_()
    expected = reference.relu_lrn_pool(exact_x, exact_bias, steps, *LRN, towers)
    g = (torch.randn_like(expected) * decided(exact_x, exact_bias, steps, towers)).to(dtype)
    expected.backward(g.double())

    x, bias = apart(x, planes[0]).requires_grad_(), bias.requires_grad_()
    with poisoned():
        y = relu_lrn_pool(x, bias, steps, *LRN, towers, planes[1])
        y.backward(apart(g, planes[1]))
    assert x.grad is not None and bias.grad is not None and y.is_contiguous(memory_format=torch.channels_last)
    if "norm" in steps:
        plain = reference.relu_lrn_pool(exact_x, exact_bias, steps, 5, 0.0, 0.75, LRN[3], towers)
        assert (expected - plain).norm() > 0.1 * plain.norm()  # it matters
    check(together(y, planes[1]), expected)
    check(together(x.grad, planes[0]), exact_x.grad)
    check(bias.grad, exact_bias.grad, dtype if steps[-1] == "norm" else None)  # two passes, with rounding between them


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", STEPS)
def test_kernel(steps: tuple[str, ...], dtype: torch.dtype, device: torch.device) -> None:
    compare(*maps(2, 13, 7, 13), steps, 1, dtype, device)


@pytest.mark.parametrize("steps", STEPS[:2])
@pytest.mark.parametrize(
    ("shape", "towers"),
    [((2, 13, 8, 10), 1), ((2, 100, 19, 7), 1), ((1, 48, 17, 3), 2), ((1, 6, 4, 5), 2), ((1, 1, 3, 3), 1)],
    ids=["last row and column in no window", "several tiles", "two strips, two towers", "three channels a tower", "one window"],
)
def test_kernel_on_odd_shapes(shape: tuple[int, ...], towers: int, steps: tuple[str, ...], device: torch.device) -> None:
    compare(*maps(*shape), steps, towers, torch.float32, device)


@pytest.mark.parametrize("planes", [(1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize(
    ("shape", "towers", "steps"),
    [
        ((2, 12, 7, 9), 1, STEPS[0]),  # windows go from plane to plane
        ((2, 96, 5, 5), 1, STEPS[0]),
        ((1, 40, 8, 5), 2, STEPS[1]),
        ((2, 12, 5, 6), 1, STEPS[2]),
        ((3, 32, 6, 7), 1, STEPS[3]),
    ],
)
def test_kernel_with_towers_apart(
    shape: tuple[int, ...], towers: int, steps: tuple[str, ...], planes: tuple[int, int], device: torch.device
) -> None:
    compare(*maps(*shape), steps, towers, torch.float32, device, planes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shape", [(128, 96, 55, 55), (7, 256, 27, 27), (1, 256, 13, 13)])
def test_kernel_at_full_size(shape: tuple[int, ...], steps: tuple[str, ...], dtype: torch.dtype, gpu: torch.device) -> None:
    for towers, planes in ((1, (1, 1)), (2, (1, 1)), (1, (2, 2)), (2, (2, 2))):
        compare(*maps(*shape), steps, towers, dtype, gpu, planes)


@pytest.mark.parametrize("steps", [("relu", "pool"), ("relu", "norm", "pool")])
def test_of_equal_values_the_first_wins(steps: tuple[str, ...], device: torch.device) -> None:
    x = torch.full((1, 8, 7, 7), 3.0)
    compare(x, torch.linspace(-4, 400, 8), steps, 1, torch.float32, device)


def test_nan_stays(device: torch.device) -> None:
    """A network that broke must say so in its loss."""
    from alexnet.kernels.gpu.relu_lrn_pool import relu_lrn_pool

    x, bias = maps(1, 8, 9, 9)
    x[0, 4, 2, 6] = torch.nan
    for steps in STEPS:
        expected = reference.relu_lrn_pool(x, bias, steps, *LRN)
        found = relu_lrn_pool(x.to(device), bias.to(device), steps, *LRN).cpu()
        assert expected.isnan().any() and torch.equal(found.isnan(), expected.isnan())


def test_other_constants_are_left_to_the_reference(device: torch.device) -> None:
    from alexnet.kernels.gpu.relu_lrn_pool import relu_lrn_pool

    x, bias = (t.to(device) for t in maps(1, 8, 5, 5))
    for size, beta, steps in ((3, 0.75, STEPS[0]), (5, 0.6, STEPS[0]), (5, 0.75, ("pool", "norm"))):
        expected = reference.relu_lrn_pool(x, bias, steps, size, 2e-5, beta, 1.0)
        torch.testing.assert_close(relu_lrn_pool(x, bias, steps, size, 2e-5, beta, 1.0), expected)


def test_operators_keep_their_promises(device: torch.device) -> None:
    """Schema, shape rule, gradient and tracing, as PyTorch checks them."""
    from alexnet.kernels.gpu import relu_lrn_pool as kernel

    x, bias = (t.to(device).requires_grad_() for t in maps(1, 8, 5, 3))
    constants = True, True, 2e-5, 2.0, 1
    for planes in (1, 2):
        torch.library.opcheck(kernel.relu_lrn_pool_forward, (x, bias, *constants, planes))
        y, winner = kernel.relu_lrn_pool_forward(x, bias, *constants, planes)
        g = torch.randn_like(y)
        torch.library.opcheck(kernel.relu_lrn_pool_backward, (g, winner, x.detach(), bias.detach(), *constants))


def test_pool_is_the_frameworks(device: torch.device) -> None:
    from alexnet.kernels.gpu.relu_lrn_pool import relu_lrn_pool

    x, bias = maps(2, 16, 9, 9)
    expected = F.max_pool2d(F.relu(x), 3, 2)
    assert torch.equal(relu_lrn_pool(x.to(device), torch.zeros_like(bias).to(device), ("relu", "pool"), *LRN).cpu(), expected)
