"""What several verbs print."""

from typing import Any

from alexnet.console import clean

MOST_CLASSES_SHOWN = 30


def print_table(header: list[str], rows: list[list[Any]]) -> None:
    """Left-aligned names, right-aligned numbers, on standard output; foreign names do no harm to a terminal."""
    texts = [[f"{cell:,}" if isinstance(cell, int) else clean(str(cell)) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for first, *rest in texts:
        print(first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)), sep="  ")
