"""The paper's numbers, derived: what section 3 and figure 2 say, and what follows from it."""

import pytest

from alexnet import arithmetic, paper, variants

# name: output (C, H, W), parameters, multiply-adds. Counted by hand from figure 2 and section 3.5.
TABLE = {
    "conv1": ((96, 55, 55), 34_944, 105_415_200),
    "pool1": ((96, 27, 27), 0, 0),
    "conv2": ((256, 27, 27), 307_456, 223_948_800),
    "pool2": ((256, 13, 13), 0, 0),
    "conv3": ((384, 13, 13), 885_120, 149_520_384),
    "conv4": ((384, 13, 13), 663_936, 112_140_288),
    "conv5": ((256, 13, 13), 442_624, 74_760_192),
    "pool5": ((256, 6, 6), 0, 0),
    "fc6": ((4096,), 37_752_832, 37_748_736),
    "fc7": ((4096,), 16_781_312, 16_777_216),
    "fc8": ((1000,), 4_097_000, 4_096_000),
}


@pytest.mark.parametrize("name", TABLE)
def test_layer(name: str) -> None:
    layer = {layer.name: layer for layer in variants.get_variant("paper").layers()}[name]
    assert (layer.output, layer.parameters, layer.multiply_adds) == TABLE[name]


def test_totals() -> None:
    net = variants.get_variant("paper")
    assert net.parameters == 60_965_224
    assert net.multiply_adds == 724_406_816
    assert arithmetic.training_flop(net.layers()) == 4_135_610_496
    assert arithmetic.units(net.layers()) == 659_272


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("code-2012", 60_965_224),
        ("caffe", 60_965_224),
        ("caffenet", 60_965_224),
        ("owt", 61_100_840),
        ("torchvision", 61_100_840),
    ],
)
def test_other_variants(name: str, parameters: int) -> None:
    assert variants.get_variant(name).parameters == parameters


def test_without_towers() -> None:
    """One tower of the same width: every kernel sees every map."""
    assert variants.get_variant("paper", towers=1).parameters == 62_378_344


def test_the_papers_words_agree_with_its_figure() -> None:
    net = variants.get_variant("paper")
    assert net.parameters == pytest.approx(paper.STATED_PARAMETERS, rel=0.02)  # "60 million parameters"
    assert arithmetic.units(net.layers()) == pytest.approx(paper.STATED_NEURONS, rel=0.02)  # "650,000 neurons"


def test_receptive_fields() -> None:
    """By the recurrence r += (k - 1) * j, j *= s, worked out on paper for pool5:
    195 pixels, one every 32.
    """
    layers = {layer.name: layer for layer in variants.get_variant("paper").layers()}
    assert (layers["conv1"].receptive_field, layers["conv1"].jump) == (11, 4)
    assert (layers["pool5"].receptive_field, layers["pool5"].jump) == (195, 32)
    assert layers["fc6"].receptive_field == 224


def test_activation_memory() -> None:
    layers = {layer.name: layer for layer in variants.get_variant("paper").layers()}
    assert layers["conv1"].activation_bytes == 4 * 96 * 55 * 55


def test_no_value_sees_more_than_the_picture() -> None:
    """Of 67 pixels conv3 would see 99 and pool5 195, and fc6, which reads all of it, 67."""
    layers = {layer.name: layer for layer in variants.get_variant("paper", input_size=67).layers()}
    assert [layers[name].receptive_field for name in ("conv2", "pool2", "conv3", "pool5", "fc6")] == [51, 67, 67, 67, 67]
    assert layers["pool5"].jump == 32
