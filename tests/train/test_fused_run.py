"""Whole runs by the fused step, on a CPU: the same training, resumed to the bit,
evaluated by the same walk.
"""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alexnet import devices
from alexnet.data.store import Store
from alexnet.devices import pick_precision
from alexnet.errors import Interrupted, RecipeError, TrainingError
from alexnet.kernels import lacking
from alexnet.train import recipes
from alexnet.train.loop import train
from alexnet.train.result import read_result, verify_run
from alexnet.train.steps import choose as steps
from alexnet.train.steps.fused import FusedStep
from alexnet.variants import get_variant
from alexnet.weights import native
from stopping import stop_after

SMALL: dict[str, Any] = {
    "width": 1 / 8,
    "epochs": 3,
    "batch_size": 10,
    "lr": 0.005,
    "compile": "off",
    "device": "cpu",
    "fused": "on",
}


def recipe(**changes: Any) -> recipes.Recipe:
    return recipes.get_recipe("laptop", **{**SMALL, **changes})


def log(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    return lines


def state(run: Path) -> dict[str, torch.Tensor]:
    trained = native.load(run)
    return {**trained.model.state_dict(), **trained.extra}


def same_weights(first: Path, second: Path) -> bool:
    one, two = state(first), state(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted; 27 steps lie behind the first look."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(recipe(dropout=0.3, epochs=5), store, folder)
    return folder


def test_the_plain_run_is_the_same(store: Store, tmp_path: Path) -> None:
    """Dropped units included: every line of the log to 1e-4 (float32 sums in another order, 18
    steps).
    """
    one, other = tmp_path / "fused", tmp_path / "plain"
    train(recipe(dropout=0.3), store, one)
    train(recipe(dropout=0.3, fused="off"), store, other)
    for first, second in zip(log(one), log(other), strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert value == pytest.approx(second[name], rel=1e-4) if isinstance(value, float) else value == second[name]


def test_the_run_is_what_its_record_says(finished: Path) -> None:
    assert verify_run(finished) == []


def test_it_is_watched(finished: Path) -> None:
    lines = [line for line in log(finished) if line["kind"] == "signals"]
    assert [line["step"] for line in lines] == [20]
    assert lines[0]["gradient/conv1"] > 0 and lines[0]["update/fc8"] > 0


@pytest.mark.parametrize("after", [1, 6, 21])
def test_stopped_and_resumed(finished: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C after any step, then on with the pictures elsewhere: the same bits, the same log."""
    run = tmp_path / "run"
    chosen = recipe(dropout=0.3, epochs=5)
    with monkeypatch.context() as patch:
        stop_after(patch, FusedStep, "take", after)
        with pytest.raises(Interrupted, match="--resume"):
            train(chosen, store, run)
    train(recipe(dropout=0.3, epochs=5, feed="resident"), store, run, resume=True)
    assert same_weights(finished, run)
    assert log(finished) == log(run)


def test_bfloat16_on_a_cpu(store: Store, tmp_path: Path) -> None:
    """Asked for, it runs here too: the loss falls, and the checkpoint is float32."""
    train(recipe(precision="bf16", epochs=6, lr=0.01), store, tmp_path / "run")
    losses = [line["loss"] for line in log(tmp_path / "run") if line["kind"] == "train"]
    assert losses[-1] < losses[0] * 0.8
    assert native.load(tmp_path / "run").model.conv1.weight.dtype == torch.float32


def test_a_loss_that_explodes(store: Store, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) at epoch .*became non-finite first.*No checkpoint.*lower --lr"
    ):
        train(recipe(lr=1e6, warmup=0.0), store, tmp_path / "run")


def test_where_it_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    paper, tanh, cpu, cuda = (
        get_variant("paper"),
        get_variant("paper", activation="tanh"),
        torch.device("cpu"),
        torch.device("cuda"),
    )
    auto = recipes.get_recipe("paper-2012", fused="auto")
    assert not steps.wants_fused(auto, paper, cpu) and capsys.readouterr().err == ""
    with pytest.raises(RecipeError, match=r"fused \(=on\) cannot train this here \(.*activation=tanh"):
        steps.wants_fused(recipe(), tanh, cpu)
    with pytest.raises(RecipeError, match=r"fused \(=on\) cannot train this here \(.*this is mps"):
        steps.wants_fused(recipe(), paper, torch.device("mps"))

    monkeypatch.setattr("alexnet.kernels.TRITON", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert steps.wants_fused(auto, paper, cuda)
    assert not steps.wants_fused(recipes.get_recipe("paper-2012", fused="off"), paper, cuda)
    assert steps.wants_fused(recipes.get_recipe("modern", fused="auto"), paper, cuda)
    assert not steps.wants_fused(auto, tanh, cuda) and "activation=tanh" in capsys.readouterr().err

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not steps.wants_fused(auto, paper, cuda) and "this GPU has 7.5" in capsys.readouterr().err
    monkeypatch.setattr("alexnet.kernels.TRITON", False)
    assert "pip install triton" in str(lacking(cuda))
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert "AMD" in str(lacking(cuda)) and "mps" in str(lacking(torch.device("mps")))
    assert not steps.wants_fused(auto, paper, torch.device("mps")) and "this is mps" in capsys.readouterr().err


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    chosen = [pick_precision("auto", device, fused) for device in (cpu, cuda) for fused in (False, True)]
    assert chosen == ["fp32", "fp32", "tf32", "bf16"]
    with pytest.raises(RecipeError, match=r"precision \(=bf16\) needs the fused step"):
        pick_precision("bf16", cuda, False)
    with pytest.raises(RecipeError, match=r"precision \(=tf32\).*runs on cpu"):
        pick_precision("tf32", cpu, True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert pick_precision("auto", cuda, True) == "tf32"


@pytest.fixture
def _like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes what it would take on a GPU that has bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    for module in ("session", "steps.choose"):
        monkeypatch.setattr(
            f"alexnet.train.{module}.pick_precision",
            lambda wanted, device, fused: pick_precision(wanted, torch.device("cuda"), fused),
        )


def computed_in(recipe: recipes.Recipe, store: Store, folder: Path, resume: bool = False) -> list[str]:
    """The precisions of a run, in order."""
    train(recipe, store, folder, resume=resume)
    return [kind.split()[3] for kind in read_result(folder)["trained_by"]]


@pytest.mark.usefixtures("_like_a_gpu")
def test_bfloat16_is_asked_first(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A start of pictures all alike, as the paper's own, is trained in tf32 unless bfloat16 is
    asked for; a run that goes on keeps what it has.
    """
    assert computed_in(recipe(epochs=1), store, tmp_path / "healthy") == ["bf16"]
    assert "Computing in" not in capfd.readouterr().err
    alike = recipes.get_recipe("paper-text", **{**SMALL, "epochs": 1, "input_size": 67})
    assert computed_in(alike, store, tmp_path / "alike") == ["tf32"]
    (line,) = (line for line in capfd.readouterr().err.splitlines() if "bf16" in line)
    assert line.startswith("Computing in tf32: bf16 is faster here, but it would move the logits of this network's start by ")
    assert line.endswith("from picture to picture (limit 5%); --precision bf16 uses it anyway.")
    assert computed_in(replace(alike, precision="bf16"), store, tmp_path / "asked") == ["bf16"]
    for name, moved in (("healthy", 1.0), ("alike", 0.0)):
        monkeypatch.setattr("alexnet.train.steps.split.rounding", lambda _, moved=moved: moved)
        longer = replace(recipe() if name == "healthy" else alike, epochs=2)
        assert computed_in(longer, store, tmp_path / name, resume=True) == ["bf16" if name == "healthy" else "tf32"]


def test_a_batch_that_does_not_fit(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step's own message; the GPU is the test's invention."""

    def full(self: FusedStep, *arguments: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(FusedStep, "_take", full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 2**30, 16 * 2**30))
    with pytest.raises(
        TrainingError, match=r"batch_size \(=10\) does not fit .*3.0 of 16.0 GiB.*--batch-size 5 or --feed pinned"
    ):
        train(recipe(feed="resident"), store, tmp_path / "run")


@pytest.mark.parametrize(("there", "expected"), [(True, "too old (found version 11040)"), (False, "")])
def test_an_old_driver_is_named(
    there: bool, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch sees no GPU where the driver is too old; where a driver is installed, the person is
    told, and the CPU computes.
    """

    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver")

    monkeypatch.setattr(devices, "NVIDIA", SimpleNamespace(exists=lambda: there))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    assert devices.pick_device("auto").type in ("cpu", "mps")
    told = capsys.readouterr().err
    assert expected in told and bool(told) == there
    with pytest.raises(RecipeError, match=r"device \(='cuda'\) is not available"):
        devices.pick_device("cuda")
