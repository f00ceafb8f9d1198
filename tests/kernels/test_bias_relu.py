"""Bias and ReLU: the reference is the convolution's own bias and ReLU; the kernel against
float64.
"""

import pytest
import torch
import torch.nn.functional as F
from precision import check, poisoned
from torch import Tensor

from alexnet.kernels import reference
from alexnet.kernels.planes import apart, together


def maps(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator) * 3, torch.randn(shape[1], generator=generator)


def test_reference_is_what_the_network_does() -> None:
    x, weight = torch.randn(2, 3, 7, 9), torch.randn(5, 3, 3, 3)
    bias = torch.randn(5)
    torch.testing.assert_close(reference.bias_relu(F.conv2d(x, weight), bias), F.relu(F.conv2d(x, weight, bias)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 13, 7, 5), (1, 130, 3, 3), (3, 8, 13, 13), (1, 1, 1, 1)])
def test_kernel(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    compare(shape, dtype, device)


@pytest.mark.parametrize("planes", [(1, 2), (2, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("shape", [(2, 12, 7, 5), (1, 264, 3, 3)])
def test_kernel_with_towers_apart(shape: tuple[int, ...], planes: tuple[int, int], device: torch.device) -> None:
    compare(shape, torch.float32, device, planes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(128, 384, 13, 13), (7, 384, 13, 13)])
def test_kernel_at_full_size(shape: tuple[int, ...], dtype: torch.dtype, gpu: torch.device) -> None:
    for planes in ((1, 1), (1, 2), (2, 2)):
        compare(shape, dtype, gpu, planes)


def compare(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, planes: tuple[int, int] = (1, 1)) -> None:
    """`planes` of x and of y."""
    from alexnet.kernels.gpu.bias_relu import bias_relu

    x, bias = maps(*shape)
    x, bias = x.to(device, dtype), bias.to(device)
    bias = bias.abs() if shape == (1, 1, 1, 1) else bias  # something must pass
    x = x.abs() if shape == (1, 1, 1, 1) else x
    exact_x, exact_bias = x.double().requires_grad_(), bias.double().requires_grad_()
    expected = reference.bias_relu(exact_x, exact_bias)
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    expected.backward(g.double())
    x, bias = apart(x, planes[0]).requires_grad_(), bias.requires_grad_()
    with poisoned():
        y = bias_relu(x, bias, planes[1])
        y.backward(apart(g, planes[1]))
    assert x.grad is not None and bias.grad is not None and bias.grad.dtype == torch.float32
    check(together(y, planes[1]), expected)
    check(together(x.grad, planes[0]), exact_x.grad)
    check(bias.grad, exact_bias.grad)


def test_nan_stays(device: torch.device) -> None:
    from alexnet.kernels.gpu.bias_relu import bias_relu

    x, bias = (t.to(device) for t in maps(1, 8, 3, 3))
    x[0, 3, 1, 1] = torch.nan
    assert bias_relu(x, bias).isnan().sum() == 1


def test_operators_keep_their_promises(device: torch.device) -> None:
    from alexnet.kernels.gpu import bias_relu as kernel

    x, bias = (t.to(device).requires_grad_() for t in maps(1, 8, 5, 3))
    for planes in (1, 2):
        torch.library.opcheck(kernel.bias_relu_forward, (x, bias, planes))
        y = kernel.bias_relu_forward(x.detach(), bias.detach(), planes)
        torch.library.opcheck(kernel.bias_relu_backward, (torch.randn_like(y), y, 8, 1))
