"""The grouped walk is the network: outputs and gradients in float64, at training and at
test, for every variant.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import kernels
from alexnet.arithmetic import Conv
from alexnet.data.chance import Chance
from alexnet.fused import Fused, convolution_shapes, groups
from alexnet.kernels import convolutions as towers
from alexnet.kernels.convolutions import Passes
from alexnet.model import AlexNet
from alexnet.variants import get_variant

KEYS = torch.from_numpy(Chance(11, 12).dropout_keys(np.arange(3), 2))
VARIANTS = ["paper", "code-2012", "caffe", "caffenet", "owt", "torchvision"]
CHANGED: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in VARIANTS),
    ("paper", {"removed": ("conv2", "fc7")}),
    ("code-2012", {"removed": ("conv5",)}),
    ("caffe", {"removed": ("conv3", "fc6")}),
    ("paper", {"pool_size": 2}),
    ("paper", {"block1": ("conv", "relu", "pool"), "block2": ("conv", "relu", "pool")}),
    ("paper", {"dropout": 0.0}),
]


def network(name: str, **changes: Any) -> AlexNet:
    """A sixteenth of the width, in float64, with biases that matter; 67 pixels
    leave conv1 a remainder.
    """
    variant = get_variant(name, width=1 / 8, input_size=67, num_classes=7, init="he", **changes)
    model = AlexNet(variant, torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(0, 1, generator=torch.Generator().manual_seed(2))
    return model


def pictures(model: AlexNet) -> Tensor:
    side = model.variant.input_size
    return torch.randn(3, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 60


def blocks(x: Tensor, model: AlexNet) -> Tensor:
    return kernels.picture_blocks(x, model.variant.conv1_padding)


def fused_logits(fused: Fused, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    return fused.classifier(fused.convolutions(blocks(x, fused.model), weights), weights, KEYS)


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach(), expected.detach()
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("name", "changes"), CHANGED)
def test_the_walks_are_one(name: str, changes: dict[str, Any]) -> None:
    """Logits, loss and every gradient to 1e-10, where float64 rounds by 1e-16; at test as well."""
    model = network(name, **changes).train()
    x, labels = pictures(model), torch.tensor([0, 3, 6])
    plain = model(x, KEYS)
    expected = torch.autograd.grad(F.cross_entropy(plain, labels), list(model.parameters()))

    fused, weights = Fused(model), dict(model.named_parameters())
    logits = fused_logits(fused, x, weights)
    loss, _ = kernels.cross_entropy_topk(logits, labels)
    found = torch.autograd.grad(loss, list(weights.values()))
    assert relative(logits, plain) < 1e-10
    for parameter, one, other in zip(weights, found, expected, strict=True):
        assert relative(one, other) < 1e-10, parameter

    with torch.no_grad():
        assert relative(fused(x), model.eval()(x)) < 1e-10


@pytest.mark.parametrize(  # our own has tests/kernels/test_convolve.py
    "way", [Passes("split", "split", "split"), Passes("dense", "dense", "dense"), Passes("split", "grouped", "dense")], ids=str
)
def test_convolutions_each_way(way: Passes) -> None:
    """Output and gradients of conv2, conv4 and conv5 in towers are those of
    the grouped convolution.
    """
    model = network("paper")
    x, weights = pictures(model), dict(model.named_parameters())
    results = []
    for ways in ({}, dict.fromkeys(("conv2", "conv3", "conv4", "conv5"), way)):
        logits = fused_logits(Fused(model, ways), x, weights)
        results.append([logits, *torch.autograd.grad(logits.square().sum(), list(weights.values()))])
    for one, other in zip(*results, strict=True):
        assert relative(one, other) < 1e-12


@pytest.mark.parametrize(
    "way", [Passes("split", "split", "split", apart=True), Passes("grouped", "split", "grouped", apart=True)], ids=str
)
@pytest.mark.parametrize(("name", "changes"), CHANGED)
def test_towers_apart(name: str, changes: dict[str, Any], way: Passes) -> None:
    """The walk with towers apart, in all layers that have them and in conv5 alone."""
    model = network(name, **changes)
    in_towers = [op.name for op in model.ops if isinstance(op, Conv) and op.groups > 1]
    x, weights = pictures(model), dict(model.named_parameters())
    results = []
    for layers in ([], in_towers, in_towers[-1:]):
        logits = fused_logits(Fused(model, dict.fromkeys(layers, way)), x, weights)
        results.append([logits, *torch.autograd.grad(logits.square().sum(), list(weights.values()))])
    for together, *others in zip(*results, strict=True):
        assert all(relative(other, together) < 1e-10 for other in others)


@pytest.mark.parametrize("name", VARIANTS)
def test_towers_apart_are_written_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the kernels changes the layout: no map is copied for it."""
    model = network(name)
    way = Passes("split", "split", "split", apart=True)
    monkeypatch.setattr(towers, "apart", None)
    fused = Fused(model, {op.name: way for op in model.ops if isinstance(op, Conv) and op.groups > 1})
    fused.convolutions(blocks(pictures(model), model), dict(model.named_parameters()))


@pytest.mark.parametrize("name", VARIANTS)
def test_convolutions_are_called_as_their_shapes_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed for a layer is what the walk calls."""
    model, called = network(name), []

    def record(x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
        called.append((*x.shape[:3], *weight.shape[:1], weight.shape[2], padding, groups, x.dtype, not x.requires_grad))
        return F.conv2d(x, weight, padding=padding, groups=groups)

    monkeypatch.setitem(towers.WAYS, "grouped", replace(towers.WAYS["grouped"], forward=record))
    Fused(model).convolutions(blocks(pictures(model), model), dict(model.named_parameters()))
    shapes = convolution_shapes(model.variant, 3, torch.float64, torch.device("cpu")).values()
    assert called == [(s.batch, s.channels, s.side, s.kernels, s.size, s.padding, s.groups, s.dtype, s.first) for s in shapes]


def test_groups_of_the_paper() -> None:
    found = [[op.name for op in group] for group in groups(get_variant("paper").ops())]
    assert found[:3] == [["conv1", "relu1", "norm1", "pool1"], ["conv2", "relu2", "norm2", "pool2"], ["conv3", "relu3"]]
    assert found[5:] == [["fc6"], ["relu6", "drop6"], ["fc7"], ["relu7", "drop7"], ["fc8"]]


@pytest.mark.parametrize(("name", "changes"), CHANGED)
def test_groups_lose_nothing(name: str, changes: dict[str, Any]) -> None:
    ops = get_variant(name, **changes).ops()
    assert [op for group in groups(ops) for op in group] == list(ops)
    assert all(len({type(op) for op in group}) == len(group) for group in groups(ops))  # a kernel does each step once


def test_mixed_types() -> None:
    """Convolutions in bfloat16 with float32 biases, fc8 in float32: logits of float32,
    near the float64 network's.
    """
    model = network("paper").float()
    weights = {name: p if name.startswith("fc8") or p.dim() == 1 else p.bfloat16() for name, p in model.named_parameters()}
    weights |= {name: weights[name].bfloat16() for name in ("fc6.bias", "fc7.bias")}
    x = pictures(model).float()
    fused = Fused(model)
    logits = fused.classifier(fused.convolutions(blocks(x, model).bfloat16(), weights), weights, None)
    assert logits.dtype == torch.float32
    assert relative(logits.double(), model.double().eval()(x.double())) < 0.03  # eight layers of 2^-9, not all one way
