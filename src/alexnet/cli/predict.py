"""`alexnet predict`: what is in these pictures?"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from alexnet.cli.next_step import next_step
from alexnet.cli.options import Engine
from alexnet.console import say
from alexnet.errors import SourceError

if TYPE_CHECKING:
    from alexnet.predict import Prediction

FEW = 3  # words that the next step repeats
MANY = 200  # pictures from which on `predict` says how fast it was


def predict(
    run: Positional[Path],
    files: Positional[tuple[str, ...]],
    top: int = 5,
    views: Literal[1, 10] = 1,
    format: Literal["table", "jsonl", "csv"] = "table",
    sheet: Path | None = None,
    engine: Engine = "auto",
) -> None:
    """Classify pictures. Exit status 1 if any could not be read; the others are classified all the same.

    Args:
        run: a run's folder (its network after the latest epoch, latest.safetensors), a .safetensors file (such as
            run/best.safetensors, after the epoch with the lowest held-out error), or what `alexnet export` wrote (.onnx, .xml).
        files: files, folders, globs, or - for a list on standard input.
        top: how many classes to name.
        views: 1 for the centre crop, 10 for the paper's corners, centre and mirrors.
        format: a line of text, of JSON or of CSV for each picture.
        sheet: draw the pictures with their five most likely classes into this .png, .svg or .pdf.
        engine: torch, or openvino or onnxruntime (pip install 'alexnet[serve]'), which are faster on a CPU; the best if auto.
    """
    from alexnet import engines, figures
    from alexnet.files import make_ready
    from alexnet.predict import Pace, expand
    from alexnet.predict import predict as classify

    if not files:
        raise SourceError("predict needs pictures: alexnet predict run cat.jpg (or a folder, a glob, or - for a list).")
    if top < 1:
        raise SourceError(f"top (={top}) must be at least 1.")
    if sheet:
        figures.check_ending("sheet", sheet)
        make_ready(sheet)
    classifier = engines.load(run, engine)
    if run.is_dir():
        say(_which(run))
    drawn: list[Prediction] = []
    unreadable = total = 0
    pace = Pace()
    for prediction, row in _rows(classify(classifier, expand(files), top=max(top, 5), views=views, pace=pace), format, top):
        total += 1
        if prediction.error:
            unreadable += 1
            say(f"alexnet: {prediction.path}: {prediction.error}")
        elif sheet and len(drawn) < figures.SHEET_LIMIT:
            drawn.append(prediction)
        if row:
            print(row, flush=True)
    if total >= MANY:
        say(pace.line())
    if drawn and sheet:
        figures.save(figures.sheet(drawn), sheet)
        rest = total - unreadable - len(drawn)
        full = f", all that a sheet holds; {rest} are not on it" if rest else ""
        say(f"{sheet}: {len(drawn)} pictures{full}")
    if total:
        _next(run, files, sheet)
    else:
        raise SourceError(f"no pictures in {', '.join(files)}.")
    if unreadable:
        raise SystemExit(1)


def _which(run: Path) -> str:
    """Which of a run's networks answers."""
    from alexnet.weights.native import BEST, LATEST

    best = run / BEST
    other = f"; {best} is the one with the lowest held-out error of all epochs" if best.exists() else ""
    return f"Using {run / LATEST}, the network after the latest epoch{other}."


def _next(run: Path, files: tuple[str, ...], sheet: Path | None) -> None:
    if not sheet and len(files) <= FEW and "-" not in files:
        next_step("predict", run, *files, "--sheet", "sheet.png")
    elif run.suffix in (".onnx", ".xml"):
        next_step("evaluate", run, "--data", "store")
    else:
        next_step("export", run, "--to", "onnx")


def _rows(predictions: "Iterator[Prediction]", format: str, top: int) -> "Iterator[tuple[Prediction, str]]":
    """Each prediction with its text, which names `top` classes; unreadable files have a line in JSON only."""
    if format == "csv":
        print("file,rank,class,probability")
    for prediction in predictions:
        if format == "jsonl":
            yield prediction, json.dumps(prediction.as_json(top))
        elif format == "csv":
            yield (
                prediction,
                "\n".join(
                    _csv_line(prediction.path, rank, name, f"{share:.6f}")
                    for rank, (name, share) in enumerate(prediction.top[:top], 1)
                ),
            )
        else:
            named = "  ".join(f"{name} {share:.1%}" for name, share in prediction.top[:top])
            yield prediction, f"{prediction.path}  {named}" if named else ""


def _csv_line(*cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
