"""`alexnet fit`: from photos to a tested network, in one command."""

import json
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from alexnet import intervals
from alexnet.cli.next_step import PHOTO, next_step
from alexnet.console import say


def fit(
    photos: Positional[Annotated[Path, arg(metavar="PHOTOS")]],
    out: Path = Path("run"),
    weights: Annotated[str | None, arg(name="from", metavar="WEIGHTS")] = None,
    variant: str | None = None,
    labels: Path | None = None,
    hold_out: float = 0.1,
    class_weights: Literal["balanced"] | None = None,
    minutes: float | None = None,
    data: Path | None = None,
) -> None:
    """Make a network of your photos: prepare them, train, test, and write a page about it.

    The photos are a folder with one folder per class, or anything else that `alexnet prepare`
    takes, such as the name of a published data set. Run the same command again after an
    interruption: it goes on. Standard output gets one JSON object.

    Args:
        photos: the photos.
        out: folder for the run; the photos' store is made inside it.
        weights: trained weights to begin with: a file in any format that `alexnet weights import`
            reads, a run's folder, or a name from `alexnet weights list`; by default published ones
            that are on this machine.
        variant: which AlexNet the weights are of (caffe, torchvision ...), if their file does not
            say so.
        labels: a table of file and class, if the photos are in one folder: see `alexnet help
            prepare`.
        hold_out: share of each class that is kept for testing, if the photos have no test part.
        class_weights: balanced lets classes of unequal size count alike.
        minutes: how long all of it may take, planned at the start at the speed measured there; by
            default as long as the recipe takes, which is said first.
        data: folder for the store, in place of OUT/store; a finished store that is there is used.
    """
    from alexnet.fit import fit as run

    result = run(
        photos,
        out,
        weights=weights,
        variant=variant,
        labels=labels,
        hold_out=hold_out,
        class_weights=class_weights,
        minutes=minutes,
        data=data,
    )
    print(json.dumps(result.as_json()))
    tested = result.tested
    stated = intervals.stated(tested.wrong, tested.images, tested.chance)
    few = intervals.warning(tested.images)
    views = f", seen in {tested.views} views" if tested.views > 1 else ""
    say(f"Error on held-out photos{views}: {stated}.{f' Warning: {few}' if few else ''}")
    say(f"The page about it: {result.report}")
    next_step("predict", out, PHOTO)
