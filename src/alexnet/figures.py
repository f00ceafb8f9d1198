"""Pictures of results, by matplotlib: curves, filters, prediction sheets, confusion matrices.

Each function takes plain arrays and a path, and writes a PNG.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from alexnet.data.image import decode
from alexnet.evaluate import Evaluation
from alexnet.predict import Prediction

BLUE, RED, GREY, PINK = "#1f5fa8", "#c2352b", "#888888", "#e48fa0"
MOST_LABELS = 30  # more class names than this do not fit beside a matrix
SHEET_LIMIT = 200  # pictures on one sheet
MOST_MARKERS = 30  # more epochs than this are a line without points


def curves(log: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss, error and learning rate over training, from the lines of a run's log."""
    train = [line for line in log if line["kind"] == "train"]
    tests = [line for line in log if "epoch" in line]
    steps = [line["step"] for line in train]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    loss, error, lr = figure.subplots(1, 3)
    loss.plot(steps, [line["loss"] for line in train], color=BLUE, linewidth=1)
    loss.set(title="loss (training)", ylim=(0, None))
    error.plot(steps, [line["top1_error"] for line in train], color=BLUE, linewidth=1, label="training, augmented")
    if tests:
        error.plot(
            [line["step"] for line in tests], [line["top1_error"] for line in tests], "o-", color=RED, label=tests[0]["kind"]
        )
    error.set(title="top-1 error", ylim=(0, 1))
    error.yaxis.set_major_formatter(PercentFormatter(1))
    error.legend(frameon=False)
    lr.plot(steps, [line["lr"] for line in train], color=GREY)
    lr.set(title="learning rate", ylim=(0, None))
    for axes in (loss, error, lr):
        axes.set_xlabel("step")
        axes.set_xlim(0, None)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


@dataclass(frozen=True)
class Pairs:
    """One value for each pair on either side, drawn as two columns of points joined by lines; `shares` in per cent."""

    title: str
    sides: tuple[str, str]
    shares: bool
    first: Sequence[float]
    second: Sequence[float]


def bands(
    groups: Mapping[str, Sequence[Sequence[dict[str, Any]]]], path: Path, level: float | None = None, pairs: Pairs | None = None
) -> None:
    """Training and held-out error of groups of runs: means, with bands of one standard deviation.

    Args:
        groups: by name, the logs of runs that differ in their seed; all of equal length.
        level: a training error to mark.
        pairs: for a third panel.
    """
    figure = Figure(figsize=(11 if pairs else 7.5, 3.4), layout="constrained")
    training, held_out, *more = figure.subplots(1, 3 if pairs else 2)
    for (name, logs), colour in zip(groups.items(), (BLUE, RED), strict=False):
        tests = [line for line in logs[0] if "epoch" in line]
        per_epoch = tests[0]["step"] / tests[0]["epoch"]
        for axes, is_test, marker in ((training, False, ""), (held_out, True, "o" if len(tests) < MOST_MARKERS else "")):
            lines = [[line for line in log if "top1_error" in line and ("epoch" in line) == is_test] for log in logs]
            values = [[(line["step"] / per_epoch, line["top1_error"]) for line in one] for one in lines]
            epochs, errors = np.moveaxis(np.array(values), 2, 0)  # (runs, lines) each
            _band(axes, epochs[0], errors, colour, f"{name}, n = {len(logs)}", marker if len(epochs[0]) > 1 else "o")
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
    figure.savefig(path, dpi=110)


def _band(axes: Axes, x: NDArray[np.float64], values: NDArray[np.float64], colour: str, label: str, marker: str) -> None:
    """The mean of (runs, points) values, and a band of one deviation where there are two runs or more."""
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


def filters(kernels: NDArray[np.float32], path: Path) -> None:
    """(towers, n, k, k, 3) kernels in [0, 1], one block for each tower, as in figure 3 of the paper."""
    towers, count, side, _, _ = kernels.shape
    columns = 16 if count > 16 else count
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * 0.55, towers * (rows * 0.55 + 0.35)), layout="constrained")
    for axes, tower, number in zip(figure.subplots(towers, 1, squeeze=False)[:, 0], kernels, range(1, 3), strict=False):
        sheet = np.ones((rows * (side + 1) - 1, columns * (side + 1) - 1, 3), np.float32)
        for index, kernel in enumerate(tower):
            top, left = (index // columns) * (side + 1), (index % columns) * (side + 1)
            sheet[top : top + side, left : left + side] = kernel
        axes.imshow(sheet, interpolation="nearest")
        axes.set_title(f"conv1, tower {number}" if towers > 1 else "conv1", fontsize=9, loc="left")
        axes.set_axis_off()
    figure.savefig(path, dpi=130)


def sheet(predictions: Sequence[Prediction], path: Path) -> None:
    """Figure 4 of the paper: each picture with its file's name, its true label if known, and the five most likely classes as
    bars, the true one in pink."""
    shown = [prediction for prediction in predictions if prediction.record is not None][:SHEET_LIMIT]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.5 * columns, 3.9 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.2, 1.3] * rows)
    for axes in grid.flat:
        axes.set_axis_off()
    for index, prediction in enumerate(shown):
        row, column = divmod(index, columns)
        _picture(grid[2 * row, column], prediction)
        _bars(grid[2 * row + 1, column], prediction)
    figure.savefig(path, dpi=100)


def _picture(axes: Axes, prediction: Prediction) -> None:
    assert prediction.record is not None
    axes.imshow(decode(prediction.record))
    name = os.fsencode(Path(prediction.path).name).decode(errors="replace")
    lines = [line if len(line) < 28 else f"{line[:25]}..." for line in (name, prediction.true) if line]
    axes.set_title("\n".join(lines), fontsize=9, parse_math=False)  # a name may hold $


def _bars(axes: Axes, prediction: Prediction) -> None:
    names = [name for name, _ in prediction.top[:5]]
    shares = [share for _, share in prediction.top[:5]]
    places = np.arange(len(names))[::-1]
    axes.barh(places, shares, color=[PINK if name == prediction.true else "#9db7d8" for name in names], height=0.85)
    for place, name, share in zip(places, names, shares, strict=True):
        axes.text(0.98, place, f"{share:.0%}", va="center", ha="right", fontsize=8, color="#444444")
        axes.text(0.02, place, name if len(name) < 30 else f"{name[:27]}...", va="center", fontsize=8, parse_math=False)
    axes.set_xlim(0, 1)


def confusion(result: Evaluation, path: Path) -> None:
    """Rows: true class; columns: class predicted; each row sums to 100 %."""
    matrix = result.confusion / np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
    k = len(result.classes)
    labelled = k <= MOST_LABELS
    side = 2.5 + 0.42 * k if labelled else 9
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    views = "" if result.views == 1 else f", {result.views} views"
    title = f"top-1 error {result.top1_error:.2%} on {result.images:,} pictures{views}"
    axes.set(xlabel="predicted, in percent of each row", ylabel="true", title=title)
    if labelled:
        axes.set_xticks(range(k), result.classes, rotation=90, parse_math=False)
        axes.set_yticks(range(k), result.classes, parse_math=False)
        for row, column in zip(*np.nonzero(matrix >= 0.01), strict=True):
            share = matrix[row, column]
            axes.text(
                column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8,
                color="white" if share > 0.5 else "black",
            )  # fmt: skip
    figure.savefig(path, dpi=100)


def confusion_csv(result: Evaluation, path: Path) -> None:
    """Counts with class names; rows are true classes."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["true \\ predicted", *result.classes])
        for name, row in zip(result.classes, result.confusion.tolist(), strict=True):
            writer.writerow([name, *row])
