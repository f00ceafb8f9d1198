"""`alexnet filters`: draw what the first layer has learned."""

from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from alexnet.cli.next_step import PHOTO, next_step
from alexnet.cli.tables import print_line
from alexnet.console import say


def filters(
    weights: Positional[Annotated[Path, arg(metavar="WEIGHTS")]],
    out: Annotated[Path, arg(aliases=["-o"])] = Path("filters.png"),
    variant: Annotated[str | None, arg(metavar="NAME")] = None,
    bgr: FlagCreatePairsOff[bool] = False,
    grey: FlagCreatePairsOff[bool] = False,
) -> None:
    """Draw the kernels of the first layer, grouped by tower, as in figure 3 of the paper.

    On ImageNet, one tower learns grey edges and the other learns colours.

    Args:
        weights: in any format that `alexnet weights import` reads, or a run's folder; layers
            after conv1 may be missing.
        out: the picture to write: .png, .svg or .pdf.
        variant: which AlexNet it is, if the file does not say so: paper, code-2012, caffe,
            caffenet, owt or torchvision.
        bgr: the channels are in the order blue, green, red, if the file does not say so.
        grey: draw the sum of the channels, for networks trained on grey pictures.
    """
    from alexnet import figure_file, figures
    from alexnet.files import make_ready
    from alexnet.inspect.filters import read
    from alexnet.weights.importer import OURS

    figure_file.check_ending("out", out)
    make_ready(out)
    first_layer = read(weights, variant, bgr, grey)
    for note in first_layer.notes:
        say(f"alexnet: {weights}: {note}.")
    figure_file.save(figures.filters(first_layer.kernels), out)
    towers, count, height, width, _ = first_layer.kernels.shape
    apart = f" in each of {towers} towers" if towers > 1 else ""
    ours = first_layer.format == OURS
    kind = "" if ours else f" ({first_layer.format})"
    print_line(f"{out}: {count} kernels of {height} x {width}{apart}, from {weights}{kind}")
    _next(weights, ours)


def _next(weights: Path, ours: bool) -> None:
    """A run has a report, a network predicts, and another program's file is yet to be checked."""
    from alexnet.run_folder import is_run
    from alexnet.train.history import read_config, store_of
    from alexnet.weights import native

    if is_run(weights):
        next_step("report", weights, "--data", store_of(weights, read_config(weights).store.folder))
    elif ours and native.is_part(weights):
        next_step("train", "finetune", "--from", weights, "--data", "store", "--out", "run")
    elif ours:
        next_step("predict", weights, PHOTO)
    else:
        next_step("weights", "verify", weights)
