"""`alexnet predict`: classify pictures."""

import csv
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from alexnet.arguments import check_count, check_here
from alexnet.cli.next_step import next_step
from alexnet.cli.options import Engine
from alexnet.cli.tables import print_parts
from alexnet.console import clean, say
from alexnet.data.limits import MAX_PIXELS
from alexnet.errors import SourceError, UsageError
from alexnet.phrases import counted

if TYPE_CHECKING:
    from alexnet.predict import Prediction

FEW = 3  # most file names that the next step repeats
MANY = 200  # `predict` reports its speed for at least so many pictures
CSV_HEADER = ("file", "rank", "class", "probability")


def predict(
    run: Positional[Annotated[Path, arg(metavar="RUN")]],
    files: Positional[Annotated[tuple[str, ...], arg(metavar="PICTURE [PICTURE ...]", help_behavior_hint="")]],
    top: int = 5,
    views: Literal[1, 10] = 1,
    format: Literal["table", "jsonl", "csv"] = "table",
    sheet: Path | None = None,
    engine: Engine = "auto",
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Classify pictures. The exit status is 1 if any could not be read; the others are still
    classified.

    In a folder, pictures are recognised by their content, and other files are counted and left out.
    A file that you name is always tried. JSON and CSV hold file names exactly; text shows control
    characters as \\x1b.

    Args:
        run: a run's folder (its network after the latest epoch, latest.safetensors), a .safetensors
            file (such as run/best.safetensors, after the epoch with the lowest held-out error), or
            what `alexnet export` wrote (.onnx, .xml).
        files: files, folders, globs, or - for a list on standard input, one per line.
        top: number of classes to list.
        views: 1 for the centre crop, 10 for the paper's corners, centre and mirrors.
        format: one line per picture, as text, JSON or CSV.
        sheet: draw the pictures with their five most likely classes into this .png, .svg or .pdf.
        engine: torch, or openvino or onnxruntime (pip install 'alexnet[serve]'), which are faster
            on a CPU; auto takes the fastest available.
        max_pixels: refuse pictures with more pixels, as decompression bombs. Each thread needs up
            to 16 bytes of memory per pixel (1.4 GB at the default) plus the file. A JPEG that is
            not progressive is shrunk while it is decoded and may have 400 million pixels, whatever
            the limit.
    """
    from alexnet import engines, figure_file, figures
    from alexnet.predict import Pace, expand
    from alexnet.predict import predict as classify

    _check(files, top, sheet, max_pixels)
    classifier, show, pace = engines.load(run, engine), _printer(format, top), Pace()
    if run.is_dir():
        say(_which(run))
    drawn: list[Prediction] = []
    unreadable = total = 0
    predictions = classify(classifier, expand(files), top=max(top, 5), views=views, pace=pace, max_pixels=max_pixels)
    for prediction in predictions:
        total += 1
        if prediction.error:
            unreadable += 1
            say(f"alexnet: {prediction.path}: {prediction.error}")
        elif sheet and len(drawn) < figures.SHEET_LIMIT:
            drawn.append(prediction)
        show(prediction)
        sys.stdout.flush()
    if total >= MANY:
        say(pace.line())
    if drawn and sheet:
        figure_file.save(figures.sheet(drawn), sheet)
        rest = total - unreadable - len(drawn)
        full = f", the most that a sheet holds; {rest} are left out" if rest else ""
        say(f"{sheet}: {counted(len(drawn), 'picture')}{full}")
    if not total:
        raise SourceError(f"no pictures found in {', '.join(files)}.")
    if total > unreadable:
        _next(run, files, sheet)
    if unreadable:
        raise SystemExit(1)


def _which(run: Path) -> str:
    """Say which of a run's networks is used."""
    from alexnet.run_folder import BEST, LATEST

    best = run / BEST
    other = f"; {best} holds the one with the lowest held-out error" if best.exists() else ""
    return f"Using {run / LATEST}, the network after the latest epoch{other}."


def _next(run: Path, files: tuple[str, ...], sheet: Path | None) -> None:
    if not sheet and len(files) <= FEW and "-" not in files:
        next_step("predict", run, *files, "--sheet", "sheet.png")
    elif run.suffix in (".onnx", ".xml"):
        next_step("evaluate", run, "--data", "store")
    else:
        next_step("export", run, "--to", "onnx" if find_spec("onnx") else "safetensors")


def _check(files: tuple[str, ...], top: int, sheet: Path | None, max_pixels: int) -> None:
    from alexnet import figure_file
    from alexnet.files import make_ready

    if not files:
        raise UsageError("predict needs pictures: alexnet predict run cat.jpg (or a folder, a glob, or - for a list).")
    check_count("top", top)
    check_count("max_pixels", max_pixels)
    for file in files:
        check_here(file, "pictures", SourceError)
    if sheet:
        figure_file.check_ending("sheet", sheet)
        make_ready(sheet)


def _printer(format: str, top: int) -> "Callable[[Prediction], None]":
    """The function that prints a prediction with its `top` most likely classes; only JSON has a
    line for an unreadable file.
    """
    if format == "jsonl":
        return lambda prediction: print(json.dumps(prediction.as_json(top)))
    if format == "csv":
        return _csv_printer(top)

    def show(prediction: "Prediction") -> None:
        if prediction.top:
            print_parts(prediction.path, *(f"{name} {share:.1%}" for name, share in prediction.top[:top]))

    return show


def _csv_printer(top: int) -> "Callable[[Prediction], None]":
    # Python's csv quotes only the characters of its own line end: both are given here, and one is
    # written.
    rows = csv.writer(_Lines(), lineterminator="\r\n")
    harmless = clean if sys.stdout.isatty() else str
    rows.writerow(CSV_HEADER)

    def show(prediction: "Prediction") -> None:
        for rank, (name, share) in enumerate(prediction.top[:top], 1):
            rows.writerow([harmless(prediction.path), rank, harmless(name), f"{share:.6f}"])

    return show


class _Lines:
    """Standard output as a file for `csv`; rows end with this system's line end."""

    def write(self, row: str) -> None:
        print(row.removesuffix("\r\n"))
