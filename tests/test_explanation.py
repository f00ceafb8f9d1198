"""What is said of a network: the same in every language, and right for every variant.

The lines of the study notes are held in `paper/test_study_notes.py`.
"""

import re
from dataclasses import replace
from pathlib import Path
from string import Formatter

import pytest

from alexnet import explanation, summary, words
from alexnet.arithmetic import Conv, MaxPool
from alexnet.errors import UsageError
from alexnet.variants import Variant, get_variant, named

CHANGED = {
    **named(),
    "half": get_variant("paper", width=0.5, input_size=64, num_classes=10),
    "without conv4 and fc7": replace(get_variant("paper"), removed=("conv4", "fc7")),
    "tanh, apart": replace(get_variant("torchvision"), activation="tanh", pool_size=2),
}
HAN = re.compile("[\u4e00-\u9fff]")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_languages_have_the_same_keys() -> None:
    """And in each text the same placeholders; all of Chinese is translated but names of
    functions.
    """
    assert set(words.CATALOGUE) == set(words.LANGUAGES)
    for language, texts in words.CATALOGUE.items():
        assert list(texts) == list(words.ENGLISH), language
        for key, text in texts.items():
            assert placeholders(text) == placeholders(words.ENGLISH[key]), (language, key)
            assert text.strip(), (language, key)
    assert not any(HAN.search(text) for text in words.ENGLISH.values())


def test_every_word_is_used() -> None:
    """A key that nothing asks for would be translated in vain."""
    source = "".join(path.read_text() for path in Path(words.__file__).parent.rglob("*.py") if path.name != "words.py")
    for key in words.ENGLISH:
        prefix = key.rpartition("_")[0]
        assert f'"{key}"' in source or f'f"{prefix}_{{' in source, key


def test_unknown_language() -> None:
    with pytest.raises(UsageError, match=r"language \(='fr'\) must be one of en, zh"):
        explanation.parts(get_variant("paper"), "fr")


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("language", words.LANGUAGES)
def test_every_layer_in_every_language(name: str, language: str) -> None:
    """The numbers do not depend on the language, and every sum in them is right."""
    variant = CHANGED[name]
    parts = explanation.parts(variant, language)
    assert [part.name for part in parts] == [*(layer.name for layer in variant.layers()), "softmax"]
    for part, english in zip(parts, explanation.parts(variant), strict=True):
        assert [sorted(re.findall(r"\d[\d,.]*\d|\d", line.value)) for line in part.lines] == [
            sorted(re.findall(r"\d[\d,.]*\d|\d", line.value)) for line in english.lines
        ]
        assert (language == "zh") == any(HAN.search(line.label + line.value) for line in part.lines)
        for line in part.lines:
            for left, right in re.findall(r"(?:^|= )([\d *+()/-]+) = ([\d,.]+\d|\d)", line.value):
                assert eval(left) == pytest.approx(float(right.replace(",", "")), rel=1e-3), line


@pytest.mark.parametrize("name", CHANGED)
def test_sizes_that_are_rounded_say_so(name: str) -> None:
    variant = CHANGED[name]
    for layer in variant.layers():
        if isinstance(layer.op, Conv | MaxPool):
            padding = sum(layer.op.padding) if isinstance(layer.op, Conv) else 0
            whole = (layer.input[1] - layer.op.size + padding) % layer.op.stride == 0
            assert ("rounded down" in explanation.size_formula(layer)) != whole


LINES = {
    "paper": (
        "8 learned layers: 5 convolutional + 3 fully connected",
        "  f(x) = max(0, x), for each of 55*55*96 = 290,400 values",
        "  in training: each unit becomes 0 with probability 0.5",
        "  at test: every unit times 1 - 0.5 = 0.5",
        "  p_i = e^z_i / (e^z_1 + ... + e^z_1000): 1000 probabilities whose sum is 1",
        "  each kernel reads: 48 of the 96 maps, those of its own tower",
        "  each kernel reads: all 256 maps, those of both towers",
        "parameters: 60,965,224",
    ),
    "torchvision": (
        "drop5:\n  in training: each unit becomes 0 with probability 0.5; the others are divided by 0.5\n  at test: nothing",
        "(224 - 11 + (2 + 2)) / 4 + 1 = 55.25, rounded down: 55",
        "  kernels: 64\n",
        "  each kernel reads: all 64 maps\n",
    ),
    "caffe": ("  overlap: 3 - 2 = 1 of 3 rows belong to the next window too",),
    "code-2012": ("over 5 channels of its tower)", "over 5 x 5 pixels of one map)"),
    "without conv4 and fc7": ("6 learned layers: 4 convolutional + 2 fully connected",),
    "tanh, apart": ("  f(x) = tanh(x), for each of 55*55*64",),
    "half": ("units: 1024*2=2048", "units: 10\n", "receptive field: 64 x 64 pixels, the whole picture"),
}


@pytest.mark.parametrize("name", LINES)
def test_lines(name: str) -> None:
    text = summary.explain(CHANGED[name])
    for line in LINES[name]:
        assert line in text
    assert ("overlap" in text) != (CHANGED[name].pool_size == 2)
    assert "None" not in text and "{" not in text


def test_chinese() -> None:
    text = summary.explain(get_variant("paper"), "zh")
    for line in (
        "8 个学习层：5 个卷积层 + 3 个全连接层",
        "  卷积核个数：48*2=96\n  卷积核大小：11\n  填充：[1,2]\n  步长：4\n",
        "  池化核大小：3\n",
        "  测试时：每个神经元乘以 1 - 0.5 = 0.5",
    ):
        assert line in text


def rendered(variant: Variant, language: str) -> str:
    return summary.explain(variant, language, "markdown")


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_markdown(language: str) -> None:
    """One heading a layer; outside code there is no asterisk that could become emphasis."""
    text = rendered(get_variant("paper"), language)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE)[:4] == ["conv1", "relu1", "norm1", "pool1"]
    assert text.startswith(f"# {explanation.title(get_variant('paper'), language)}\n\n8 ")
    assert "`48*2=96`" in text and "`[1,2]`" in text and "60,965,224" in text
    assert not set("*_^[") & set(
        re.sub(r"`[^`\n]*`", "", text).replace("kernel_size", "").replace("put_size", "").partition("\n")[2]
    )
