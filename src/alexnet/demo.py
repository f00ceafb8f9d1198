"""`alexnet demo`: everything once, on real pictures, in minutes."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from alexnet import engines, forecast, report
from alexnet.console import say
from alexnet.data.image import decode
from alexnet.data.prepare import prepare
from alexnet.data.store import MANIFEST, Store
from alexnet.errors import Interrupted
from alexnet.evaluate import evaluate_classifier
from alexnet.files import writing
from alexnet.published import data
from alexnet.published.registry import FASHION_MNIST
from alexnet.run_folder import REPORT, RESULT, is_run
from alexnet.train import recipes
from alexnet.train.loop import train
from alexnet.train.recipes import Recipe
from alexnet.web import export, shown
from alexnet.web.scene import Scene

STORE_SIZE = 72
#: Beside the report: a picture of the store as a file, and the page that explains the network on
#: it.
PICTURE, EXPLAINED = "picture.png", "explain.html"
#: How the time is foretold: from the seconds of a few plain steps of 64 pictures. Testing 10,000
#: pictures costs as much as 60 steps; the rest is preparing and the report.
STEPS, TEST_STEPS, OTHER_SECONDS = 937, 60, 30


def demo(out: Path, epochs: int | None = None) -> dict[str, Any]:
    """Prepare, train, test, report. Run again after an interruption, it goes on.

    Args:
        out: folder for `store`, `run`, `report.html`, a picture, and a page that shows the network
            at work on it.
        epochs: in place of the recipe's.

    Returns:
        dataset, images (tested), top1_error (a share), seconds (of training),
        report (path of the page).
    """
    store_folder, run_folder = out / "store", out / "run"
    recipe = recipes.get_recipe("laptop", **({} if epochs is None else {"epochs": epochs}))
    say(_what_comes(recipe, run_folder))
    if not (store_folder / MANIFEST).exists():
        prepare([data.pull(FASHION_MNIST)], store_folder, size=STORE_SIZE)
    store = Store(store_folder)
    try:
        trained = train(recipe, store, run_folder, resume=is_run(run_folder))
    except Interrupted as stop:
        raise Interrupted from stop
    result = evaluate_classifier(engines.of(trained), store)
    _explain(out, run_folder, store)
    page = report.write(out / REPORT, "AlexNet on Fashion-MNIST", trained, store, result, run_folder, EXPLAINED)
    return {
        "dataset": "Fashion-MNIST",
        "images": result.images,
        "top1_error": round(result.top1_error, 6),
        "seconds": round(trained.state["seconds"], 1),
        "report": str(page),
    }


def _explain(out: Path, run: Path, store: Store) -> None:
    """Write the first test picture as a file, and the page about it."""
    file = io.BytesIO()
    Image.fromarray(decode(store.held_out.take(slice(0, 1))[0])).save(file, "PNG")
    with writing(out / PICTURE) as temporary:
        temporary.write_bytes(file.getvalue())
    network = replace(shown.of_file(run), source="demo")
    export.write(out / EXPLAINED, Scene.of(network, file.getvalue(), PICTURE))


def ideas(out: Path) -> list[list[str]]:
    """What to try on the demo's store and run: words that follow `alexnet`, the first of them
    next.
    """
    run, data = str(out / "run"), ["--data", str(out / "store")]
    small = ["--width", "0.5", "--input-size", "64"]
    return [
        ["evaluate", run, *data, "--views", "10"],
        ["explain", str(out / PICTURE), "--run", run, *data, "-o", str(out / EXPLAINED)],
        ["filters", run, "-o", str(out / "filters.png")],
        ["export", run, "--to", "safetensors", "-o", str(out / "fashion.safetensors")],
        ["doctor", "paper-text", *data, *small],
        ["train", "modern", *data, *small, "--epochs", "3", "--out", str(out / "modern")],
    ]


def _what_comes(recipe: Recipe, run: Path) -> str:
    """Say what the demo does and how long it will take."""
    if (run / RESULT).exists():
        return f"{run} is already trained: testing it again and writing its report."
    less = ", less what was done before" if is_run(run) else ""
    return (
        "The demo gets Fashion-MNIST (70,000 small pictures of clothes), trains AlexNet on it, tests it and writes a report: "
        f"{forecast.about(_seconds(recipe))} on this machine as it is now{less}. Ctrl-C stops it, and the same "
        "command continues."
    )


def _seconds(recipe: Recipe) -> forecast.Times:
    """How long all of it will take, by the time of a few steps."""
    step = forecast.step_seconds(recipe, len(FASHION_MNIST.classes))
    return step.each(recipe.epochs * (STEPS + TEST_STEPS), OTHER_SECONDS)
