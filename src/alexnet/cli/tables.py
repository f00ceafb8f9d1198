"""What several verbs print."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len

from alexnet.console import clean

MOST_CLASSES_SHOWN = 30


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Left-aligned names, right-aligned numbers, on standard output; foreign names do no harm to a terminal.

    Columns are as wide as a terminal shows them: a Chinese character takes two cells, an accent of its own none.
    """
    texts = [[f"{cell:,}" if isinstance(cell, int) else clean(str(cell)) for cell in row] for row in [header, *rows]]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    for first, *rest in texts:
        cells = [" " * (width - cell_len(cell)) + cell for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first + " " * (widths[0] - cell_len(first)), *cells]))


def print_line(text: object) -> None:
    """One line on standard output; foreign names in it do no harm to a terminal."""
    print(clean(str(text)))


def print_path(path: str | Path) -> None:
    """A path on a line of its own. What is no terminal gets it exactly: `$(alexnet weights pull caffenet)` is a file."""
    print(clean(str(path)) if sys.stdout.isatty() else path)
