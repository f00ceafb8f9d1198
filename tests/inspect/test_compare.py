"""Where two variants part on a real photo, and why."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alexnet import AlexNet
from alexnet.errors import CheckpointError
from alexnet.inspect import compare
from alexnet.trained import Trained
from alexnet.variants import get_variant
from alexnet.weights.importer import default_classes, published_preprocessing
from conftest import draw


def trained(variant: str = "caffe", **changes) -> Trained:
    """Weights on which LRN matters: conv1's responses are near 100."""
    chosen = get_variant(variant, width=1 / 8, num_classes=10, **changes)
    net = AlexNet(replace(chosen, init="he"), torch.Generator().manual_seed(5)).eval()
    net.variant = chosen
    return Trained(net, default_classes(chosen), published_preprocessing(chosen), {}, {})


@pytest.fixture
def photo(shared: Path) -> bytes:
    return next((shared / "data" / "imagenet-originals").glob("*.JPEG")).read_bytes()


def test_caffe_and_caffenet_part_behind_relu1(photo: bytes) -> None:
    """Their one difference in the forward pass is the order of pool and norm, in blocks 1 and 2."""
    stages, effects = compare.compare(trained(), "caffe", "caffenet", photo)
    distances = {stage.name: stage.distance for stage in stages}
    assert distances["input"] == distances["conv1"] == distances["relu1"] == 0
    assert all(distances[name] > 0 for name in ("conv2", "conv5", "fc8"))
    assert [effect.fields for effect in effects if effect.stage] == [("block1",), ("block2",)]
    assert [effect.fields for effect in effects if not effect.stage] == [("init_bias",)]
    assert all(effect.at_logits > 0 for effect in effects if effect.stage)
    lines = list(compare.explain(effects, "caffe", "caffenet"))
    assert "The first difference comes from block1" in lines[0]
    assert "No effect on the result: init_bias." in lines[-1]


def test_every_field_between_caffe_and_the_paper(photo: bytes) -> None:
    stages, effects = compare.compare(trained(), "caffe", "paper", photo)
    by_field = {effect.fields: effect for effect in effects}
    assert by_field["input_size", "conv1_padding"].stage == "input"
    assert by_field[("channel_order",)].stage == "input"
    assert by_field[("resize",)].stage == "input"
    assert by_field[("lrn_k",)].stage == "norm1"
    assert by_field[("dropout_scaling",)].stage == "drop6"
    assert by_field[("bias_lr",)].stage is None
    assert stages[0].name == "input"
    assert "against" in stages[0].remark  # 227 against 224 pixels
    assert effects[0].stage == "input"


def test_the_distance_of_k_is_that_of_the_formula(photo: bytes) -> None:
    """norm1 with k = 1 against k = 2, from relu1 in float64."""
    own = trained()
    _, effects = compare.compare(own, "caffe", "paper", photo)
    effect = next(effect for effect in effects if effect.fields == ("lrn_k",))
    pixels = compare._run(own, get_variant("caffe", width=1 / 8, num_classes=10), photo)["relu1"].double()
    squares = torch.nn.functional.pad(pixels**2, (0, 0, 0, 0, 2, 2))
    total = sum(squares[:, shift : shift + pixels.shape[1]] for shift in range(5)) * 2e-5
    first, second = (pixels * (k + total) ** -0.75 for k in (1, 2))
    assert effect.distance == pytest.approx(float((second - first).norm() / first.norm()), rel=1e-5)


def test_the_same_variant(photo: bytes) -> None:
    stages, effects = compare.compare(trained(), "caffe", "caffe", photo)
    assert all(stage.distance == 0 for stage in stages)
    assert list(compare.explain(effects, "caffe", "caffe")) == ["caffe and caffe compute the same on this picture."]


def test_stages_that_one_alone_has(photo: bytes) -> None:
    stages, _ = compare.compare(trained("paper"), "paper", "code-2012", photo)
    assert {stage.name: stage.remark for stage in stages}["rnorm2"] == "only in the second"


def test_a_small_input(tmp_path: Path) -> None:
    draw((200, 50, 40), 1, (90, 80)).save(tmp_path / "x.png")
    stages, effects = compare.compare(trained("paper", input_size=64), "paper", "caffe", (tmp_path / "x.png").read_bytes())
    assert stages[-1].distance is not None
    assert ("lrn_k",) in [effect.fields for effect in effects]


def test_other_widths_are_refused(photo: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"do not fit 'torchvision': conv1\.weight has shape .* such as caffe"):
        compare.compare(trained(), "caffe", "torchvision", photo)
