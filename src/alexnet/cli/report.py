"""`alexnet report`: a page about a finished run."""

from pathlib import Path

from tyro.conf import Positional

from alexnet.errors import CheckpointError


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
