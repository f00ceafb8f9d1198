"""A batch split over lanes gives what the whole network gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet import AlexNet
from alexnet.errors import VariantError
from alexnet.lanes import Lanes
from alexnet.variants import named

PICTURES, LANES = 7, 3  # 3, 2 and 2 pictures
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5}


def network(variant: str, dtype: torch.dtype = torch.float64) -> AlexNet:
    """A small one, in whose dropout there is no chance."""
    model = AlexNet(variant, torch.Generator().manual_seed(0), num_classes=6, width=0.25, input_size=67)
    return model.to(dtype).to(memory_format=torch.channels_last).eval()


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Pictures of grey noise, and labels."""
    images = torch.randn(PICTURES, 3, 67, 67, generator=torch.Generator().manual_seed(1), dtype=dtype) * 50
    return images.contiguous(memory_format=torch.channels_last), torch.arange(PICTURES) % 6


def gradients(model: AlexNet, split: Lanes | None = None) -> dict[str, Tensor | None]:
    """Of the mean loss of the batch, by parameter, and the logits."""
    images, labels = batch(model.conv1.weight.dtype)
    model.zero_grad()
    logits = (split or model)(images)
    F.cross_entropy(logits, labels).backward()
    return {"logits": logits.detach(), **{name: parameter.grad for name, parameter in model.named_parameters()}}


@pytest.fixture
def lanes(request: pytest.FixtureRequest) -> Lanes:
    """Three lanes of a small network in float64."""
    split = Lanes(network("paper"), LANES)
    request.addfinalizer(split.close)
    return split


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("variant", named())
def test_gradients_are_those_of_the_whole_batch(variant: str, dtype: torch.dtype) -> None:
    model = network(variant, dtype)
    whole, split = gradients(model), Lanes(model, LANES)
    parts, again = gradients(model, split), gradients(model, split)
    split.close()
    for name, expected in whole.items():
        actual = parts[name]
        assert expected is not None and actual is not None
        assert (actual - expected).norm() <= ROUNDING[dtype] * expected.norm(), name
        assert actual.equal(again[name]), f"{name}: the same lanes, other bits"


def test_weights_that_change_in_place_are_seen(lanes: Lanes) -> None:
    before = gradients(lanes.model, lanes)["logits"]
    with torch.no_grad():
        lanes.model.conv2.weight.mul_(1.1)
    assert not gradients(lanes.model, lanes)["logits"].equal(before)
    assert torch.allclose(gradients(lanes.model, lanes)["logits"], gradients(lanes.model)["logits"], rtol=1e-12)


def test_what_is_frozen_gets_no_gradient(lanes: Lanes) -> None:
    lanes.model.conv1.requires_grad_(False)
    lanes.model.conv2.weight.requires_grad_(False)
    whole, parts = gradients(lanes.model), gradients(lanes.model, lanes)
    assert {name for name, gradient in parts.items() if gradient is None} == {"conv1.weight", "conv1.bias", "conv2.weight"}
    assert all(torch.allclose(gradient, whole[name]) for name, gradient in parts.items() if gradient is not None)


def test_frozen_convolutions_cost_no_backward(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, parameter in lanes.model.named_parameters():
        parameter.requires_grad_(name.startswith("fc"))
    monkeypatch.setattr(lanes, "backward", lambda *_: pytest.fail("the lanes went backward"))
    assert not lanes.convolutions(batch()[0]).requires_grad
    assert gradients(lanes.model, lanes)["fc6.weight"] is not None


def test_at_test_nothing_is_kept_for_a_backward(lanes: Lanes) -> None:
    with torch.inference_mode():
        logits = lanes(batch()[0])
    assert not logits.requires_grad
    assert torch.allclose(logits, lanes.model(batch()[0]), rtol=1e-12)


def test_lanes_have_threads_of_their_own() -> None:
    before = torch.get_num_threads()
    split = Lanes(network("paper"), 2, 1)
    assert split.run(lambda _: torch.get_num_threads(), range(2)) == [1, 1]
    assert torch.get_num_threads() == before
    split.close()


def test_a_failure_in_a_lane_is_seen(lanes: Lanes) -> None:
    with pytest.raises(VariantError, match="input of shape"):
        lanes.convolutions(torch.zeros(PICTURES, 5, 67, 67, dtype=torch.float64))
