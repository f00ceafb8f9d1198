"""Dropout: what the network does in training; the kernel's choice against Philox written anew."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from precision import check, poisoned

from alexnet.kernels import reference

SEED = 7_000_000_000_123  # more than 32 bits


def philox(seed: int, count: int) -> NDArray[np.float64]:
    """Numbers in [0, 1): the first word of Philox 4x32-10 (Salmon et al., 2011) for the counters 0,
    1, ..., by its formula.
    """
    word = np.uint64(0xFFFFFFFF)
    counter = [np.arange(count, dtype=np.uint64)] + [np.zeros(count, np.uint64)] * 3
    key = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)]
    for _ in range(10):
        a, b = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        high_a, high_b = a >> np.uint64(32), b >> np.uint64(32)
        counter = [high_b ^ counter[1] ^ key[0], b & word, high_a ^ counter[3] ^ key[1], a & word]
        key = [(key[0] + np.uint64(0x9E3779B9)) & word, (key[1] + np.uint64(0xBB67AE85)) & word]
    signed = counter[0].astype(np.uint32).view(np.int32).astype(np.int64)
    return np.where(signed < 0, -signed - 1, signed) * 4.6566127342e-10


@pytest.mark.parametrize(("inverted", "scale"), [(False, 1.0), (True, 4.0)])
def test_reference_is_what_the_network_does(inverted: bool, scale: float) -> None:
    """Three of four units are zero, the rest is the ReLU's output, scaled or not; and the
    gradient is scaled alike.
    """
    x = torch.randn(100, 400, requires_grad=True)
    y = reference.relu_dropout(x, 0.75, torch.tensor([SEED]), inverted)
    y.sum().backward()
    stays = y > 0
    assert torch.equal(y, F.relu(x) * stays * scale)
    assert x.grad is not None and torch.equal(x.grad, stays * scale)
    assert abs(float(stays.sum() / (x > 0).sum()) - 0.25) < 0.01  # 20,000 draws: deviation 0.003
    assert torch.equal(y, reference.relu_dropout(x, 0.75, torch.tensor([SEED]), inverted))
    assert not torch.equal(y, reference.relu_dropout(x, 0.75, torch.tensor([SEED + 1]), inverted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rate", "inverted"), [(0.5, False), (0.5, True), (0.2, True), (0.0, False)])
def test_kernel(rate: float, inverted: bool, dtype: torch.dtype, device: torch.device) -> None:
    from alexnet.kernels.gpu.relu_dropout import relu_dropout

    x, g = (torch.randn(7, 311, device=device).to(dtype) for _ in range(2))
    stays = torch.from_numpy(philox(SEED, x.numel()) >= rate).view(x.shape).to(device)
    scale = 1 / (1 - rate) if inverted else 1.0
    x.requires_grad_()
    with poisoned():
        y = relu_dropout(x, rate, torch.tensor([SEED], device=device), inverted)
        y.backward(g)
    assert x.grad is not None
    check(y, F.relu(x.double()) * stays * scale)
    check(x.grad, g.double() * (x > 0) * stays * scale)


def test_nan_stays(device: torch.device) -> None:
    from alexnet.kernels.gpu.relu_dropout import relu_dropout

    x = torch.full((3,), torch.nan, device=device)
    assert relu_dropout(x, 0.0, torch.tensor([1], device=device), False).isnan().all()


def test_operators_keep_their_promises(device: torch.device) -> None:
    from alexnet.kernels.gpu import relu_dropout

    x, seed = torch.randn(3, 5, device=device, requires_grad=True), torch.tensor([SEED], device=device)
    torch.library.opcheck(relu_dropout.relu_dropout_forward, (x, seed, 0.5, 2.0))
    y = relu_dropout.relu_dropout_forward(x.detach(), seed, 0.5, 2.0)
    torch.library.opcheck(relu_dropout.relu_dropout_backward, (torch.randn_like(y), y, 2.0))
