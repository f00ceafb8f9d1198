"""Trained or not: real filters, fresh networks, damaged kernels."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet import AlexNet
from alexnet.variants import get_variant, named
from alexnet.weights import check


@pytest.mark.parametrize("init", ["gaussian", "he", "torch"])
@pytest.mark.parametrize("variant", named())
def test_fresh_networks_do_not_look_trained(variant: str, init: str) -> None:
    net = AlexNet(get_variant(variant, width=1 / 4, num_classes=20, init=init), torch.Generator().manual_seed(1))
    result = check.network(net)
    assert not result.looks_trained
    assert abs(result.smoothness) < 0.03
    assert 0.4 < result.spread < 1.7
    assert result.warnings() == ["the weights do not look trained: check where they come from before you use or cite them."]


def test_imagenets_filters_look_trained(shared: Path) -> None:
    arrays = np.load(shared / "weights" / "imagenet-conv1-5.npz")
    result = check.tensors({name: torch.from_numpy(array) for name, array in arrays.items()})
    assert result.looks_trained
    assert result.smoothness == pytest.approx(0.51, abs=0.01)
    assert result.spread is None
    assert [name for name, _, _ in result.layers] == ["conv1", "conv2", "conv3", "conv4", "conv5"]


def test_a_network_that_learned_looks_trained() -> None:
    """Kernels are still rough after a short training; the logits tell."""
    torch.manual_seed(0)
    net = AlexNet(get_variant("paper", width=1 / 8, input_size=64, num_classes=4, init="he", pixels="unit"))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    classes = torch.randn(4, 3, 64, 64)
    for _ in range(60):
        labels = torch.randint(0, 4, (16,))
        images = classes[labels] + 0.5 * torch.randn(16, 3, 64, 64)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimiser.step()
    result = check.network(net)
    assert result.smoothness < check.SMOOTH
    assert result.looks_trained


def test_dead_kernels_are_counted() -> None:
    net = AlexNet(get_variant("caffe", width=1 / 16, num_classes=10))
    with torch.no_grad():
        net.conv2.weight[:4] = 0
        net.fc7.weight[:, :] = 0.5
    result = check.network(net)
    assert result.dead == ("conv2", "fc7")
    assert result.layers[1] == ("conv2", (16, 3, 5, 5), pytest.approx(4 / 16))
    assert "zero or constant kernels in conv2, fc7" in result.warnings()[-1]


def test_checking_changes_nothing() -> None:
    net = AlexNet(get_variant("paper", width=1 / 16, input_size=64, num_classes=3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    check.network(net)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
