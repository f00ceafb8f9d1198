"""The number under the pointer is the network's number: what the page works out, read from its
elements in a real browser, against `stages()`.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from browser import Tab
from numpy.typing import NDArray
from pages import Made

from alexnet.arithmetic import LRN, Conv, Layer, Linear, MaxPool, SpatialNorm
from alexnet.model import AlexNet

pytest_plugins = ["opening"]
CELLS, FEWER = 200, 50  # of each layer, besides corners and seam: of the full network, of the others
READ = """states => states.map(state => {
  alexnet.goto({ view: "number", ...state });
  const number = role => Number(document.querySelector(`main [data-role=${role}]`)?.dataset.value ?? NaN);
  return [number("value"), number("stored")];
})"""


def stages(made: Made) -> dict[str, torch.Tensor]:
    """Every stage of the network on the page's picture, and the picture."""
    x = torch.from_numpy(made.scene.arrays["input"])[None]
    return {"input": x, **made.shown.model.stages(x)}


def magnitude(model: AlexNet, layer: Layer, x: torch.Tensor) -> NDArray[np.float64]:
    """The sum of |products| and |bias| of each cell; for what has no products, |value|."""
    op, x = layer.op, x.abs().double()
    if isinstance(op, Conv):
        weight, bias = (model.get_parameter(f"{op.name}.{kind}").abs().double() for kind in ("weight", "bias"))
        before, after = op.padding
        return F.conv2d(F.pad(x, (before, after) * 2), weight, bias, op.stride, groups=op.groups)[0].numpy()
    if isinstance(op, Linear):
        weight, bias = (model.get_parameter(f"{op.name}.{kind}").abs().double() for kind in ("weight", "bias"))
        return F.linear(x.flatten(1), weight, bias)[0].numpy()
    return (F.max_pool2d(x, op.size, op.stride) if isinstance(op, MaxPool) else x)[0].numpy()


def cells(layer: Layer, towers: int, random: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    """Channel, row and column: by chance, the corners, and the channels beside the seam."""
    channels, height, width = layer.output
    chosen = [tuple(map(int, random.integers(0, layer.output))) for _ in range(count)]
    chosen += [(int(random.integers(channels)), row, column) for row in (0, height - 1) for column in (0, width - 1)]
    seams = [channels * tower // towers for tower in range(1, towers)]
    edges = {0, 1, channels - 2, channels - 1, *(seam + step for seam in seams for step in (-2, -1, 0, 1))}
    return chosen + [(channel, int(random.integers(height)), int(random.integers(width))) for channel in sorted(edges)]


@pytest.mark.parametrize("name", ["full", "code-2012", "torchvision", "one tower"])
def test_every_kind_of_number(name: str, made: Callable[[str], Made], kept: Callable[..., Tab]) -> None:
    page, one = made(name), kept(name)
    variant, found, random = page.shown.variant, stages(page), np.random.default_rng(2012)
    names = ["input", *(layer.name for layer in variant.layers())]
    for before, layer in zip(names, variant.layers(), strict=False):
        if not isinstance(layer.op, Conv | LRN | SpatialNorm | MaxPool):
            continue
        places = cells(layer, variant.towers, random, CELLS if name == "full" else FEWER)
        states = [{"layer": layer.name, "channel": c, "row": row, "column": column} for c, row, column in places]
        worked_out, stored = np.array(one.page.evaluate(READ, states)).T
        right = np.array([found[layer.name][0][place].item() for place in places])
        allowed = 1e-5 * magnitude(page.shown.model, layer, found[before])[tuple(np.array(places).T)]
        assert (np.abs(worked_out - right) <= allowed).all(), layer.name
        assert np.abs(stored - right).max() <= 1e-5 * np.abs(right).max()
        if isinstance(layer.op, LRN | SpatialNorm):  # it has something to do
            assert not np.allclose(
                right, found[before][0].numpy()[tuple(np.array(places).T)] / layer.op.k**layer.op.beta, rtol=1e-3
            )


@pytest.mark.parametrize("name", ["full", "torchvision"])
def test_every_unit_that_the_page_carries(name: str, made: Callable[[str], Made], kept: Callable[..., Tab]) -> None:
    page, one = made(name), kept(name)
    found = stages(page)
    names = ["input", *(layer.name for layer in page.shown.variant.layers())]
    counted = 0
    for before, layer in zip(names, page.shown.variant.layers(), strict=False):
        if isinstance(layer.op, Linear):
            rows = page.scene.arrays[f"{layer.name}.rows"].tolist()
            worked_out, _ = np.array(one.page.evaluate(READ, [{"layer": layer.name, "channel": row} for row in rows])).T
            allowed = 1e-5 * magnitude(page.shown.model, layer, found[before])[rows]
            assert (np.abs(worked_out - found[layer.name][0][rows].numpy()) <= allowed).all()
            counted += len(rows)
    assert counted >= 5 + 32 + 16


def test_what_follows_a_layer(made: Callable[[str], Made], kept: Callable[..., Tab]) -> None:
    """ReLU, tanh, dropout and softmax."""
    for name in ("paper", "changed", "torchvision"):
        page, one = made(name), kept(name)
        found, random = stages(page), np.random.default_rng(7)
        for layer in page.shown.variant.layers():
            if isinstance(layer.op, Conv | LRN | SpatialNorm | MaxPool | Linear):
                continue
            places = [int(place) for place in random.integers(0, prod(layer.output), 20)]
            shape = (*layer.output, 1, 1)[:3]
            states: list[dict[str, Any]] = []
            for place in places:
                channel, row, column = (int(part) for part in np.unravel_index(place, shape))
                states.append({"layer": layer.name, "channel": channel, "row": row, "column": column})
            worked_out, _ = np.array(one.page.evaluate(READ, states)).T
            right = found[layer.name][0].flatten()[places].numpy()
            assert np.abs(worked_out - right).max() <= 1e-5 * max(1, np.abs(right).max()), layer.name
        shares = torch.softmax(found["fc8"][0].double(), 0)
        classes = range(len(shares))[:50]
        worked_out, _ = np.array(one.page.evaluate(READ, [{"layer": "softmax", "channel": one} for one in classes])).T
        assert np.abs(worked_out - shares[classes].numpy()).max() <= 1e-5
