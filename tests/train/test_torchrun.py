"""`torchrun ... -m alexnet train`: the command itself, on two processes of this machine."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runs import log, recipe, same_weights

from alexnet.data.store import Store
from alexnet.train.loop import train
from alexnet.train.result import read_result
from alexnet.weights import native

SETTINGS = [
    "--width=0.125",
    "--epochs=2",
    "--batch-size=9",
    "--lr=0.02",
    "--compile=off",
    "--device=cpu",
    "--dropout=0.5",
    "--crop",
    "--mirror",
]


def torchrun(processes: int, *words: object) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, "-m", "alexnet", *map(str, words)]


def ran(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def two(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two processes, and all that it printed."""
    folder = tmp_path_factory.mktemp("ranks") / "run"
    done = ran(torchrun(2, "train", "laptop", "--data", store.folder, "--out", folder, *SETTINGS, "--parallel", "data"))
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
    assert ", 2 processes." in said
    train(settings(), store, tmp_path / "one", lanes=1)
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    assert len([*(folder / "tensorboard").iterdir()]) == 1


def test_ctrl_c_and_resume(two: tuple[Path, str], store: Store, tmp_path: Path) -> None:
    """All ranks stop after the same step; resumed, they end with the bits of the run left alone."""
    run = tmp_path / "run"
    words = ("train", "laptop", "--data", store.folder, "--out", run, *SETTINGS)
    with subprocess.Popen(torchrun(2, *words, "--parallel", "data"), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = ""
        for line in process.stderr:
            said += line
            if "2 epochs of 6 steps" in line:
                process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert len(re.findall(r"stopped at epoch [01]\.\d\d and saved", said)) == 1, said
    state = native.load(run).state
    assert 0 < 6 * state["epoch"] + state["step"] < 12
    done = ran(torchrun(2, *words, "--parallel", "data", "--resume"))
    assert done.returncode == 0, done.stderr
    assert same_weights(run, two[0]) and log(run) == log(two[0])


def test_refusals_without_torchrun(store: Store, tmp_path: Path) -> None:
    words = ("train", "laptop", "--data", store.folder, "--out", tmp_path / "run", *SETTINGS, "--parallel", "data")
    done = ran([sys.executable, "-m", "alexnet", *map(str, words)])
    assert done.returncode == 2
    assert "parallel (=data) needs several processes: begin the command with `torchrun --nproc-per-node 2" in done.stderr
    assert not (tmp_path / "run").exists()
