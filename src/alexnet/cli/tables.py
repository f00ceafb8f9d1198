"""Tables and lines that several verbs print."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from alexnet.console import WORD, clean, wrapped

MOST_CLASSES_SHOWN = 30
LEAST_WORDS = 12  # cells of a column of words


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table to standard output: words left-aligned, numbers right-aligned, control
    characters made visible.

    Columns are as wide as a terminal shows them: a Chinese character takes two cells, an accent of
    its own none. Words that do not fit the terminal are cut; elsewhere, as in a file, nothing is.
    """
    texts = [[f"{cell:,}" if isinstance(cell, int) else clean(str(cell)) for cell in row] for row in [header, *rows]]
    columns = list(zip(*texts, strict=True))
    left = [not number or any(cell[:1].isalpha() for cell in column[1:]) for number, column in enumerate(columns)]
    widths = [max(map(cell_len, column)) for column in columns]
    if sys.stdout.isatty():
        widths = _fitted(widths, left, shutil.get_terminal_size().columns)
    for row in texts:
        cells = [_cell(cell, width, words) for cell, width, words in zip(row, widths, left, strict=True)]
        print("  ".join(cells).rstrip())


def _fitted(widths: list[int], left: list[bool], columns: int) -> list[int]:
    """Column widths that fit the terminal: the widest column of words shrinks, down to
    `LEAST_WORDS`.
    """
    excess = sum(widths) + 2 * (len(widths) - 1) - columns
    if excess <= 0:
        return widths
    widest = max((number for number in range(len(widths)) if left[number]), key=lambda number: widths[number])
    smaller = max(widths[widest] - excess, min(LEAST_WORDS, widths[widest]))
    return [*widths[:widest], smaller, *widths[widest + 1 :]]


def _cell(text: str, width: int, left: bool) -> str:
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip() + "…"
    space = " " * (width - cell_len(text))
    return text + space if left else space + text


def print_line(text: object) -> None:
    """Print a line to standard output, with control characters made visible; a terminal gets it
    in lines that end between words.
    """
    line = clean(str(text))
    print(wrapped(WORD.findall(line), _columns()) if sys.stdout.isatty() else line)


def print_parts(*parts: object) -> None:
    """Parts on one line of standard output, two spaces apart; where a terminal
    is too narrow, on several.
    """
    first, *others = (clean(str(part)) for part in parts)
    print(wrapped([first, *(f"  {part}" for part in others)], _columns(), indent="    "))


def _columns() -> int:
    """The width of the terminal; a file takes lines of any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def print_path(path: str | Path) -> None:
    """Print a path on a line of its own, unchanged unless standard output is a terminal:
    `$(alexnet weights pull caffenet)` is a file.
    """
    print(clean(str(path)) if sys.stdout.isatty() else path)
