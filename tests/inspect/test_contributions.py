"""Contributions add up to what the network computes."""

import numpy as np
import pytest
import torch

from alexnet.errors import UsageError
from alexnet.inspect.contributions import contributions
from alexnet.model import AlexNet


@pytest.mark.parametrize("variant", ["paper", "torchvision"])
def test_they_add_up(variant: str) -> None:
    """In every fully connected layer, also where dropout comes before it."""
    model = AlexNet(variant, torch.Generator().manual_seed(0), width=0.125, input_size=64, num_classes=7).eval()
    with torch.no_grad():
        stages = model.stages(60 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    for name, units in (("fc8", [6, 0]), ("fc7", [3]), ("fc6", [511])):
        terms = contributions(model, stages, name, units)
        expected = stages[name][0, units].numpy()
        scale = np.abs(terms.products).sum(1) + np.abs(terms.bias)
        assert (np.abs(terms.total - expected) <= 1e-6 * scale).all()
        assert terms.products.shape == (len(units), len(terms.inputs))
        best = terms.largest(3)
        size = np.abs(terms.products).sum(0)
        assert list(best) == list(np.argsort(-size, kind="stable")[:3]) and len(terms.largest(10**6)) == len(terms.inputs)


def test_what_is_refused() -> None:
    model = AlexNet("paper", width=0.0625, input_size=64, num_classes=3).eval()
    with torch.no_grad():
        stages = model.stages(torch.zeros(1, 3, 64, 64))
    with pytest.raises(UsageError, match="'conv5' is not a fully connected layer of this network: choose fc6, fc7, fc8"):
        contributions(model, stages, "conv5", [0])
    with pytest.raises(UsageError, match="fc8 has no unit 3: they are numbered from 0 to 2"):
        contributions(model, stages, "fc8", [0, 3])
