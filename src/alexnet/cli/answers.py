"""`alexnet evaluate`, `predict`, `report`: what trained networks say, and how often they are right."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from alexnet.cli.tables import MOST_CLASSES_SHOWN, print_table
from alexnet.errors import CheckpointError, SourceError

if TYPE_CHECKING:
    from alexnet.ensemble import Average
    from alexnet.evaluate import Evaluation
    from alexnet.predict import Prediction

MANY = 200  # pictures from which on `predict` says how fast it was
Engine = Literal["auto", "openvino", "onnxruntime", "torch"]


def evaluate(
    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN [RUN ...]")]],
    data: Path,
    split: str | None = None,
    views: Literal[1, 10] = 1,
    engine: Engine = "auto",
    average: bool = False,
    fit: bool = False,
    json_file: Annotated[Path | None, arg(name="json")] = None,
    out: Path | None = None,
) -> None:
    """Test a network on the held-out pictures of a store: top-1 and top-5 error, per class, confusion matrix.

    Args:
        runs: a run's folder (its latest checkpoint), a .safetensors file, or what `alexnet export` wrote (.onnx, .xml);
            several, or a family's folder, to average.
        data: the store.
        split: which split; the held-out one if not given.
        views: 1 for the centre crop, 10 for the paper's corners, centre and mirrors.
        engine: torch, or openvino or onnxruntime (pip install 'alexnet[serve]'), which are faster on a CPU; the best if auto.
        average: average the probabilities of several networks, as the paper did.
        fit: fit the coefficients of the average on every second picture, and test on the others.
        json_file: write the result there too.
        out: folder for confusion.csv and confusion.png; the (first) folder named if not given.
    """
    from alexnet import engines, figures
    from alexnet.data.store import Store
    from alexnet.evaluate import evaluate_classifier
    from alexnet.files import make_ready
    from alexnet.train.run import write_json

    networks = _networks(runs, average, fit)
    classifiers, store = [engines.load(one, engine) for one in networks], Store(data)
    out = out or (runs[0] if runs[0].is_dir() else runs[0].parent)
    for path in filter(None, (out / "confusion.csv", json_file)):
        make_ready(path)
    if average:
        from alexnet.ensemble import evaluate_average

        together = evaluate_average(classifiers, store, split, views, fit)
        _print_average(together, networks)
        result, content = together.fitted or together.plain, together.as_json()
    else:
        result = evaluate_classifier(classifiers[0], store, split, views)
        _print_evaluation(result)
        content = result.as_json()
    figures.confusion_csv(result, out / "confusion.csv")
    figures.confusion(result, out / "confusion.png")
    if json_file:
        write_json(json_file, content)
    print(f"Confusion matrix: {out / 'confusion.csv'} and {out / 'confusion.png'}")


def _networks(runs: tuple[Path, ...], average: bool, fit: bool) -> list[Path]:
    """The runs named, a family's folder standing for its members."""
    from alexnet.train.family import members

    found = [one for run in runs for one in members(run) or [run]]
    if not found:
        raise CheckpointError("evaluate needs a run: alexnet evaluate RUN --data STORE")
    if len(found) > 1 and not average:
        raise CheckpointError(f"evaluate takes one network, or several (={len(found)}) with --average.")
    if len({one.resolve() for one in found}) < len(found):
        raise CheckpointError("evaluate was given a network twice, which would count twice in the average: name each once.")
    if fit and not average:
        raise CheckpointError("fit finds the coefficients of an average: add --average and more runs.")
    return found


def _print_average(together: "Average", runs: list[Path]) -> None:
    coefficients = together.coefficients or [1 / len(runs)] * len(runs)
    rows = [[str(run), f"{share:.3f}", f"{one.top1_error:.2%}", f"{one.top5_error:.2%}"]
            for run, share, one in zip(runs, coefficients, together.alone, strict=True)]  # fmt: skip
    for name, result in (("plain average", together.plain), ("weighted average", together.fitted)):
        if result:
            rows.append([name, "", f"{result.top1_error:.2%}", f"{result.top5_error:.2%}"])
    print_table([f"on {together.plain.images:,} pictures", "coefficient", "top-1 error", "top-5 error"], rows)


def _print_evaluation(result: "Evaluation") -> None:
    rows = result.as_json()["per_class"]
    shown = [row for row in rows if row["images"]]
    if len(shown) > MOST_CLASSES_SHOWN:
        shown = sorted(shown, key=lambda row: -row["top1_error"])[:MOST_CLASSES_SHOWN]
        print(f"The {MOST_CLASSES_SHOWN} classes with the most errors:")
    cells = [[row["class"], row["images"], f"{row['top1_error']:.1%}", f"{row['top5_error']:.1%}"] for row in shown]
    total = ["all", result.images, f"{result.top1_error:.2%}", f"{result.top5_error:.2%}"]
    print_table(["class", "images", "top-1 error", "top-5 error"], [*cells, total])


def report(run: Positional[Path], data: Path, out: Path | None = None) -> None:
    """Write a page about a finished run: curves, filters, predictions, confusion matrix.

    Args:
        run: the run's folder.
        data: the store it was trained on.
        out: folder for the page; RUN/report if not given.
    """
    from alexnet import engines
    from alexnet import report as page
    from alexnet.data.store import Store
    from alexnet.evaluate import evaluate_classifier
    from alexnet.files import make_ready
    from alexnet.weights import native

    if not run.is_dir():
        raise CheckpointError(f"report needs a run's folder, with its log and configuration: {run} is none.")
    trained, store, folder = native.load(run), Store(data), out or run / "report"
    make_ready(folder / "index.html")
    result = evaluate_classifier(engines.of(trained), store)
    print(page.write(folder, f"AlexNet on {data.name}", trained, store, result, run))


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
        run: a run's folder (its latest checkpoint), a .safetensors file, or what `alexnet export` wrote (.onnx, .xml).
        files: files, folders, globs, or - for a list on standard input.
        top: how many classes to name.
        views: 1 for the centre crop, 10 for the paper's corners, centre and mirrors.
        format: a line of text, of JSON or of CSV for each picture.
        sheet: draw the pictures with their five most likely classes into this PNG.
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
    if sheet and sheet.suffix.lower() != ".png":
        raise SourceError(f"sheet (={sheet}) must end in .png.")
    if sheet:
        make_ready(sheet)
    classifier = engines.load(run, engine)
    drawn: list[Prediction] = []
    unreadable = total = 0
    pace = Pace()
    for prediction, row in _rows(classify(classifier, expand(files), top=max(top, 5), views=views, pace=pace), format, top):
        total += 1
        if prediction.error:
            unreadable += 1
            print(f"alexnet: {prediction.path}: {prediction.error}", file=sys.stderr)
        elif sheet and len(drawn) < figures.SHEET_LIMIT:
            drawn.append(prediction)
        if row:
            print(row, flush=True)
    if total >= MANY:
        print(pace.line(), file=sys.stderr)
    if drawn and sheet:
        figures.sheet(drawn, sheet)
        rest = total - unreadable - len(drawn)
        full = f", all that a sheet holds; {rest} are not on it" if rest else ""
        print(f"{sheet}: {len(drawn)} pictures{full}", file=sys.stderr)
    if not total:
        raise SourceError(f"no pictures in {', '.join(files)}.")
    if unreadable:
        raise SystemExit(1)


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
