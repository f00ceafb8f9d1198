"""Drawings show what the variant is: every number under its column, no text over another, the same
bytes each time.
"""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from alexnet import explanation, kernels
from alexnet.arithmetic import LRN, Conv, Linear, MaxPool
from alexnet.cli import main
from alexnet.errors import UsageError
from alexnet.inspect import drawing
from alexnet.inspect.drawing import overview, strip
from alexnet.inspect.drawing.layer import layer_sheet
from alexnet.inspect.drawing.sheet import Text, typeset
from alexnet.variants import Variant, get_variant, named
from alexnet.words import LANGUAGES, word

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
DRAWN = {
    **named(),
    "half": get_variant("paper", width=0.5, input_size=64, num_classes=10),
    "without conv3 and fc7": replace(get_variant("caffe"), removed=("conv3", "fc7")),
    "apart": replace(get_variant("torchvision"), activation="tanh", pool_size=2),
    "never talk": replace(get_variant("paper"), sees_both_towers=(True, False, False, False, False)),
    "four towers": replace(get_variant("paper"), towers=4),
}
LEARNED = (Conv, MaxPool, Linear)
LAYERS = [(name, layer) for name in ("paper", "torchvision", "half", "apart") for layer in drawing.layer_names(DRAWN[name])]
LAYERS = [(name, layer) for name, layer in LAYERS if name == "paper" or not layer.startswith("relu")] + [
    ("code-2012", "rnorm2")
]


def texts(svg: str) -> list[tuple[float, float, str]]:
    """x, y and words of every text."""
    found = ET.fromstring(svg).iter(f"{SVG}text")
    return [(float(one.get("x") or 0), float(one.get("y") or 0), one.text or "") for one in found]


def columns(variant: Variant) -> dict[str, dict[str, str]]:
    """The overview's table as it is drawn: layer -> label of a row -> what is in it."""
    written = texts(drawing.svg(variant))
    bottom = next(y for _, y, words in written if words == "conv1")
    labels = {y: words for x, y, words in written if x == 22 and y > bottom}
    names = {x: words for x, y, words in written if y == bottom}
    table: dict[str, dict[str, str]] = {name: {} for name in names.values()}
    for x, y, words in written:
        if x in names and y > bottom:
            label = labels[max(place for place in labels if place <= y)]
            table[names[x]][label] = " ".join([*filter(None, [table[names[x]].get(label)]), words])
    return table


@pytest.mark.parametrize("name", DRAWN)
def test_the_overview_has_every_number(name: str) -> None:
    """Sizes by counting the places of the window, not by the formula that drew them."""
    variant = DRAWN[name]
    table, towers = columns(variant), variant.towers
    assert table["picture"] == {"output": f"{variant.input_size} × {variant.input_size}", "maps, units": "3"}
    shown = [layer for layer in variant.layers() if isinstance(layer.op, Conv | MaxPool | Linear)]
    assert list(table) == ["picture", *(layer.name for layer in shown)]
    side = variant.input_size
    for layer in shown:
        cells, op = table[layer.name], layer.op
        if isinstance(op, Linear):
            count = op.units
            assert "output" not in cells and "stride" not in cells
        else:
            before, after = op.padding if isinstance(op, Conv) else (0, 0)
            side = len(range(-before, side + after - op.size + 1, op.stride))
            count = layer.output[0]
            assert cells["output"] == f"{side} × {side}"
            assert (cells["kernel size"], cells["stride"]) == (f"{op.size} × {op.size}", f"{op.stride}")
            assert cells["padding"] == (f"[{before}, {after}]" if isinstance(op, Conv) else "0")
        one = towers == 1 or layer is shown[-1]
        assert cells["maps, units"] == (f"{count}" if one else f"{count // towers}·{towers}")
        assert cells.get("parameters", "0") == f"{layer.parameters:,}"
        both = isinstance(op, Linear) or (isinstance(op, Conv) and op.groups == 1)
        reads = "picture" if layer is shown[0] else ("both" if towers == 2 else "all") if both else "own"
        assert cells.get("reads tower") == (reads if towers > 1 else None)


def test_what_follows_a_layer() -> None:
    """ReLU, LRN, dropout and softmax in the order of the variant."""
    paper, code, torchvision = (columns(get_variant(name)) for name in ("paper", "code-2012", "torchvision"))
    assert [paper[name].get("then") for name in ("conv1", "pool1", "conv3", "fc6", "fc8")] == [
        "ReLU LRN",
        None,
        "ReLU",
        "ReLU dropout 0.5",
        "softmax",
    ]
    assert (code["conv1"]["then"], code["pool1"]["then"], code["conv2"]["then"]) == ("LRN", "ReLU", "ReLU LRN spatial LRN")
    assert (torchvision["pool5"]["then"], torchvision["fc7"]["then"]) == ("dropout 0.5", "ReLU")


@pytest.mark.parametrize(
    ("name", "crossing"), [("paper", 1), ("never talk", 0), ("without conv3 and fc7", 0), ("torchvision", 0)]
)
def test_towers_meet_where_the_variant_says(name: str, crossing: int) -> None:
    """A layer that reads both towers has four windows where the others have two."""
    variant = DRAWN[name]
    windowed = sum(isinstance(op, Conv | MaxPool) for op in variant.ops())
    circles = [shape for shape in overview.network_sheet(variant).shapes if len(getattr(shape, "points", ())) == 24]
    assert len(circles) == windowed * variant.towers + 2 * crossing


# The study notes' numbers, layer by layer.
NOTES = {
    "conv1": "224 × 224 × 3; 11 × 11 × 3; 48·2 = 96 kernels; 55 × 55 × 96; stride 4; padding 1; padding 2; (224 − 11 + (1 + 2)) / 4 + 1 = 55",
    "pool1": "55 × 55 × 96; 3 × 3; 27 × 27 × 96; stride 2; (55 − 3 + 0) / 2 + 1 = 27",
    "conv2": "27 × 27 × 96; 5 × 5 × 48; 128·2 = 256 kernels; 27 × 27 × 256; stride 1; padding 2; (27 − 5 + (2 + 2)) / 1 + 1 = 27",
    "pool2": "27 × 27 × 256; 3 × 3; 13 × 13 × 256; stride 2; (27 − 3 + 0) / 2 + 1 = 13",
    "conv3": "13 × 13 × 256; 3 × 3 × 256; 192·2 = 384 kernels; 13 × 13 × 384; stride 1; padding 1; (13 − 3 + (1 + 1)) / 1 + 1 = 13",
    "conv4": "13 × 13 × 384; 3 × 3 × 192; 192·2 = 384 kernels; stride 1; padding 1; (13 − 3 + (1 + 1)) / 1 + 1 = 13",
    "conv5": "13 × 13 × 384; 3 × 3 × 192; 128·2 = 256 kernels; 13 × 13 × 256; stride 1; padding 1; (13 − 3 + (1 + 1)) / 1 + 1 = 13",
    "pool5": "13 × 13 × 256; 3 × 3; 6 × 6 × 256; stride 2; (13 − 3 + 0) / 2 + 1 = 6",
    "fc6": "6 × 6 × 256; 9,216 values; 2048·2 = 4096 units; 37,752,832",
    "fc7": "4,096 values; 2048·2 = 4096 units; 16,781,312",
    "fc8": "4,096 values; 1000 units; 4,097,000",
}
# What they leave out.
RULES = {
    "relu1": "max(0, x); 55 × 55 × 96; 55×55×96 = 290,400 values",
    "relu6": "max(0, x); x₁; y₄₀₉₆; 4,096",
    "norm1": "local response normalisation; 5 channels; 55 × 55 × 96; (2 + 2e-05 × sum of a² over 5 channels) ^ 0.75; b₄₈; 96",
    "drop6": "in training; at test; x₁ · 0.5; x₄₀₉₆ · 0.5; 4,096 values; 1 − 0.5 = 0.5",
    "softmax": "1000 scores; e^z₁₀₀₀; 1000 probabilities; p₁₀₀₀; p_i = e^z_i / (e^z_1 + ... + e^z_1000)",
}


@pytest.mark.parametrize("layer", NOTES | RULES)
def test_the_study_notes(layer: str) -> None:
    written = [words for _, _, words in texts(drawing.svg("paper", layer))]
    for number in (NOTES | RULES)[layer].split("; "):
        assert any(number in words for words in written), number


def test_every_layer_has_a_drawing() -> None:
    for variant in DRAWN.values():
        assert drawing.layer_names(variant) == [*(layer.name for layer in variant.layers()), "softmax"]
    assert set(NOTES) == {layer.name for layer in get_variant("paper").layers() if isinstance(layer.op, LEARNED)}


@pytest.mark.parametrize("name", ["paper", "code-2012", "owt", "half", "four towers"])
def test_neighbours_are_those_that_the_network_sums(name: str) -> None:
    """A channel's bar covers exactly the channels that move it."""
    norm = next(layer for layer in DRAWN[name].layers() if layer.name == "norm1")
    shapes = layer_sheet(DRAWN[name], "norm1").shapes
    cells = {shape.at[0]: int(shape.words) for shape in shapes if isinstance(shape, Text) and shape.size == 11}
    bars = [[x for x, _ in shape.points] for shape in shapes if getattr(shape, "width", 0) == 1.2 and shape.fill == "card"]
    named = [shape for shape in shapes if isinstance(shape, Text) and re.fullmatch("b[₀-₉]+", shape.words)]
    op = norm.op
    assert isinstance(op, LRN) and len(named) == len(bars) >= 3
    for text, bar in zip(named, bars, strict=True):
        channel = int(text.words[1:].translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")))
        x = torch.ones(1, norm.output[0], 1, 1, requires_grad=True)
        kernels.lrn(x, op.size, op.coefficient, op.beta, op.k, op.towers)[0, channel - 1].sum().backward()
        assert x.grad is not None
        moving = (x.grad[0, :, 0, 0].nonzero()[:, 0] + 1).tolist()
        assert [number for at, number in cells.items() if min(bar) < at < max(bar)] == moving
        assert cells[text.at[0]] == channel


@pytest.mark.parametrize("name", DRAWN)
def test_each_layer_has_its_calculations(name: str) -> None:
    for layer in DRAWN[name].layers():
        if layer.name in drawing.layer_names(DRAWN[name]):
            written = [words for _, _, words in texts(drawing.svg(DRAWN[name], layer.name, "zh"))]
            for line in explanation.lines(layer, DRAWN[name], "zh")[-2:]:
                assert any(typeset(line.value) in words for words in written)
    assert ("rounded down" in drawing.svg("torchvision", "conv1")) and "1 not read" in drawing.svg("torchvision", "conv1")
    assert "not read" not in drawing.svg("paper", "conv1")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_windows_of_the_strip(size: int, stride: int) -> None:
    """Whatever the side, each drawn window is whole and as wide as its cells."""
    for total in (size, size + 1, 12, 15, 31, 39, 41, 55, 227):
        if total < size:
            continue
        fitting = (total - size) // stride + 1
        row = strip._row(total, fitting, MaxPool(name="pool", size=size, stride=stride))
        assert row.x(0) == 60 and row.right <= 940.001
        assert [*row.shown] == sorted(set(row.shown)) and row.head + row.tail <= total
        for number in {0, 1, 2, fitting - 2, fitting - 1} & set(range(fitting)):
            start, end = number * stride, number * stride + size
            assert set(range(start, end)) <= set(row.shown)
            assert row.x(end) - row.x(start) == pytest.approx(size * row.cell)


def overlapping(figure: "drawing.Figure") -> list[tuple[str, str]]:
    """Pairs of texts whose boxes meet, and texts that reach out of the figure (paired with "")."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    written = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in written]
    whole = figure.bbox
    outside = [(words, "") for words, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > whole.x1 or box.y1 > whole.y1]
    return outside + [(one, other) for (one, a), (other, b) in combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", DRAWN)
def test_no_text_over_another_in_the_overview(name: str, language: str) -> None:
    """In matplotlib's own font, which is wider than those of browsers."""
    assert overlapping(drawing.figure(DRAWN[name], language=language)) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_no_text_over_another_in_a_layer(name: str, layer: str, language: str) -> None:
    assert overlapping(drawing.figure(DRAWN[name], layer, language)) == []


@pytest.mark.parametrize("name", DRAWN)
def test_svg(name: str) -> None:
    """Valid, small, named for screen readers, without an address outside, and with both colours of
    each shape.
    """
    for layer in (None, *drawing.layer_names(DRAWN[name])):
        text = drawing.svg(DRAWN[name], layer)
        root = ET.fromstring(text)
        assert len(text.encode()) < 100_000 and root.get("role") == "img"
        assert [root[0].tag, root[1].tag] == [f"{SVG}title", f"{SVG}desc"]
        assert DRAWN[name].name in (root[0].text or "") and len(root[1].text or "") > 60
        assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"] and "nan" not in text
        classes = set(" ".join(re.findall(r'class="([^"]+)"', text)).split())
        assert all(f".{one}{{" in text for one in classes)
        width, height = (float(root.get(side) or 0) for side in ("width", "height"))
        for points in re.findall(r' d="M([^"Z]+)', text):
            for x, y in (map(float, point.split()) for point in points.split("L")):
                assert 0 <= x <= width and 0 <= y <= height


def test_chinese() -> None:
    for layer in (None, "conv1", "pool1", "fc6", "norm1", "drop6", "softmax"):
        words = " ".join(words for _, _, words in texts(drawing.svg("paper", layer, "zh")))
        names = r"\b(?:AlexNet|paper|(?:conv|pool|fc|norm|drop)\d|max|ReLU|LRN|dropout|softmax)\b"
        assert not re.search(r"[A-Za-z]{3}", re.sub(names, "", words)), words
    assert word("tower", "zh", number=1) in drawing.svg("paper", language="zh")


def test_the_picture_of_the_readme(tmp_path: Path) -> None:
    """It is what the command draws, and the README shows it under its title."""
    made = tmp_path / "alexnet.svg"
    main(["draw", "-o", str(made)])
    assert made.read_bytes() == (ROOT / "docs/alexnet.svg").read_bytes(), "run `alexnet draw -o docs/alexnet.svg`"
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:8])
    assert re.search(r"^# .+\n\n!\[[^\]]{20,}\]\(docs/alexnet\.svg\)$", head, re.MULTILINE)


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each format by its ending, the same bytes twice; a changed network on request."""
    for ending, start in ((".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")):
        path = tmp_path / f"x{ending}"
        written = []
        for _ in range(2):
            main(["draw", "caffe", "--layer", "pool5", "--lang", "zh", "-o", str(path)])
            written.append(path.read_bytes())
        assert written[0] == written[1] and written[0].startswith(start)
    capsys.readouterr()
    path = tmp_path / "half.svg"
    main(["draw", "paper", "--width", "0.5", "--input-size", "64", "--num-classes", "10", "-o", str(path)])
    assert "paper × 0.5, input [64,64,3], 10 classes" in path.read_text(encoding="utf-8")
    said = capsys.readouterr()
    assert said.out == f"{path}: paper\n"
    words = "alexnet draw paper --input-size 64 --width 0.5 --num-classes 10 --layer conv1 -o"
    assert said.err == f"Next: {words} {tmp_path / 'conv1.svg'}\n"


def test_the_same_bytes_in_another_process() -> None:
    """Nothing depends on the order of a set."""
    code = (
        "from alexnet.inspect import drawing; import hashlib; print(hashlib.sha256(drawing.svg('paper').encode()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("paper", "--layer", "conv9"), "did you mean 'conv5'"),
        (("paper", "--layer", "rnorm2"), "layer (='rnorm2')"),
        (("torchvision", "--layer", "norm1"), "torchvision has no such layer"),
        (("paper", "--layer", "dropout6"), "did you mean 'drop6'"),
        (("papr",), "did you mean 'paper'"),
        (("paper", "-o", "x.jpg"), "out (=x.jpg) must end in .png, .svg or .pdf"),
        (("paper", "-o", "."), "must end in"),
        (("paper", "-o", "file/x.svg"), "cannot be written"),
        (("paper", "--width", "0.3"), "multiples of 1/16"),
    ],
)
def test_bad_input(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    with pytest.raises(SystemExit) as stop:
        main(["draw", *words])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and said in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match="did you mean 'conv1'"):
        drawing.svg("paper", "conv11")
    for layer in (None, "conv1"):
        with pytest.raises(UsageError, match=r"language \(='fr'\)"):
            drawing.svg("paper", layer, "fr")
