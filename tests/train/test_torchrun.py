"""`torchrun ... -m alexnet train`: the command itself, on two processes of this machine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from runs import OPTIONS, log, recipe, same_weights

from alexnet.data.store import Store
from alexnet.train.loop import train
from alexnet.train.result import read_result
from alexnet.weights import native

DOCS = Path(__file__).parents[2] / "docs" / "training.md"


def torchrun(*words: object, program: tuple[str, ...] = ("-m", "alexnet")) -> list[str]:
    """Two ranks of this machine, by the command of docs/training.md."""
    shown = re.search(r"^torchrun (.*?) -m alexnet train", DOCS.read_text(), re.MULTILINE)
    assert shown and shown[1] == "--standalone --nproc-per-node 4"
    launcher = [sys.executable, "-m", "torch.distributed.run", *shown[1].replace("4", "2").split()]
    return [*launcher, *program, *map(str, words)]


def ran(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def two(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two processes, and all that it printed."""
    folder = tmp_path_factory.mktemp("ranks") / "run"
    done = ran(
        torchrun("train", "laptop", "--data", store.folder, "--out", folder, *OPTIONS, "--epochs=2", "--parallel", "data")
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout + done.stderr


def settings(**changes: object) -> object:
    return recipe(batch_size=9, lr=0.02, dropout=0.5, crop=True, mirror=True, **changes)


def test_as_one_process_trains(two: tuple[Path, str], store: Store, tmp_path: Path) -> None:
    """9 pictures on two ranks. The same batches, crops and dropout; float32 rounds otherwise."""
    train(settings(), store, tmp_path / "one", lanes=1)
    ours, theirs = native.load(two[0]), native.load(tmp_path / "one")
    for name, weight in theirs.model.state_dict().items():
        assert (weight - ours.model.state_dict()[name]).abs().max() <= 1e-5 * weight.abs().max(), name
    for mine, other in zip(log(two[0]), log(tmp_path / "one"), strict=True):
        assert {**mine, "kind": 0} == pytest.approx({**other, "kind": 0}, rel=1e-5) and mine["kind"] == other["kind"]
    assert read_result(two[0])["evaluation"] == read_result(tmp_path / "one")["evaluation"]


def test_rank_0_alone_speaks_and_writes(two: tuple[Path, str], store: Store, tmp_path: Path) -> None:
    folder, said = two
    assert said.count("epoch 1: val top-1 error") == said.count("held-out top-1 error") == said.count("Next: ") == 1
    assert ", data over 2 processes." in said
    train(settings(), store, tmp_path / "one", lanes=1)
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    assert len([*(folder / "tensorboard").iterdir()]) == 1


STOPPED = """
import os, signal
from alexnet.cli import main
from alexnet.train.optim import SGD

calls, step = [], SGD.step
def stopping(*arguments):
    step(*arguments)
    calls.append(1)
    if len(calls) == 5 and os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGINT)
SGD.step = stopping
main()
"""


def test_stopped_and_resumed(two: tuple[Path, str], store: Store, tmp_path: Path) -> None:
    """Rank 0 is asked to stop, and all do; resumed they end with the bits of the
    run left alone.
    """
    run, script = tmp_path / "run", tmp_path / "stopped.py"
    script.write_text(STOPPED)
    words = ("train", "laptop", "--data", store.folder, "--out", run, *OPTIONS, "--epochs=2", "--parallel", "data")
    stopped = ran(torchrun(*words, program=(str(script),)))
    assert len(re.findall(r"stopped at epoch 0\.67 and saved", stopped.stderr)) == 1, stopped.stderr
    assert (native.load(run).state["epoch"], native.load(run).state["step"]) == (0, 5)
    done = ran(torchrun(*words, "--resume"))
    assert done.returncode == 0, done.stderr
    assert same_weights(run, two[0]) and log(run) == log(two[0])


def test_refusals_without_torchrun(store: Store, tmp_path: Path) -> None:
    words = (
        "train",
        "laptop",
        "--data",
        store.folder,
        "--out",
        tmp_path / "run",
        *OPTIONS,
        "--epochs=2",
        "--parallel",
        "data",
    )
    done = ran([sys.executable, "-m", "alexnet", *map(str, words)])
    assert done.returncode == 2
    assert (
        "parallel (=data) needs several processes: begin the command with `torchrun --standalone --nproc-per-node 2"
        in done.stderr
    )
    assert not (tmp_path / "run").exists()
