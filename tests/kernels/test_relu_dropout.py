"""Dropout: which units a key drops, by the formula written anew; that chance would do it so; and
that the kernel drops the same.
"""

import pytest
import torch
import torch.nn.functional as F
from precision import check, poisoned
from torch import Tensor

from alexnet.kernels import reference

WORD = 2**32 - 1
KEYS = torch.tensor([7, -7, 2**31 - 1, -(2**31), 0, 123_456_789, -1], dtype=torch.int32)


def mixed(bits: int) -> int:
    """The mixture of 32 bits, in whole numbers that have no end."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        bits = (bits ^ bits >> shift) * factor & WORD
    return bits ^ bits >> 15


def kept(keys: Tensor, units: int, rate: float) -> Tensor:
    """(N, units) bool, by the formula: of 2^32 numbers from -2^31 on, a share of `rate` is
    dropped.
    """
    rows = [[mixed(key & WORD ^ mixed(unit)) for unit in range(units)] for key in keys.tolist()]
    return torch.tensor([[(bits ^ 2**31) >= rate * 2**32 for bits in row] for row in rows])


def random_keys(count: int, seed: int = 0) -> Tensor:
    return torch.randint(-(2**31), 2**31, (count,), dtype=torch.int32, generator=torch.Generator().manual_seed(seed))


def dropped(keys: Tensor, units: int, rate: float = 0.5) -> Tensor:
    """(N, units) float64, 1 where a unit is dropped."""
    return (reference.dropout(torch.ones(len(keys), units, dtype=torch.float64), rate, keys, False) == 0).double()


@pytest.mark.parametrize("rate", [0.5, 0.25, 0.1, 0.9])
def test_reference_is_the_formula(rate: float) -> None:
    assert torch.equal(dropped(KEYS, 311, rate) == 0, kept(KEYS, 311, rate))


@pytest.mark.parametrize(("inverted", "scale"), [(False, 1.0), (True, 4.0)])
def test_reference_is_what_the_network_does(inverted: bool, scale: float) -> None:
    """Three of four units are zero, the rest is the ReLU's output, scaled or not; and the
    gradient is scaled alike.
    """
    x = torch.randn(100, 400, requires_grad=True)
    y = reference.relu_dropout(x, 0.75, random_keys(100), inverted)
    y.sum().backward()
    stays = y > 0
    assert torch.equal(y, F.relu(x) * stays * scale)
    assert x.grad is not None and torch.equal(x.grad, stays * scale)
    assert abs(float(stays.sum() / (x > 0).sum()) - 0.25) < 0.01  # 20,000 draws: deviation 0.003


@pytest.mark.parametrize("shape", [(256, 6, 6), (300,)])
def test_a_picture_loses_the_same_units_anywhere(shape: tuple[int, ...]) -> None:
    """Alone, in another order and in parts; of maps in either layout of memory."""
    x, keys = torch.randn(9, *shape), random_keys(9)
    whole = reference.dropout(x, 0.5, keys, True)
    order = torch.randperm(9)
    assert torch.equal(reference.dropout(x[order], 0.5, keys[order], True), whole[order])
    parts = [reference.dropout(x[at : at + 4], 0.5, keys[at : at + 4], True) for at in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole)
    if x.dim() == 4:
        assert torch.equal(reference.dropout(x.contiguous(memory_format=torch.channels_last), 0.5, keys, True), whole)


def test_nothing_is_dropped_at_a_rate_of_zero() -> None:
    x = torch.randn(7, 5)
    y = reference.dropout(x, 0.0, KEYS, True)
    assert torch.equal(x, y) and y is not x
    assert reference.drop_below(0.0) == -(2**31) and reference.drop_below(1 - 1e-12) == 2**31 - 1


# --- that chance would do it so: at most 5 standard errors off in each of some 100 numbers --------


@pytest.mark.parametrize("rate", [0.5, 0.2, 0.003])
def test_shares(rate: float) -> None:
    """Of all units, of each picture's and of each unit's: their mean, and their variance over
    pictures and units, whose standard error is sqrt(2 / n).
    """
    n, units = 2000, 1024
    found, variance = dropped(random_keys(n), units, rate), rate * (1 - rate)
    assert abs(float(found.mean()) - rate) < 5 * (variance / found.numel()) ** 0.5
    for axis, count in ((0, n), (1, units)):
        of_each = found.mean(axis)
        spread = float(((of_each - rate) ** 2).mean()) / (variance / count)
        # The fourth moment of rare drops adds to the error of the variance.
        error = ((2 + (1 - 6 * variance) / (count * variance)) / len(of_each)) ** 0.5
        assert abs(spread - 1) < 5 * error


@pytest.mark.parametrize("apart", ["units", "pictures"])
def test_pairs_are_independent(apart: str) -> None:
    """The correlation of each two units over 20,000 pictures, or of each two pictures over 20,000
    units, is 1 / sqrt(20,000) in size: the largest of 44,850 below 6, their squares' mean 1.
    """
    n, few = 20_000, 300
    found = dropped(random_keys(n), few).T if apart == "units" else dropped(random_keys(few), n)
    signs = 2 * found - 1
    z = ((signs @ signs.T) / n**0.5)[*torch.triu_indices(few, few, 1)]
    assert float(z.abs().max()) < 6
    assert abs(float((z**2).mean()) - 1) < 5 * (2 / len(z)) ** 0.5


def test_keys_that_differ_in_one_bit() -> None:
    """Each of 32 bits changes half of the units: 500,000 draws a bit."""
    keys = random_keys(500)
    first = dropped(keys, 1000)
    for bit in range(32):
        other = dropped(keys ^ torch.tensor(1 << bit).to(torch.int32), 1000)
        changed = float((first != other).double().mean())
        assert abs(changed - 0.5) < 5 * 0.5 / 500_000**0.5, bit


def test_runs_along_the_units() -> None:
    """Patterns of eight units side by side: chi-square of 256 kinds, 5 standard deviations."""
    found = dropped(random_keys(500), 1024).view(-1, 8)
    kinds = (found @ (2.0 ** torch.arange(8, dtype=torch.float64))).long()
    expected = len(kinds) / 256
    chi_square = float(((torch.bincount(kinds, minlength=256) - expected) ** 2 / expected).sum())
    assert abs(chi_square - 255) < 5 * (2 * 255) ** 0.5


# --- the kernel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rate", "inverted"), [(0.5, False), (0.5, True), (0.2, True), (0.0, False)])
def test_kernel(rate: float, inverted: bool, dtype: torch.dtype, device: torch.device) -> None:
    """Keys a column of a table, as a step has them; more units than a program takes."""
    from alexnet.kernels.gpu.relu_dropout import UNITS, relu_dropout

    x, g = (torch.randn(7, UNITS + 311, device=device).to(dtype) for _ in range(2))
    keys = torch.stack([KEYS, KEYS.flip(0)], 1).to(device)[:, 1]
    stays = kept(KEYS.flip(0), x.shape[1], rate).to(device)
    scale = 1 / (1 - rate) if inverted else 1.0
    x.requires_grad_()
    with poisoned():
        y = relu_dropout(x, rate, keys, inverted)
        y.backward(g)
    assert x.grad is not None
    check(y, F.relu(x.double()) * stays * scale)
    check(x.grad, g.double() * (x > 0) * stays * scale)


def test_kernel_on_maps(device: torch.device) -> None:
    """Behind pool5, channels-last: the units that the reference drops."""
    from alexnet.kernels.gpu.relu_dropout import relu_dropout

    x = torch.rand(7, 5, 3, 3, device=device).contiguous(memory_format=torch.channels_last)
    assert torch.equal(relu_dropout(x, 0.5, KEYS.to(device), True), reference.relu_dropout(x, 0.5, KEYS.to(device), True))


def test_nan_stays(device: torch.device) -> None:
    from alexnet.kernels.gpu.relu_dropout import relu_dropout

    x = torch.full((7, 3), torch.nan, device=device)
    assert relu_dropout(x, 0.0, KEYS.to(device), False).isnan().all()


def test_operators_keep_their_promises(device: torch.device) -> None:
    from alexnet.kernels.gpu import relu_dropout

    x, keys = torch.randn(7, 5, device=device, requires_grad=True), KEYS.to(device)
    torch.library.opcheck(relu_dropout.relu_dropout_forward, (x, keys, 0.5, 2.0))
    y = relu_dropout.relu_dropout_forward(x.detach(), keys, 0.5, 2.0)
    torch.library.opcheck(relu_dropout.relu_dropout_backward, (torch.randn_like(y), y, 2.0))
