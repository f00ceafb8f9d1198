"""The package as others install it: a wheel in an environment of its own, used from there,
and seen by a type checker.

PyTorch and the other dependencies are this environment's; alexnet is the wheel's alone.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from alexnet.cli import main
from alexnet.data.store import Store
from conftest import draw

ROOT = Path(__file__).parents[1]
SOURCES = ("src", "pyproject.toml", "README.md", "LICENSE")

USER = """\
from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import alexnet

net = alexnet.AlexNet("paper", num_classes=10, width=0.5)
assert_type(net(torch.zeros(1, 3, 224, 224)), Tensor)
assert_type(net.conv1, nn.Conv2d)
assert_type(net.fc8, nn.Linear)
assert_type(net.conv1.kernel_size, tuple[int, ...])
assert_type(net.stages(torch.zeros(1, 3, 224, 224))["conv1"], Tensor)

network = alexnet.load(Path("run"))
assert_type(network, alexnet.Loaded)
assert_type(network.predict("cat.jpg"), list[tuple[str, float]])
assert_type(network.predict(b"", top=1, views=10), list[tuple[str, float]])
assert_type(network.stages("cat.jpg"), dict[str, Tensor])
assert_type(network.classes, tuple[str, ...])
assert_type(alexnet.__version__, str)
"""
WRONG = """\
import alexnet

alexnet.load("run").predict(3)
alexnet.load("run").predict("cat.jpg", views=5)
alexnet.load("run").clases
alexnet.AlexNet("paper").conv1.weight.shap
"""
WRONG_LINES = {("wrong.py", str(line)) for line in (3, 4, 5, 6)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as building leaves files beside the sources."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    _run(*command, at=folder)
    (built,) = (folder / "dist").glob("alexnet-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the environment that the wheel is installed in."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = _run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", at=folder).strip()
    # The paths of a .pth file come after the environment's own packages, and what is named in their
    # .pth files does not count: the alexnet that is being edited is not seen.
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _run(
        sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel), at=folder
    )
    return python


def _run(*command: str, at: Path) -> str:
    """Standard output of a command that must succeed, without this checkout on Python's path."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    result = subprocess.run(command, cwd=at, env=environment, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def test_it_holds_all_files(wheel: Path) -> None:
    """Every file of the package, those that are no Python too."""
    package = ROOT / "src" / "alexnet"
    files = {path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()}
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in files if "__pycache__" not in name} <= held
    assert "alexnet/py.typed" in held and any(name.startswith("alexnet/published/") and name.endswith(".txt") for name in held)


def test_it_works_where_it_is_installed(python: Path, store: Store, tmp_path: Path) -> None:
    words = ["train", "laptop", "--data", str(store.folder), "--out", str(tmp_path / "run"), "--epochs", "6"]
    main([*words, "--batch-size", "10", "--width", "0.125", "--compile", "off", "--device", "cpu"])
    draw((200, 50, 40), 77).save(tmp_path / "red.png")
    alexnet = str(python.with_name("alexnet"))
    assert _run(alexnet, "--version", at=tmp_path) == _run(str(python), "-m", "alexnet", "--version", at=tmp_path)
    assert json.loads(_run(alexnet, "summary", "--format", "json", at=tmp_path))["totals"]["parameters"] == 60_965_224
    assert "caffenet" in _run(alexnet, "weights", "list", at=tmp_path)
    code = "import alexnet; print(alexnet.__file__); print(alexnet.load('run').predict('red.png')[0][0])"
    file, answer = _run(str(python), "-c", code, at=tmp_path).splitlines()
    assert python.parents[1] in Path(file).parents and answer == "red"


def test_mypy_sees_its_types(python: Path, tmp_path: Path) -> None:
    """Strictly, in a user's program; and what is wrong there is an error."""
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), "--config-file", os.devnull, "--strict"]
    command += ["--cache-dir", str(ROOT / ".mypy_cache" / "user")]  # of PyTorch it takes half a minute
    assert _errors(command, tmp_path) == WRONG_LINES


def test_pyright_sees_its_types(python: Path, tmp_path: Path) -> None:
    """The same by Pyright, in the package that brings Node.js along."""
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", str(python)]
    assert _errors(command, tmp_path) == WRONG_LINES


def _errors(command: list[str], folder: Path) -> set[tuple[str, str]]:
    """Files and lines with an error."""
    (folder / "user.py").write_text(USER)
    (folder / "wrong.py").write_text(WRONG)
    result = subprocess.run([*command, "user.py", "wrong.py"], cwd=folder, capture_output=True, text=True, timeout=280)
    lines = [line.split(":") for line in result.stdout.splitlines() if " error: " in line]
    return {(Path(file.strip()).name, line) for file, line, *_ in lines}
