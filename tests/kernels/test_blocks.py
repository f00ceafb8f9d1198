"""conv1 in blocks is conv1: forward, and both gradients, in float64."""

import pytest
import torch
import torch.nn.functional as F

from alexnet import kernels
from alexnet.kernels.blocks import blocks_per_side

PADDINGS = [(1, 2), (0, 3), (0, 0), (2, 2)]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [19, 20, 21, 22, 23, 35])
def test_conv1_in_blocks(size: int, padding: tuple[int, int]) -> None:
    x = torch.randn(2, 3, size, size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, 11, 11, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(F.pad(x, padding * 2), weight, stride=4)
    found = F.conv2d(kernels.picture_blocks(x, padding), kernels.weight_blocks(weight))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(expected)
    for ours, theirs in zip(*(torch.autograd.grad(y, (x, weight), g) for y in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_mask_is_where_no_tap_is() -> None:
    """A gradient in blocks, masked, is the gradient of the kernel of 11 x 11;
    without the mask it is not.
    """
    mask = kernels.tap_mask()
    assert mask.shape == (1, 48, 3, 3) and int((~mask).sum()) == 69
    x = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    weight = torch.randn(5, 3, 11, 11, dtype=torch.float64, requires_grad=True)
    in_blocks = kernels.weight_blocks(weight).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.conv2d(kernels.picture_blocks(x, (1, 2)), in_blocks).square().sum(), in_blocks)
    (expected,) = torch.autograd.grad(F.conv2d(F.pad(x, (1, 2, 1, 2)), weight, stride=4).square().sum(), weight)
    torch.testing.assert_close(gradient * mask, kernels.weight_blocks(expected), rtol=1e-12, atol=1e-12)
    assert (gradient * ~mask).norm() > 0


@pytest.mark.parametrize(("size", "padding"), [(224, (1, 2)), (224, (0, 3)), (227, (0, 0)), (224, (2, 2))])
def test_every_variant_has_57_blocks(size: int, padding: tuple[int, int]) -> None:
    assert blocks_per_side(size, padding) == 57
