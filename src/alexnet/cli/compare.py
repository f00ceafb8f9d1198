"""`alexnet compare`: two variants on one picture."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from alexnet.cli.next_step import next_step
from alexnet.cli.tables import print_line, print_table
from alexnet.errors import SourceError


def compare(
    first: Positional[Annotated[str, arg(metavar="VARIANT")]],
    second: Positional[Annotated[str, arg(metavar="VARIANT")]],
    weights: Path,
    image: Path,
) -> None:
    """Show how far the results of two variants differ, stage by stage, on one picture with the same
    weights, and which field causes it.

    Args:
        first: a variant: paper, code-2012, caffe, caffenet, owt or torchvision.
        second: another variant.
        weights: in any format that `alexnet weights import` reads, or a run's folder.
        image: the picture.
    """
    from alexnet.data.image import Unreadable
    from alexnet.data.sources import read_picture
    from alexnet.inspect import compare as comparing

    try:
        stages, effects = comparing.compare(comparing.load(weights, first), first, second, read_picture(image))
    except Unreadable as reason:
        raise SourceError(f"{image} cannot be read: {reason}.") from reason
    rows = [[stage.name, stage.remark or f"{stage.distance:.3g}"] for stage in stages]
    print_table(["stage", "relative L2 distance"], rows)
    print()
    for line in comparing.explain(effects, first, second):
        print_line(line)
    next_step("summary", second, "--explain")
