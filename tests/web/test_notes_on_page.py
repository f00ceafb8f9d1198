"""Every number of the study notes is on the page, from the live network."""

from collections.abc import Callable
from pathlib import Path

import pytest
from browser import Tab

pytest_plugins = ["opening"]
#: The notes' name of each layer with ours, and its lines there.
NOTES = {
    (
        "Conv1",
        "conv1",
    ): "kernels: 48*2=96; kernel_size: 11; padding: [1,2]; stride: 4; input_size: [224,224,3]; output_size: [55,55,96]",
    ("Maxpool1", "pool1"): "kernel_size: 3; padding: 0; stride: 2; input_size: [55,55,96]; output_size: [27,27,96]",
    (
        "Conv2",
        "conv2",
    ): "kernels: 128*2=256; kernel_size: 5; stride: 1; padding: [2,2]; input_size: [27,27,96]; output_size: [27,27,256]",
    ("Maxpool2", "pool2"): "kernel_size: 3; padding: 0; stride: 2; input_size: [27,27,256]; output_size: [13,13,256]",
    (
        "Conv3",
        "conv3",
    ): "kernels: 192*2=384; kernel_size: 3; stride: 1; padding: [1,1]; input_size: [13,13,256]; output_size: [13,13,384]",
    (
        "Conv4",
        "conv4",
    ): "kernels: 192*2=384; kernel_size: 3; stride: 1; padding: [1,1]; input_size: [13,13,384]; output_size: [13,13,384]",
    (
        "Conv5",
        "conv5",
    ): "kernels: 128*2=256; kernel_size: 3; stride: 1; padding: [1,1]; input_size: [13,13,384]; output_size: [13,13,256]",
    ("Maxpool3", "pool5"): "kernel_size: 3; padding: 0; stride: 2; input_size: [13,13,256]; output_size: [6,6,256]",
}
SUMS = {
    "conv1": "224−11+(1+2)4+1=55",
    "pool1": "55−3+02+1=27",
    "conv2": "27−5+(2+2)1+1=27",
    "pool2": "27−3+02+1=13",
    "conv3": "13−3+(1+1)1+1=13",
    "conv4": "13−3+(1+1)1+1=13",
    "conv5": "13−3+(1+1)1+1=13",
    "pool5": "13−3+02+1=6",
}


def test_they_are_the_notes(shared: Path) -> None:
    """The tables above have every "key: value" of the file, but its slip."""
    notes = (
        (shared / "seed-notes.md")
        .read_text(encoding="utf-8")
        .replace(" ", "")
        .replace("paddding", "padding")
        .replace("paddinng", "padding")
    )
    lines = [
        line
        for line in notes.splitlines()
        if line.split(":")[0] in ("kernels", "kernel_size", "padding", "stride", "input_size", "output_size")
    ]
    ours = [line.replace(" ", "") for lines in NOTES.values() for line in lines.split("; ")]
    slip = ours.index("output_size:[6,6,256]")
    ours[slip] = "output_size:[13,13,256]"
    assert sorted(lines) == sorted(ours)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_number(language: str, kept: Callable[..., Tab]) -> None:
    one = kept("full", language)
    main = one.page.locator("main")
    assert (
        "8 learned layers: 5 convolutional + 3 fully connected" if language == "en" else "8 个学习层：5 个卷积层 + 3 个全连接层"
    ) in main.inner_text()
    for (_, name), lines in NOTES.items():
        one.goto(view="layer", layer=name)
        terms, values = (main.locator(f".written {tag}").all_inner_texts() for tag in ("dt", "dd"))
        shown = dict(zip(terms, values, strict=True))
        for line in lines.split("; "):
            key, value = line.split(": ")
            assert value in shown.values() if language == "zh" else shown[key] == value, (name, line)
        formula = main.locator("[data-role=formula]").first.text_content() or ""
        assert formula.replace(" ", "").endswith(SUMS[name]), (name, formula)
        assert "N=W−F+2PS+1" in formula.replace(" ", "")
