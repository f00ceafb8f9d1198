"""`alexnet report`: write a page about a finished run."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alexnet.address import last_part
from alexnet.arguments import check_here
from alexnet.cli.next_step import PHOTO, next_step
from alexnet.cli.options import Data
from alexnet.cli.tables import print_path
from alexnet.errors import CheckpointError, OutputError, UsageError


def report(
    run: Positional[Annotated[Path, arg(metavar="RUN")]], data: Data, out: Annotated[Path | None, arg(aliases=["-o"])] = None
) -> None:
    """Write a page about a run: error, settings, curves, filters, mistakes, confusion matrix.

    The page is one file that includes its pictures, so it can be sent on and opened offline.

    Args:
        run: the run's folder.
        data: the store it was trained on.
        out: the file to write, ending in .html; RUN/report.html by default.
    """
    from alexnet import engines
    from alexnet import report as page
    from alexnet.data.store import Store
    from alexnet.evaluate import evaluate_classifier, fitting
    from alexnet.files import make_ready
    from alexnet.run_folder import REPORT
    from alexnet.weights import native

    check_here(run, "runs", CheckpointError)
    if not run.is_dir():
        raise UsageError(f"report needs a run's folder with its log and configuration, but {run} is not a folder.")
    out = out or run / REPORT
    if out.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"out (={out}) must end in .html.")
    make_ready(out)
    trained = native.load(run)
    classifier = engines.of(trained)
    store, _ = fitting([classifier], Store(data))
    result = evaluate_classifier(classifier, store)
    print_path(page.write(out, f"AlexNet on {last_part(data)}", trained, store, result, run))
    next_step("predict", run, PHOTO)
