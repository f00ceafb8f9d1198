"""The house: imports point downward, nothing is exported that is not there, help needs no
PyTorch.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import alexnet
from alexnet.cli import VERBS
from alexnet.train.recipes import RECIPES

ROOT = Path(__file__).parents[1]


def run(*words: str, modules: bool = False) -> "subprocess.CompletedProcess[str]":
    """The command line in a fresh process; with `modules`, the heavy ones that it
    imported are printed last.
    """
    heavy = ("torch", "numpy", "PIL", "matplotlib", "pyarrow", "rich.progress", "statistics")
    report = f"\nfinally:\n    print([m for m in {heavy} if m in sys.modules])"
    code = f"import sys\ntry:\n    from alexnet.cli import main; main({list(words)!r}){report if modules else chr(10) + 'finally: pass'}"
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)


def test_imports_point_downward() -> None:
    from importlinter import cli  # not in a subprocess: its absence must fail here

    assert cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_the_contract_names_every_module() -> None:
    """A module that the contract does not name could import anything."""
    contract = (ROOT / "pyproject.toml").read_text().split("layers = [")[1]
    top = {path.stem for path in (ROOT / "src/alexnet").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    for name in top - {"__init__", "__main__"}:
        assert f"alexnet.{name}" in contract, name


def test_exports() -> None:
    assert all(getattr(alexnet, name) is not None for name in alexnet.__all__)
    with pytest.raises(AttributeError, match="no attribute 'AlexNett'"):
        _ = alexnet.AlexNett


@pytest.mark.parametrize("words", [(), *((verb,) for verb in VERBS), *(("train", name) for name in RECIPES)])
def test_help_without_torch(words: tuple[str, ...]) -> None:
    result = run(*words, "--help", modules=True)
    assert result.returncode == 0, result.stderr
    assert "usage: alexnet" in result.stdout and max(map(len, result.stdout.splitlines())) <= 80
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("format", ["table", "markdown", "json"])
def test_summary_without_torch(format: str) -> None:
    result = run("summary", "caffe", "--format", format, modules=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


def test_draw_without_torch(tmp_path: Path) -> None:
    """An SVG is plain text: neither PyTorch nor matplotlib is loaded for it."""
    result = run("draw", "caffe", "--layer", "conv1", "-o", str(tmp_path / "x.svg"), modules=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"
