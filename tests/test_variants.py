"""What the variants are, and what cannot be."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from alexnet import variants
from alexnet.errors import VariantError

NAMES = ("paper", "code-2012", "caffe", "caffenet", "owt", "torchvision")


def order(name: str) -> list[str]:
    return [op.name for op in variants.get_variant(name).ops()]


def test_names() -> None:
    assert tuple(variants.named()) == NAMES


def test_orders() -> None:
    """Section 2 of the facts, blocks 1, 2 and 5."""
    assert order("paper")[:8] == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]
    assert order("code-2012")[:9] == ["conv1", "norm1", "pool1", "relu1", "conv2", "relu2", "norm2", "rnorm2", "pool2"]
    assert order("code-2012")[13:16] == ["conv5", "pool5", "relu5"]
    assert order("caffenet")[:8] == ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2"]
    assert order("torchvision")[:6] == ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2"]
    assert order("caffe")[-7:] == ["fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8"]
    assert order("torchvision")[-7:] == ["drop5", "fc6", "relu6", "drop6", "fc7", "relu7", "fc8"]


def test_every_difference_is_a_field() -> None:
    caffe, code = variants.get_variant("caffe"), variants.get_variant("code-2012")
    assert (caffe.input_size, caffe.conv1_padding, code.input_size, code.conv1_padding) == (227, (0, 0), 224, (0, 3))
    assert (caffe.lrn_k, code.lrn_k, caffe.lrn_window, code.lrn_window) == (1, 2, "all", "tower")
    assert caffe.lrn_coefficient == code.lrn_coefficient == pytest.approx(2e-5)
    assert code.init_std == (0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01)
    assert caffe.init_std[5:7] == (0.005, 0.005)
    assert code.init_bias == (0, 1, 0, 1, 1, 1, 1, 0)
    assert caffe.init_bias == (0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0)
    assert (caffe.channel_order, caffe.resize, caffe.class_order) == ("BGR", "squash", "wordnet")
    assert (code.dropout_scaling, caffe.dropout_scaling) == ("test", "train")
    assert (code.bias_lr, code.bias_decay, code.bias_lr_drops) == (2, 0, False)
    assert (caffe.bias_lr, caffe.bias_decay, caffe.bias_lr_drops) == (2, 0, True)
    caffenet, owt, torchvision = (variants.get_variant(name) for name in ("caffenet", "owt", "torchvision"))
    assert (caffenet.input_size, caffenet.lrn_k, caffenet.channel_order, caffenet.init_bias) == (
        227,
        1,
        "BGR",
        (0, 1, 0, 1, 1, 1, 1, 0),
    )
    assert (owt.towers, owt.kernels, owt.conv1_padding, owt.lrn_k) == (1, (64, 192, 384, 256, 256), (0, 3), 2)
    assert (torchvision.towers, torchvision.init, torchvision.pixels, torchvision.conv1_padding) == (1, "torch", "unit", (2, 2))
    assert (torchvision.dropout_position, torchvision.dropout_scaling) == ("before", "train")
    assert (torchvision.resize, torchvision.class_order, code.class_order) == ("short-side", "wordnet", "devkit")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1 / 16, 0.25, 0.5, 1.5, 2])
def test_widths_that_work(name: str, width: float) -> None:
    if width == 1 / 16:
        assert variants.get_variant(name, width=width).layers()[0].output[0] in (4, 6)
    assert variants.get_variant(name, width=width, num_classes=7).layers()[-1].output == (7,)


@pytest.mark.parametrize(
    ("name", "smallest"), [("paper", 64), ("code-2012", 64), ("caffe", 67), ("owt", 64), ("torchvision", 63)]
)
def test_smallest_input(name: str, smallest: int) -> None:
    assert variants.get_variant(name, input_size=smallest).layers()[-1].output == (1000,)
    with pytest.raises(VariantError, match=rf"input_size \(={smallest - 1}\).*smallest that works is {smallest}\."):
        variants.get_variant(name, input_size=smallest - 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0.3}, r"width \(=0\.3\) gives conv1 28\.8 .* multiples of 1/16"),
        ({"width": 0}, "width"),
        ({"width": float("nan")}, r"width \(=nan\)"),
        ({"width": float("inf")}, r"width \(=inf\)"),
        ({"conv1_padding": (-1, 0)}, r"conv1_padding \(=\(-1, 0\)\)"),
        ({"width": -1}, "width"),
        ({"width": 1 / 32}, r"conv1's 3 kernels.*divisible by towers \(=2\)"),
        ({"towers": 5}, r"conv1's 96 kernels.*divisible by towers \(=5\)"),
        ({"towers": 0}, r"towers \(=0\)"),
        ({"num_classes": 0}, r"num_classes \(=0\)"),
        ({"dropout": 1.0}, r"dropout \(=1\.0\)"),
        ({"block1": ("relu", "conv")}, "must start with 'conv'"),
        ({"wdith": 0.5}, "unknown field 'wdith' of a variant: did you mean 'width'"),
    ],
)
def test_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(VariantError, match=message):
        variants.get_variant("paper", **changes)


def test_unknown_name() -> None:
    with pytest.raises(VariantError, match="'cafe'.*did you mean 'caffe'"):
        variants.get_variant("cafe")


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        variants.get_variant("paper").width = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("width", "1", "a number"),
        ("num_classes", 2.5, "a whole number"),
        ("num_classes", True, "a whole number"),
        ("input_size", None, "a whole number"),
        ("dropout", None, "a number"),
        ("kernels", [1, 2, 3, 4, 5], "a tuple of 5, each a whole number"),
        ("pixels", "none", "'mean-image' or 'mean-colour' or 'unit'"),
    ],
)
def test_wrong_types(field: str, value: Any, kind: str) -> None:
    with pytest.raises(VariantError, match=rf"^{field} \(=.*\) must be {kind}\.$"):
        variants.get_variant("paper", **{field: value})


@pytest.mark.parametrize("name", [None, 3, b"paper", ["paper"]])
def test_what_is_no_variant(name: Any) -> None:
    with pytest.raises(VariantError, match=r"^variant \(=.*\) must be a name or a Variant: known are caffe, "):
        variants.get_variant(name)


@pytest.mark.parametrize("changes", [{"width": 1e20}, {"num_classes": 10**20}, {"input_size": 10**9}])
def test_more_parameters_than_any_machine_holds(changes: dict[str, Any]) -> None:
    with pytest.raises(VariantError, match=r"parameters, more than 1e\+12: lower one of them"):
        variants.get_variant("paper", **changes)


def test_pools_too_large_for_any_input() -> None:
    with pytest.raises(VariantError, match=r"pool_size \(=5000\) is too large"):
        variants.get_variant("paper", pool_size=5000)
