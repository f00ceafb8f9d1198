"""Figures hold any number of classes and any names, and a file is whole or not there."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet import figure_file, figures
from alexnet.data.image import encode
from alexnet.errors import OutputError
from alexnet.evaluate import Evaluation
from alexnet.predict import Prediction
from conftest import draw

ODD = ("大熊猫", "قطة كبيرة جدا", "x" * 200, "$x^$", "caf\udce9", "\x1b[2J", "हिन्दी", "👨‍👩‍👧")


def evaluation(k: int, names: tuple[str, ...] | None = None) -> Evaluation:
    confusion = 3 * np.eye(k, dtype=np.int64) + np.eye(k, k=1, dtype=np.int64)
    return Evaluation(names or tuple(f"class {number}" for number in range(k)), 1, confusion, confusion.sum(1))


def pixels(figure: figures.Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure_file.png(figure))).convert("RGB")).astype(int)


@pytest.mark.parametrize("k", [2, 8, 30, 31, 101])
def test_confusion(k: int) -> None:
    """Every class's cell of the diagonal is there, to the pixel."""
    figure = figures.confusion(evaluation(k))
    drawn = pixels(figure)
    assert max(drawn.shape) < 2300
    axes = figure.axes[0]
    centres = axes.transData.transform([(number, number) for number in range(k)])
    step = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
    assert step > 1.4
    for x, y in centres:
        red, _, blue = drawn[int(len(drawn) - y - 0.35 * step), int(x + 0.35 * step)]  # beside the number
        assert blue > red + 40, (x, y)
    assert len(axes.get_xticklabels()) == k or k > figures.MOST_LABELS


def test_confusion_of_a_thousand() -> None:
    drawn = pixels(figures.confusion(evaluation(1000)))
    assert 1200 < max(drawn.shape) < 2300  # more than a pixel a class


def test_confusion_with_odd_names() -> None:
    figure = figures.confusion(evaluation(len(ODD), ODD))
    assert pixels(figure).shape[0] < 1200  # a long name is cut


def test_classes_that_are_not_used_are_left_out() -> None:
    """A network of 1,000 classes, tested on three of them."""
    confusion = np.zeros((1000, 1000), np.int64)
    confusion[[5, 70, 900], [5, 70, 8]] = 4
    result = Evaluation(tuple(f"name {number}" for number in range(1000)), 1, confusion, confusion.sum(1))
    axes = figures.confusion(result).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["name 5", "name 8", "name 70", "name 900"]
    assert "996 classes, neither tested nor predicted, are left out" in axes.get_xlabel()


@pytest.mark.parametrize("count", [1, 3, 6])
def test_sheet_with_odd_names(count: int) -> None:
    record = encode(_file(), 64, "squash")
    top = tuple((name, 0.2) for name in ODD[:5])
    shown = [Prediction(f"folder/{name}.jpg", top, None, record, ODD[0]) for name in ODD[:count]]
    figure = figures.sheet([*shown, Prediction("none.jpg", error="missing")])
    assert len(figure.axes) == 2 * count
    assert "$x^$.jpg" in [axes.get_title().split("\n")[0] for axes in figure.axes] or count < 4
    pixels(figure)


def _file() -> bytes:
    with io.BytesIO() as file:
        draw((200, 50, 40), 1).save(file, "PNG")
        return file.getvalue()


@pytest.mark.parametrize("epochs", [0, 1, 12, 60])
def test_curves(epochs: int) -> None:
    """Points for few epochs, a plain line for many; and no warning without any."""
    log = [{"kind": "train", "step": 5, "loss": 2.0, "top1_error": 0.9, "lr": 0.1}]
    log += [{"kind": "val", "step": 10 * n, "epoch": n, "top1_error": 1 / n} for n in range(1, epochs + 1)]
    drawn = figures.curves(log)
    error = drawn[1].axes[0]
    held_out = [line for line in error.lines if line.get_label() == "val"]
    assert [line.get_marker() for line in held_out] == {0: [], 1: ["o"], 12: ["o"], 60: [""]}[epochs]
    assert error.get_xlabel() == ("epoch" if epochs else "step")
    assert [pixels(figure).shape for figure in drawn] == [(480, 672, 3)] * 3


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ([], [0, 5, 15]),  # in steps
        ([(10, 1)], [0, 0.5, 1.5]),
        ([(10, 1), (20, 2)], [0, 0.5, 1.5]),
        ([(0, 1)], [1, 6, 16]),  # a last layer that was fitted, and nothing after it
        ([(0, 1), (10, 2), (20, 3)], [1, 1.5, 2.5]),
    ],
)
def test_epochs_of_lines(tests: list[tuple[int, int]], expected: list[float]) -> None:
    """Also of a fine-tuned run, whose first epoch has no steps."""
    log = [{"step": step, "epoch": epoch} for step, epoch in tests]
    assert figures.epochs_of([{"step": step} for step in (0, 5, 15)], log) == expected


@pytest.mark.parametrize("shape", [(2, 48, 11, 11), (1, 3, 7, 5), (4, 17, 3, 3), (1, 1, 1, 1)])
def test_filters(shape: tuple[int, ...]) -> None:
    kernels = np.random.default_rng(0).random((*shape, 3), np.float32)
    figure = figures.filters(kernels)
    assert len(figure.axes) == shape[0]
    shown = np.asarray(figure.axes[-1].images[0].get_array())
    assert np.array_equal(shown[: shape[2], : shape[3]], kernels[-1, 0])
    pixels(figure)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
def test_save(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending.lower()]
    figure_file.save(figures.filters(np.zeros((1, 1, 2, 2, 3), np.float32)), path)
    assert path.read_bytes().startswith(start)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_half_a_file_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = figures.filters(np.zeros((1, 1, 2, 2, 3), np.float32))
    path = tmp_path / "x.png"
    path.write_bytes(b"before")

    written = Path.write_bytes

    def full(where: Path, data: bytes) -> int:
        written(where, data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"x\.png could not be written .*No space left"):
        figure_file.save(figure, path)
    assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OutputError, match=r"path \(=.*x\.gif\) must end in \.png, \.svg or \.pdf"):
        figure_file.save(figure, tmp_path / "x.gif")
