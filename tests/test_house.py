"""The house's rules that no linter has: short functions, and a formatter that is let win.

ruff holds the others (pyproject.toml): docstrings of what is public, prose within 100
columns, four levels of nesting.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "benchmarks")
MOST_LINES = 50  # of a function; its docstring does not count
MOST_SKIPS = 20  # lists and tables that read better packed than one entry a line


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def functions(text: str) -> Iterator[tuple[str, int]]:
    """The functions of a file by name, with their lines from `def` to the end,
    less those of the docstring.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            described = node.body[0] if ast.get_docstring(node) is not None else None
            docstring = described.end_lineno - described.lineno + 1 if described else 0
            yield node.name, node.end_lineno - node.lineno + 1 - docstring


@pytest.mark.parametrize("folder", FOLDERS)
def test_functions_are_short(folder: str) -> None:
    """All but kernels, which are one function by nature."""
    found = {
        f"{path.relative_to(ROOT)}: {name}": lines
        for path in files(folder)
        if "kernels" not in path.parts
        for name, lines in functions(path.read_text())
    }
    assert len(found) > 10
    assert {name: lines for name, lines in found.items() if lines > MOST_LINES} == {}


def test_the_formatter_wins() -> None:
    mark = "# fmt" + ":"
    marks = [line for folder in FOLDERS for path in files(folder) for line in path.read_text().splitlines() if mark in line]
    assert 0 < len(marks) <= MOST_SKIPS
    assert all(line.endswith(f"  {mark} skip") for line in marks)  # no `off`, which would hide whole files


def test_a_long_function_would_be_found() -> None:
    text = 'def long(x):\n    """Two\n    lines."""\n' + "    x += 1\n" * 60
    assert list(functions(text)) == [("long", 61)]
