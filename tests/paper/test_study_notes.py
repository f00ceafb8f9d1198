"""Every line of the study notes that the project starts from comes out of `summary --explain`.

The notes have one slip: Maxpool3's output_size stands there as [13,13,256], and two lines further
down, rightly, as 6 x 6 x 256.
"""

from itertools import product
from pathlib import Path

import pytest

from alexnet import summary, variants
from alexnet.errors import VariantError

# The notes' "key: value" lines by layer, under our names for their Conv1 ... Maxpool3.
NOTES = {
    "conv1": "kernels: 48*2=96; kernel_size: 11; padding: [1,2]; stride: 4; input_size: [224,224,3]; output_size: [55,55,96]",
    "pool1": "kernel_size: 3; padding: 0; stride: 2; input_size: [55,55,96]; output_size: [27,27,96]",
    "conv2": "kernels: 128*2=256; kernel_size: 5; stride: 1; padding: [2,2]; input_size: [27,27,96]; output_size: [27,27,256]",
    "pool2": "kernel_size: 3; padding: 0; stride: 2; input_size: [27,27,256]; output_size: [13,13,256]",
    "conv3": "kernels: 192*2=384; kernel_size: 3; stride: 1; padding: [1,1]; input_size: [13,13,256]; output_size: [13,13,384]",
    "conv4": "kernels: 192*2=384; kernel_size: 3; stride: 1; padding: [1,1]; input_size: [13,13,384]; output_size: [13,13,384]",
    "conv5": "kernels: 128*2=256; kernel_size: 3; stride: 1; padding: [1,1]; input_size: [13,13,384]; output_size: [13,13,256]",
    "pool5": "kernel_size: 3; padding: 0; stride: 2; input_size: [13,13,256]; output_size: [6,6,256]",
}
SLIP = ("Maxpool3", "[13,13,256]", "[6,6,256]")
# The notes' worked sums: (W - F + 2P) / S + 1 = N.
SUMS = {
    "conv1": "(224 - 11 + (1 + 2)) / 4 + 1 = 55",
    "pool1": "(55 - 3 + 0) / 2 + 1 = 27",
    "conv2": "(27 - 5 + (2 + 2)) / 1 + 1 = 27",
    "pool2": "(27 - 3 + 0) / 2 + 1 = 13",
    "conv3": "(13 - 3 + (1 + 1)) / 1 + 1 = 13",
    "conv4": "(13 - 3 + (1 + 1)) / 1 + 1 = 13",
    "conv5": "(13 - 3 + (1 + 1)) / 1 + 1 = 13",
    "pool5": "(13 - 3 + 0) / 2 + 1 = 6",
}


def explained() -> dict[str, list[str]]:
    """Layer name -> its lines in `alexnet summary paper --explain`."""
    lines: dict[str, list[str]] = {}
    for line in summary.explain(variants.get_variant("paper")).splitlines():
        if line.endswith(":") and not line.startswith(" "):
            lines[line[:-1]] = current = []
        elif line.startswith("  "):
            current.append(line.strip())
    return lines


@pytest.mark.parametrize("layer", NOTES)
def test_line_by_line(layer: str) -> None:
    found = explained()[layer]
    for line in NOTES[layer].split("; "):
        assert line in found
    assert any(SUMS[layer] in line for line in found)


def test_the_notes_themselves(shared: Path) -> None:
    """The table above is the notes': each of its values stands in the file, the slip included."""
    notes = (shared / "seed-notes.md").read_text().replace(" ", "")
    for name, block in zip(
        ("Conv1:", "Maxpool1:", "Conv2:", "Maxpool2:", "Conv3:", "Conv4:", "Conv5:", "Maxpool3:"), NOTES.values(), strict=True
    ):
        section = notes[notes.index("\n" + name) :].split("####")[0]
        for line in block.replace(" ", "").split(";"):
            value = line.split(":")[1]
            if (name[:-1], value) == (SLIP[0], SLIP[2]):
                assert f"output_size:{SLIP[1]}" in section  # what the notes say
                continue
            assert value in section, (name, line)
    assert "(6x6x256)" in notes  # what they say two lines further down


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((224, 11, 4, (1, 2)), 55),
        ((224, 11, 4, (0, 3)), 55),
        ((227, 11, 4), 55),
        ((224, 11, 4, 2), 55),
        ((13, 3, 2), 6),
        ((54, 3, 2), 26),
    ],
)
def test_output_size(arguments: tuple[int, ...], expected: int) -> None:
    from alexnet.arithmetic import output_size

    assert output_size(*arguments) == expected


def test_output_size_by_counting() -> None:
    """The formula against placing the window wherever it fits."""
    from alexnet.arithmetic import output_size

    for size, kernel, stride, padding in product(range(1, 20), range(1, 8), range(1, 5), ((0, 0), (1, 2), (3, 0))):
        positions = len(range(0, size + sum(padding) - kernel + 1, stride))
        if positions:
            assert output_size(size, kernel, stride, padding) == positions
        else:
            with pytest.raises(VariantError, match="does not fit"):
                output_size(size, kernel, stride, padding)
