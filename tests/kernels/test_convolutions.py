"""How a way to convolve is chosen, for each pass: the fastest of those that are right, and the
library's if all else fails.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.kernels import convolutions as towers
from alexnet.kernels.convolutions import LIBRARY, PASSES, Passes, Shape, Way
from alexnet.kernels.planes import apart

GROUPED = towers.WAYS["grouped"]


def shape(device: str = "cpu", **changes: object) -> Shape:
    fields = {"batch": 2, "channels": 48, "side": 9, "kernels": 8, "size": 3, "padding": 1, "groups": 2, "dtype": torch.float32}
    return Shape(**{**fields, "device": torch.device(device), **changes})  # type: ignore[arg-type]


def changed(by: Callable[[Tensor], Tensor]) -> Way:
    """The library's, with every result changed."""

    def wrapped(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *arguments: by(run(*arguments))

    return Way(*(wrapped(getattr(GROUPED, which)) for which in PASSES))


def one_term_short(x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """The sums without the last of 216 products."""
    there = torch.ones_like(weight)
    there[:, -1, -1, -1] = 0
    return GROUPED.forward(x, weight * there, padding, groups)


def one_number_off(y: Tensor) -> Tensor:
    """By 1, where the numbers are of size sqrt(162) or more."""
    off = torch.zeros_like(y)
    off[-1, -1, -1, -1] = 1
    return y + off


def fails(*_: Any) -> Tensor:
    raise RuntimeError("out of resources\nwith details")


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", ["split", "dense"])  # our own is the library's on a CPU; see test_convolve.py
def test_all_ways_agree(name: str, first: bool) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        one = shape(first=first, dtype=dtype)
        assert one.passes == (("forward", "weight") if first else PASSES)
        assert not any(towers._wrong(which, name, one) for which in one.passes)


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("name", ["grouped", "split", "own"])
def test_all_ways_agree_apart(name: str, padding: int) -> None:
    """With the library's convolution of the same maps together."""
    one = shape(batch=3, padding=padding)
    for which in PASSES:
        right = one.call(which, "grouped")()
        expected = right if which == "weight" else apart(right, one.groups)
        torch.testing.assert_close(replace(one, apart=True).call(which, name)(), expected)


def test_the_library_writes_into_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN's operator with a CPU's arithmetic: its arguments as PyTorch declares them."""

    def convolution(x: Tensor, weight: Tensor, padding: list[int], *rest: Any, out: Tensor) -> Tensor:
        seen.append(rest)
        assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (x, weight, out))
        return out.copy_(F.conv2d(x, weight, padding=padding))

    seen: list[Any] = []
    library = torch.library.Library("aten", "IMPL")
    library.impl("cudnn_convolution.out", convolution, "CPU")
    try:
        x, weight, _ = replace(shape(), apart=True).draw()
        found = towers._into_planes(x, weight, 1, 2)
    finally:
        library._destroy()
    assert torch.equal(found, towers._split(0, x, weight, 1, 2))
    assert [rest[:3] for rest in seen] == [([1, 1], [1, 1], 1)] * 2
    monkeypatch.setattr(towers, "_into_planes", fails)
    assert towers.APART["split"].forward(x, weight, 1, 2).shape == found.shape


@pytest.mark.parametrize("which", PASSES)
def test_what_is_wrong_or_fails_is_out(
    which: towers.Pass, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(towers, "call_seconds", lambda call, device: 1.0)
    short = [replace(GROUPED, forward=one_term_short)] if which == "forward" else []
    for way in (*short, changed(one_number_off), changed(lambda y: y * math.nan), Way(fails, fails, fails)):
        monkeypatch.setitem(towers.WAYS, "own", way)
        assert towers._seconds_if_right(which, "own", shape()) == math.inf
        assert f"{which}: own is left out" in capsys.readouterr().err
    assert towers._seconds_if_right(which, "split", shape()) == 1.0


@pytest.mark.parametrize("layout", [False, True])
def test_a_bias_and_a_relu_alone_that_follow(
    layout: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All ways forward are timed with them, our own in two ways; what is wrong in them is out."""
    monkeypatch.setattr(towers, "call_seconds", lambda call, device: float(call().min() >= 0))
    one = shape(relu=True, apart=layout)
    assert one.names("forward") == [*one.ways, towers.RELU] and one.names("data") == [*one.ways]
    assert shape(apart=layout).names("forward") == [*one.ways]
    found = towers.timings.__wrapped__(one)
    assert found["forward"] == dict.fromkeys(one.names("forward"), 1.0) and found["data"] == dict.fromkeys(one.ways, 0.0)
    right = towers.convolve_relu
    for wrong in (
        lambda x, weight, bias, *rest: right(x, weight, 0 * bias, *rest),
        lambda x, weight, bias, *rest: right(x, weight, 1.1 * bias, *rest),
        lambda x, weight, bias, *rest: right(x, weight, bias, *rest).abs() - 3,
        lambda *arguments: one_number_off(right(*arguments)),
        lambda *arguments: right(*arguments) * math.nan,
    ):
        monkeypatch.setattr(towers, "convolve_relu", wrong)
        assert towers._seconds_if_right("forward", towers.RELU, one) == math.inf
        assert "forward: own+relu is left out (it is not the library's)" in capsys.readouterr().err


def test_rounding_twice_is_no_error() -> None:
    """Of the convolution to bfloat16, and of its sum with the bias."""
    for layout in (False, True):
        assert not towers._wrong_relu(shape(relu=True, apart=layout, dtype=torch.bfloat16, batch=64))


def test_each_pass_goes_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward doubled, x's gradient tripled, the weight's times five; and pictures need none."""
    for name, factor in (("split", 2), ("dense", 3), ("own", 5)):
        monkeypatch.setitem(towers.WAYS, name, changed(lambda y, factor=factor: y * factor))
    x, weight, g = shape().draw()
    results = []
    for ways in (LIBRARY, Passes("split", "dense", "own")):
        y = towers.convolve(x.requires_grad_(), weight.requires_grad_(), ways, 1, 2)
        results.append([y, *torch.autograd.grad(y, [x, weight], g)])
    for factor, right, found in zip((2, 3, 5), *results, strict=True):
        torch.testing.assert_close(found, factor * right)
    monkeypatch.setitem(towers.WAYS, "dense", Way(fails, fails, fails))
    towers.convolve(x.detach(), weight, Passes("split", "dense", "own"), 1, 2).backward(g)


@pytest.mark.parametrize(
    ("groups", "seconds", "expected"),
    [
        (2, {"grouped": 3.0, "split": 2.0, "dense": 4.0, "own": 2.5}, "split"),
        (1, {"grouped": 3.0, "split": 2.0, "dense": 2.0, "own": 2.5}, "own"),
        (2, dict.fromkeys(towers.WAYS, math.inf), "grouped"),
    ],
)
def test_the_fastest_is_taken(groups: int, seconds: dict[str, float], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And another in another pass."""
    monkeypatch.setattr(
        towers,
        "_seconds_if_right",
        lambda which, name, one: math.inf if one.apart else 1.0 if (which, name) == ("data", "grouped") else seconds[name],
    )
    towers.timings.cache_clear()
    assert towers.fastest(shape("cuda", groups=groups)) == Passes(expected, "grouped", expected)
    assert str(towers.fastest(shape("cuda", groups=groups, first=True))) == (
        "grouped" if expected == "grouped" else f"{expected}/grouped/{expected}"
    )
    towers.timings.cache_clear()
    assert towers.fastest(shape("cpu", groups=groups)) == LIBRARY


@pytest.mark.parametrize(("forward", "weight", "expected"), [(2.0, 2.9, True), (2.0, 3.0, False), (0.5, math.inf, False)])
def test_towers_apart_are_taken_for_a_layer_as_a_whole(
    forward: float, weight: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the sum of all passes: 7 together, of which no two are in the same way."""
    beside = {("forward", "split"): 4.0, ("data", "own"): 2.0, ("weight", "grouped"): 1.0}
    planes = {("forward", "split"): forward, ("data", "own"): 2.0, ("weight", "grouped"): weight}
    monkeypatch.setattr(
        towers, "_seconds_if_right", lambda which, name, one: (planes if one.apart else beside).get((which, name), 9.0)
    )
    towers.timings.cache_clear()
    assert towers.fastest(shape("cuda")) == Passes("split", "own", "grouped", apart=expected)
    assert not towers.fastest(shape("cuda", groups=1)).apart
    towers.timings.cache_clear()
