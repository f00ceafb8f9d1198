"""`alexnet evaluate`: measure the error of a trained network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from alexnet import intervals
from alexnet.cli.next_step import PHOTO, next_step
from alexnet.cli.options import Data, Engine
from alexnet.cli.tables import MOST_CLASSES_SHOWN, print_line, print_table
from alexnet.console import say
from alexnet.errors import UsageError
from alexnet.phrases import counted

if TYPE_CHECKING:
    from alexnet.ensemble import Average
    from alexnet.evaluate import Evaluation


def evaluate(
    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN [RUN ...]", help_behavior_hint="")]],
    data: Data,
    split: str | None = None,
    views: Literal[1, 10] = 1,
    engine: Engine = "auto",
    average: bool = False,
    fit: bool = False,
    json_file: Annotated[Path | None, arg(name="json")] = None,
    out: Path | None = None,
) -> None:
    """Test a network on the held-out pictures of a store: top-1 and top-5 error, error per class,
    confusion matrix.

    Files are written only with --json and --out.

    Args:
        runs: a run's folder (its latest checkpoint), a .safetensors file, or what `alexnet export`
            wrote (.onnx, .xml); name several, or a family's folder, to average them.
        data: the store to test on.
        split: the split to test on; the held-out one by default.
        views: 1 for the centre crop, 10 for the paper's corners, centre and mirrors.
        engine: torch, or openvino or onnxruntime (pip install 'alexnet[serve]'), which are faster
            on a CPU; auto takes the fastest available.
        average: average the probabilities of several networks, as the paper did.
        fit: fit the weights of the average on every second picture and test on the others.
        json_file: also write the result to this file.
        out: write confusion.csv and confusion.png into this folder.
    """
    from alexnet import engines, figures
    from alexnet.data.store import Store
    from alexnet.evaluate import evaluate_classifier
    from alexnet.files import make_ready, write_json

    networks = _networks(runs, average, fit)
    classifiers, store = [engines.load(one, engine) for one in networks], Store(data)
    for path in filter(None, (out and out / "confusion.csv", json_file)):
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
    if json_file:
        write_json(json_file, content)
    if out:
        print_line("Confusion matrix: {} and {}".format(*figures.save_confusion(result, out)))
    next_step(*(["report", networks[0], "--data", data] if networks[0].is_dir() else ["predict", networks[0], PHOTO]))


def _networks(runs: tuple[Path, ...], average: bool, fit: bool) -> list[Path]:
    """The named runs, with a family's folder replaced by its members."""
    from alexnet.run_folder import members

    networks = [one for run in runs for one in members(run) or [run]]
    if not networks:
        raise UsageError("evaluate needs a run: alexnet evaluate RUN --data STORE")
    if len(networks) > 1 and not average:
        raise UsageError(f"evaluate takes one network, but got {len(networks)}: add --average to average them.")
    if len({one.resolve() for one in networks}) < len(networks):
        raise UsageError("the same network is named twice and would count twice in the average: name each network once.")
    if fit and not average:
        raise UsageError("--fit fits the weights of an average: add --average and name two or more runs.")
    return networks


def _print_average(together: "Average", runs: list[Path]) -> None:
    coefficients = together.coefficients or [1 / len(runs)] * len(runs)
    named = [(str(run), f"{share:.3f}", one) for run, share, one in zip(runs, coefficients, together.alone, strict=True)]
    named += [("plain average", "", together.plain)]
    named += [("weighted average", "", together.fitted)] if together.fitted else []
    rows = [[name, share, *_errors(result)] for name, share, result in named]
    rows.append(["chance", "", *_chance(together.plain)])
    print_table([f"on {counted(together.plain.images, 'picture')}", "coefficient", *_headings(together.plain)], rows)
    _warn(together.plain)


def _print_evaluation(result: "Evaluation") -> None:
    rows = result.as_json()["per_class"]
    shown = [row for row in rows if row["images"]]
    if len(shown) > MOST_CLASSES_SHOWN:
        shown = sorted(shown, key=lambda row: -row["top1_error"])[:MOST_CLASSES_SHOWN]
        print(f"The {MOST_CLASSES_SHOWN} classes with the most errors:")
    cells = [[row["class"], row["images"], *_class_errors(row, result.has_top5)] for row in shown]
    summary: list[list[object]] = [["all", result.images, *_errors(result)], ["chance", "", *_chance(result)]]
    print_table(["class", "images", *_headings(result)], [*cells, *summary])
    _warn(result)


def _headings(result: "Evaluation") -> list[str]:
    return ["top-1 error", "95% interval", *(["top-5 error"] if result.has_top5 else [])]


def _errors(result: "Evaluation") -> list[str]:
    top5 = [intervals.percent(result.top5_error)] if result.has_top5 else []
    return [intervals.percent(result.top1_error), intervals.interval(result.wrong, result.images), *top5]


def _chance(result: "Evaluation") -> list[str]:
    """The error of always predicting the most frequent class."""
    return [intervals.percent(result.chance), "", *([""] if result.has_top5 else [])]


def _class_errors(row: dict[str, Any], has_top5: bool) -> list[str]:
    low, high = row["top1_interval"]
    return [f"{row['top1_error']:.1%}", f"{low:.1%} to {high:.1%}", *([f"{row['top5_error']:.1%}"] if has_top5 else [])]


def _warn(result: "Evaluation") -> None:
    text = intervals.warning(result.images)
    if text:
        say(f"Warning: {text}")
