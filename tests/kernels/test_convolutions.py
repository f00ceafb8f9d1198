"""How a way to convolve is chosen: the fastest of those that are right, and the
library's if all else fails.
"""

import math

import pytest
import torch
from torch import Tensor

from alexnet.kernels import convolutions as towers
from alexnet.kernels.convolutions import Shape


def shape(device: str = "cpu", **changes: object) -> Shape:
    fields = {"batch": 2, "channels": 48, "side": 9, "kernels": 8, "size": 3, "padding": 1, "groups": 2, "dtype": torch.float32}
    return Shape(**{**fields, "device": torch.device(device), **changes})  # type: ignore[arg-type]


def one_term_short(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """The sums without the last of 216 products."""
    there = torch.ones_like(weight)
    there[:, -1, -1, -1] = 0
    return towers.grouped(x, weight * there, bias, padding, groups)


def one_number_off(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """By 1, where the numbers are of size sqrt(216)."""
    y = towers.grouped(x, weight, bias, padding, groups)
    off = torch.zeros_like(y)
    off[-1, -1, -1, -1] = 1
    return y + off


def not_numbers(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    return towers.grouped(x, weight, bias, padding, groups) * math.nan


def fails(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    raise RuntimeError("out of resources\nwith details")


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", ["split", "dense"])  # our own is the library's on a CPU; see test_convolve.py
def test_all_ways_agree(name: str, first: bool) -> None:
    assert towers._wrong(towers.WAYS[name], shape(first=first)) is None
    assert towers._wrong(towers.WAYS[name], shape(first=first, dtype=torch.bfloat16)) is None


def test_what_is_wrong_or_fails_is_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(towers, "_seconds", lambda way, shape: 1.0)
    for way in (one_term_short, one_number_off, not_numbers, fails):
        monkeypatch.setitem(towers.WAYS, "own", way)
        assert towers._seconds_if_right("own", shape()) == math.inf
        assert "own is left out" in capsys.readouterr().err
    assert towers._seconds_if_right("split", shape()) == 1.0


def test_a_wrong_gradient_is_out() -> None:
    def halved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
        return towers.grouped((x + x.detach()) / 2, weight, bias, padding, groups)

    assert towers._wrong(halved, shape()) == "its input's gradient"
    assert towers._wrong(halved, shape(first=True)) is None


@pytest.mark.parametrize(
    ("groups", "seconds", "expected"),
    [
        (2, {"grouped": 3.0, "split": 2.0, "dense": 4.0, "own": 2.5}, "split"),
        (1, {"grouped": 3.0, "split": 2.0, "dense": 2.0, "own": 2.5}, "own"),
        (2, dict.fromkeys(towers.WAYS, math.inf), "grouped"),
    ],
)
def test_the_fastest_is_taken(groups: int, seconds: dict[str, float], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(towers, "_seconds_if_right", lambda name, shape: seconds[name])
    assert towers.fastest.__wrapped__(shape("cuda", groups=groups)) == expected
    assert towers.fastest(shape("cpu", groups=groups)) == "grouped"
