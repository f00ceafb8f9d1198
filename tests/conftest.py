"""Fixtures: the reference material beside the project (where it is), small photos made here,
small stores made of them, and where the GPU's kernels run: on the GPU if there is one, in
Triton's interpreter otherwise.
"""

import importlib.abc
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.data.prepare import prepare
from alexnet.data.store import Store
from alexnet.train import recipes
from alexnet.train.loop import train
from serving import Server, serving

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs; tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # has to be asked for before anything imports Triton
OLD_TRITON = "needs Triton 3.9, whose interpreter knows NumPy 2.4 (3.6's does not), or a CUDA device with any from 3.6"


class Lacking(importlib.abc.MetaPathFinder):
    """Asked last. Where a package is missing that a test or the command line imports, that file of
    tests is skipped: a machine with a GPU may have PyTorch and pytest alone, and `pytest -m gpu`
    must still find its tests there.
    """

    commands = frozenset({"tyro", "starlette", "uvicorn", "tensorboard"})

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Skip the file, or leave the name to be an error."""
        frame: FrameType | None = sys._getframe(1)
        while frame and frame.f_code.co_filename.startswith("<frozen importlib"):
            frame = frame.f_back
        of_a_test = frame and Path(frame.f_code.co_filename).is_relative_to(Path(__file__).parent)
        if of_a_test or fullname in self.commands:
            pytest.skip(f"{fullname} is not installed", allow_module_level=True)


if not importlib.util.find_spec("tyro"):  # elsewhere a missing package is an error
    sys.meta_path.append(Lacking())

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared; tests that use it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("the reference material ../shared is not here")
    return SHARED


@pytest.fixture(scope="session")
def inputs(shared: Path) -> ModuleType:
    """The program that makes the inputs of the golden files."""
    spec = importlib.util.spec_from_file_location("golden_inputs", shared / "golden" / "inputs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True, scope="session")
def _shared_is_complete() -> None:
    """Where CI says that the reference material is there, it is: a test that skips for lack of it
    would hide a failure.
    """
    if os.environ.get("ALEXNET_REQUIRE_SHARED"):
        assert (SHARED / "facts.md").exists(), f"{SHARED} is not where the tests look for it"


COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def draw(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (60, 50)) -> Image.Image:
    """A small picture of one colour with noise: three classes of them can be learned in seconds."""
    noise = np.random.default_rng(seed).normal(0, 25, (size[1], size[0], 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def write_photos(folder: Path, per_class: int, first: int = 0) -> Path:
    """A folder per class with `per_class` JPEGs each."""
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(first, first + per_class):
            draw(colour, 1000 * len(name) + index).save(folder / name / f"{index}.jpg", quality=92)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """`photos(per_class)` writes a flat folder per class under the test's own folder."""
    return lambda per_class=12, name="photos": write_photos(tmp_path / name, per_class)


@contextmanager
def deep_folder(folder: Path, levels: int) -> Iterator[None]:
    """Folders `d`, one in the other, with the innermost as the working folder. Afterwards they and
    the files in the innermost are gone: pytest's own cleaning is recursive.
    """
    earlier, innermost = Path.cwd(), folder.joinpath(*["d"] * levels)
    os.chdir(folder)
    try:
        for _ in range(levels):
            Path("d").mkdir()
            os.chdir("d")
        yield
    finally:
        os.chdir(innermost)
        for file in Path().iterdir():
            file.unlink()
        for _ in range(levels):
            os.chdir("..")
            Path("d").rmdir()
        os.chdir(earlier)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """72 pixels; 60 pictures to train on, 18 to test, three classes. Read only."""
    folder = tmp_path_factory.mktemp("photos_of_the_store", numbered=False)
    write_photos(folder / "train", 20)
    write_photos(folder / "val", 6, first=100)
    return prepare([folder], tmp_path_factory.mktemp("store") / "store", size=72)


@pytest.fixture(scope="session")
def run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the drawn pictures. Read only."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    recipe = recipes.get_recipe("laptop", epochs=6, batch_size=10, width=0.125, compile="off", device="cpu")
    train(recipe, store, folder)
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    """A server for downloads, which answers as the test says."""
    with serving() as state:
        yield state


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where to put a kernel's arguments."""
    pytest.importorskip("triton", minversion="3.9" if request.param == "interpreter" else None, reason=OLD_TRITON)
    if (request.param == "cuda") != torch.cuda.is_available():
        pytest.skip("the kernels run on the GPU here" if torch.cuda.is_available() else "needs a CUDA device")
    return torch.device("cuda" if request.param == "cuda" else "cpu")


@pytest.fixture
def gpu(device: torch.device) -> torch.device:
    """For shapes that take the interpreter hours."""
    if device.type != "cuda":
        pytest.skip("needs a CUDA device")
    return device
