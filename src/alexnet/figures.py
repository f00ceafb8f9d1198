"""Draw results with matplotlib: curves, filters, prediction sheets, confusion matrices.

Each function takes plain arrays and returns a figure; `figure_file.py` writes it.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from alexnet import figure_file, lettering
from alexnet.console import clean
from alexnet.data.image import decode
from alexnet.evaluate import Evaluation
from alexnet.files import writing
from alexnet.phrases import counted
from alexnet.predict import Prediction

BLUE, RED, GREY, PINK = "#1f5fa8", "#c2352b", "#888888", "#e48fa0"
MOST_NUMBERS = 30  # with more classes than this, shares do not fit into a matrix's cells
MOST_LABELS = 100  # more class names than this do not fit beside a matrix
SHEET_LIMIT = 200  # pictures on one sheet
MOST_MARKERS = 12  # more epochs than this are a line without points
NAME_ROOM = 28  # columns of a class's or file's name
KERNEL_PIXELS, TITLE, MARGIN, FILTERS_DPI = 88, 28, 10, 130  # of filters: side of a kernel, space above and around


def curves(log: Sequence[dict[str, Any]]) -> tuple[Figure, Figure, Figure]:
    """Loss, error and learning rate over training, from the lines of a run's log; each
    small enough for a phone.
    """
    train = [line for line in log if line["kind"] == "train"]
    tests = [line for line in log if "epoch" in line]
    x = epochs_of(train, log)
    loss, error, lr = (Figure(figsize=(4.2, 3), dpi=160, layout="constrained") for _ in range(3))
    with _panel(loss, "loss (training)", bool(tests)) as axes:
        axes.plot(x, [line["loss"] for line in train], color=BLUE, linewidth=1)
        axes.set_ylim(0, None)
    with _panel(error, "top-1 error", bool(tests)) as axes:
        axes.plot(x, [line["top1_error"] for line in train], color=BLUE, linewidth=1, label="training, augmented")
        if tests:
            places, errors = epochs_of(tests, log), [line["top1_error"] for line in tests]
            marker = "o" if len(tests) <= MOST_MARKERS else ""
            axes.plot(places, errors, marker=marker, markersize=3, color=RED, linewidth=1.5, label=tests[0]["kind"])
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(frameon=False)
    with _panel(lr, "learning rate", bool(tests)) as axes:
        axes.plot(x, [line["lr"] for line in train], color=GREY)
        axes.set_ylim(0, None)
    return loss, error, lr


def epochs_of(lines: Sequence[dict[str, Any]], log: Sequence[dict[str, Any]]) -> list[float]:
    """When lines of a log were written, in epochs; in steps if no epoch of the log has ended.

    The first epoch of a fine-tuned run fits the last layer and has no steps: its lines are of step
    0, and of epoch 1.
    """
    tests = [line for line in log if "epoch" in line]
    first = tests[0]["epoch"] if tests and not tests[0]["step"] else 0
    steps = tests[-1]["step"] if tests else 0
    per_epoch = steps / (tests[-1]["epoch"] - first) if steps else 1
    return [first + line["step"] / per_epoch for line in lines]


@contextmanager
def _panel(figure: Figure, title: str, in_epochs: bool) -> Iterator[Axes]:
    axes = figure.subplots()
    yield axes
    axes.set_title(title)
    axes.set_xlabel("epoch" if in_epochs else "step")
    axes.set_xlim(0, None)
    axes.spines[["top", "right"]].set_visible(False)


@dataclass(frozen=True)
class Pairs:
    """One value for each pair on either side, drawn as two columns of points joined by lines;
    `shares` in per cent.
    """

    title: str
    sides: tuple[str, str]
    shares: bool
    first: Sequence[float]
    second: Sequence[float]


def bands(
    groups: Mapping[str, Sequence[Sequence[dict[str, Any]]]], level: float | None = None, pairs: Pairs | None = None
) -> Figure:
    """Training and held-out error of groups of runs: means, with bands of one standard deviation.

    Args:
        groups: by name, the logs of runs that differ in their seed; all of equal length.
        level: a training error to mark.
        pairs: for a third panel.
    """
    figure = Figure(figsize=(11 if pairs else 7.5, 3.4), dpi=110, layout="constrained")
    training, held_out, *more = figure.subplots(1, 3 if pairs else 2)
    for (name, logs), colour in zip(groups.items(), (BLUE, RED), strict=False):
        tests = [line for line in logs[0] if "epoch" in line]
        for axes, is_test, marker in ((training, False, ""), (held_out, True, "o" if len(tests) <= MOST_MARKERS else "")):
            lines = [[line for line in log if "top1_error" in line and ("epoch" in line) == is_test] for log in logs]
            epochs = np.array(epochs_of(lines[0], logs[0]))
            errors = np.array([[line["top1_error"] for line in one] for one in lines])  # (runs, lines)
            _band(axes, epochs, errors, colour, f"{name}, n = {len(logs)}", marker if len(epochs) > 1 else "o")
    training.set(title="top-1 error, training batches", xlabel="epoch", ylim=(0, 1))
    held_out.set(title="top-1 error, held out", xlabel="epoch", ylim=(0, 1))
    if level is not None:
        training.axhline(level, color=GREY, linewidth=0.8, linestyle="--")
    for axes in (training, held_out):
        axes.set_xlim(0, None)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.spines[["top", "right"]].set_visible(False)
    held_out.legend(frameon=False)
    if pairs:
        _slopes(more[0], pairs)
    return figure


def _band(axes: Axes, x: NDArray[np.float64], values: NDArray[np.float64], colour: str, label: str, marker: str) -> None:
    """The mean of (runs, points) values, and a band of one deviation where
    there are two runs or more.
    """
    centre = values.mean(axis=0)
    axes.plot(x, centre, marker=marker, markersize=3, color=colour, linewidth=1, label=label)
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axes.fill_between(x, centre - spread, centre + spread, color=colour, alpha=0.2, linewidth=0)


def _slopes(axes: Axes, pairs: Pairs) -> None:
    for first, second in zip(pairs.first, pairs.second, strict=True):
        if np.isfinite([first, second]).all():
            axes.plot((0, 1), (first, second), "o-", color=GREY, linewidth=0.8, markersize=4)
    axes.set(title=pairs.title, xlim=(-0.4, 1.4))
    axes.set_xticks((0, 1), pairs.sides)
    if pairs.shares:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)


def filters(kernels: NDArray[np.float32]) -> Figure:
    """(towers, n, height, width, 3) kernels in [0, 1], one block for each tower, as
    in figure 3 of the paper.

    Each weight is a square of whole pixels.
    """
    towers, count, height, width, _ = kernels.shape
    columns = min(16, count)
    rows = -(-count // columns)
    scale = max(1, KERNEL_PIXELS // max(height, width))
    block = np.array((rows * (height + 1) - 1, columns * (width + 1) - 1))
    tall, wide = (scale * block).tolist()
    size = np.array((wide + 2 * MARGIN, towers * (tall + TITLE + MARGIN)))
    figure = Figure(figsize=tuple(size / FILTERS_DPI), dpi=FILTERS_DPI)
    for number, tower in enumerate(kernels):
        sheet = np.ones((*block, 3), np.float32)
        for index, kernel in enumerate(tower):
            top, left = (index // columns) * (height + 1), (index % columns) * (width + 1)
            sheet[top : top + height, left : left + width] = kernel
        bottom = MARGIN + (towers - 1 - number) * (tall + TITLE + MARGIN)
        axes = figure.add_axes((MARGIN / size[0], bottom / size[1], wide / size[0], tall / size[1]))
        axes.imshow(sheet, interpolation="none", aspect="auto")
        title = "conv1" if towers == 1 else f"tower {number + 1}" if wide < 200 else f"conv1, tower {number + 1}"
        axes.set_title(title, fontsize=9, loc="left", pad=5)
        axes.set_axis_off()
    return figure


def sheet(predictions: Sequence[Prediction]) -> Figure:
    """Figure 4 of the paper: each picture with its file's name, its true label if known, and the
    five most likely classes as bars, the true one in pink."""
    shown = [prediction for prediction in predictions if prediction.record is not None][:SHEET_LIMIT]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.5 * columns, 3.9 * rows), dpi=100)
    for index, prediction in enumerate(shown):
        row, column = divmod(index, columns)
        left, top = (column + 0.04) / columns, 1 - (row + 0.1) / rows  # in shares of the figure, as the rest
        width, picture, bars = 0.92 / columns, 0.57 / rows, 0.29 / rows
        _picture(figure.add_axes((left, top - picture, width, picture)), prediction)
        _bars(figure.add_axes((left, top - picture - 0.02 / rows - bars, width, bars)), prediction)
    return figure


def _picture(axes: Axes, prediction: Prediction) -> None:
    assert prediction.record is not None
    axes.imshow(decode(prediction.record))
    names = [_name(name) for name in (Path(prediction.path).name, prediction.true) if name]
    axes.set_title("\n".join(names), fontsize=9, **_letters(names))
    axes.set_axis_off()


def _bars(axes: Axes, prediction: Prediction) -> None:
    top = prediction.top[:5]
    places = np.arange(len(top))[::-1]
    colours = [PINK if name == prediction.true else "#9db7d8" for name, _ in top]
    axes.barh(places, [share for _, share in top], color=colours, height=0.85)
    for place, (name, share) in zip(places, top, strict=True):
        axes.text(0.98, place, f"{share:.0%}", va="center", ha="right", fontsize=8, color="#444444")
        axes.text(0.02, place, _name(name), va="center", fontsize=8, **_letters([name]))
    axes.set(xlim=(0, 1), ylim=(-0.5, 4.5))
    axes.set_axis_off()


def _name(name: str) -> str:
    return lettering.drawable(lettering.shortened(name, NAME_ROOM))


def _letters(names: Sequence[str]) -> dict[str, Any]:
    """Text settings for names of any language; a $ in them is not a formula."""
    return {"fontfamily": lettering.fonts(names), "parse_math": False}


def confusion(result: Evaluation) -> Figure:
    """Rows: true class; columns: class predicted; each row sums to 100 %. Classes that
    are neither are left out.
    """
    used = result.used
    matrix = result.shares[np.ix_(used, used)]
    k = len(used)
    numbered, labelled = k <= MOST_NUMBERS, k <= MOST_LABELS
    side = 3 + (0.42 if numbered else 0.16) * k if labelled else 9
    figure = Figure(figsize=(side, side), dpi=max(100, round(1.4 * k / side)), layout="constrained")
    axes = figure.subplots()
    # Of many classes hardly any is taken for one other class by half: the root
    # makes small shares visible.
    axes.imshow(matrix, cmap="Blues", norm=PowerNorm(1 if numbered else 0.5, 0, 1), interpolation="nearest")
    views = "" if result.views == 1 else f", {result.views} views"
    axes.set_title(f"top-1 error {result.top1_error:.2%}\n{counted(result.images, 'picture')}{views}")
    left_out = len(result.classes) - k
    order = "" if labelled else f"class of {k:,}, in the order of the network's outputs; "
    unused = f"\n{left_out:,} classes, neither tested nor predicted, are left out" if left_out else ""
    axes.set(xlabel=f"predicted ({order}{'in percent of each row' if numbered else 'darker: more of the row'}){unused}")
    axes.set_ylabel("true")
    if labelled:
        names = [_name(result.classes[number]) for number in used]
        size = 10 if numbered else 7
        axes.set_xticks(range(k), names, rotation=90, fontsize=size, **_letters(names))
        axes.set_yticks(range(k), names, fontsize=size, **_letters(names))
    if numbered:
        _shares(axes, matrix)
    return figure


def _shares(axes: Axes, matrix: NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(matrix >= 0.01), strict=True):
        share = matrix[row, column]
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)


def confusion_csv(result: Evaluation) -> str:
    """Counts with class names as a CSV file's text; rows are true classes."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["true \\ predicted", *map(clean, result.classes)])
    for name, row in zip(result.classes, result.confusion.tolist(), strict=True):
        writer.writerow([clean(name), *row])
    return text.getvalue()


def save_confusion(result: Evaluation, folder: Path) -> tuple[Path, Path]:
    """Write confusion.csv and confusion.png into a folder.

    Raises:
        OutputError: no space; files that were there stay.
    """
    table, picture = folder / "confusion.csv", folder / "confusion.png"
    with writing(table) as temporary:
        temporary.write_text(confusion_csv(result), encoding="utf-8", newline="")
    figure_file.save(confusion(result), picture)
    return table, picture
