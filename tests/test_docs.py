"""README and docs/ speak of what is there: files, names in them, links,
`make` targets, plain words.

Their commands are checked in `test_words.py`.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from alexnet import summary
from alexnet.variants import get_variant

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src/alexnet"
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
#: `file.py`, `folder/file.py: name` or `folder/file.py: Class.name`; a name may end
#: in `*` or an ellipsis.
MENTION = re.compile(r"`([\w/]+\.py)(?:: ([\w.]+)([*\u2026 ]*))?`")
BRANCH = re.compile(r"^((?:\u2502   |    )*)[\u251c\u2514]\u2500\u2500 (\S+) +(.*)$", re.MULTILINE)


@cache
def names(path: Path) -> frozenset[str]:
    """What a file defines: functions, classes and values, with those of its classes as
    Class.name.
    """

    def defined(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from defined(node.body, f"{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                for name in ast.walk(target) if target else ():
                    if isinstance(name, ast.Name):
                        yield prefix + name.id

    return frozenset(defined(ast.parse(path.read_text()).body))


@pytest.mark.parametrize("page", PAGES)
def test_files_and_names(page: str) -> None:
    for file, name, more in MENTION.findall(PAGES[page]):
        places = [folder / file for folder in (SRC, ROOT) if (folder / file).is_file()] or list(SRC.rglob(f"*/{file}"))
        assert places, f"{page} names {file}, which does not exist"
        if name:
            known = names(places[0])
            assert name in known or (more and any(one.startswith(name) for one in known)), f"{page}: {file} has no {name}"


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}, which does not exist"


def test_the_drawing_of_the_house() -> None:
    """Every branch and every file beside it exists, and every package is drawn."""
    drawing = re.findall(r"```text\n(src/alexnet/\n.*?)```", PAGES["docs/contributing.md"], re.DOTALL)[0]
    drawn: list[Path] = []
    trail: list[str] = []
    for bars, name, text in BRANCH.findall(drawing):
        trail = [*trail[: len(bars) // 4], name]
        path = SRC.joinpath(*trail)
        assert path.exists(), f"{'/'.join(trail)} does not exist"
        drawn.append(path)
        folder = path if path.is_dir() else path.parent
        for file in re.findall(r"\w+\.py", text):
            assert (folder / file).is_file(), f"{file} is not in {folder}"
    assert len(drawn) > 20
    contract = (ROOT / "pyproject.toml").read_text().split("layers = [")[1].split("]")[0]
    places = [contract.index(f"alexnet.{path.stem}") for path in drawn if path.parent == SRC]
    layers = [contract.count("\n", 0, place) for place in places]
    assert layers == sorted(layers), "the drawing has another order than the contract in pyproject.toml"
    rooms = {path.parent for path in SRC.rglob("__init__.py")}
    assert rooms - {SRC, SRC / "kernels/gpu", SRC / "data/sources"} <= set(drawn)


@pytest.mark.parametrize("page", PAGES)
def test_make_targets(page: str) -> None:
    targets = set(" ".join(re.findall(r"^([a-z0-9 -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)).split())
    blocks = re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines() if line.startswith("make ")]
    inline = re.findall(r"`(make [a-z -]+)`", PAGES[page])
    for line in (*lines, *inline):
        assert set(line.split()[1:]) <= targets, f"{page}: {line}"


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_plain_words(page: str) -> None:
    """The last table of contributing.md names the words that it replaces."""
    text = PAGES[page].partition("| instead of |")[0]
    assert not re.findall(r"\b(?:lies|stands|told|is none|are none|seed notes)\b", text)


def test_the_layer_written_out() -> None:
    """conv1 in variants.md is what `alexnet summary paper --explain` prints."""
    shown = re.findall(r"```text\n(conv1:\n.*?)```", PAGES["docs/variants.md"], re.DOTALL)[0]
    assert shown in summary.explain(get_variant("paper"))
