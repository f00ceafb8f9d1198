"""Training for real, in seconds: it learns, resumes to the bit, and stops as it should."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from alexnet.data.store import Store
from alexnet.errors import CheckpointError, Interrupted, OutputError, RecipeError, TrainingError
from alexnet.train import recipes
from alexnet.train.loop import train
from alexnet.train.optim import SGD
from alexnet.train.run import Run
from alexnet.train.start import Start
from alexnet.train.steps.plain import PlainStep, loss_function
from alexnet.weights import native
from stopping import stop_after

SMALL: dict[str, Any] = {"width": 1 / 8, "epochs": 3, "batch_size": 10, "lr": 0.005, "compile": "off", "device": "cpu"}


def recipe(**changes: Any) -> recipes.Recipe:
    return recipes.get_recipe("laptop", **{**SMALL, **changes})


def same_weights(first: Path, second: Path) -> bool:
    one, two = native.load(first), native.load(second)
    states = [{**trained.model.state_dict(), **trained.extra} for trained in (one, two)]
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def log(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    return lines


@pytest.fixture(scope="module")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(recipe(), store, folder)
    return folder


def test_it_learns(store: Store, tmp_path: Path) -> None:
    """Three colours are told apart within ten epochs; chance is an error of 0.67."""
    trained = train(recipe(epochs=10, lr=0.02), store, tmp_path / "run")
    assert trained.state["errors"][-1] < 0.1
    losses = [line["loss"] for line in log(tmp_path / "run") if line["kind"] == "train"]
    assert losses[-1] < losses[0] / 2


def test_the_run_folder(finished: Path, store: Store) -> None:
    config = json.loads((finished / "config.json").read_text())
    assert config["recipe"]["epochs"] == 3
    assert config["store"]["fingerprint"] == store.fingerprint
    assert json.loads((finished / "environment.json").read_text())["torch"] == torch.__version__
    assert list((finished / "tensorboard").glob("events.*"))
    lines = log(finished)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [6, 12, 18]
    assert [line["epoch"] for line in lines if line["kind"] == "val"] == [1, 2, 3]
    best = native.load(finished / "best.safetensors")
    assert best.state["errors"][-1] == min(best.state["errors"])
    assert not best.extra
    assert not list(finished.glob(".*tmp"))


def test_same_seed_same_bits(finished: Path, store: Store, tmp_path: Path) -> None:
    """Also with more readers and checkpoints at every step."""
    train(recipe(workers=3, checkpoint_minutes=0.0), store, tmp_path / "again")
    assert same_weights(finished, tmp_path / "again")
    train(recipe(seed=1), store, tmp_path / "other")
    assert not same_weights(finished, tmp_path / "other")


@pytest.mark.parametrize("after", [1, 5, 6, 7, 13])
def test_stopped_and_resumed(finished: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C after any step: saved, and the resumed run ends with the same bits and the same
    log.
    """
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, SGD, "step", after)
        with pytest.raises(Interrupted, match="--resume"):
            train(recipe(), store, run)
    train(recipe(), store, run, resume=True)
    assert same_weights(finished, run)
    assert log(finished) == log(run)


def test_chance_is_the_same_after_a_stop(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of an epoch, with all that chance decides: crops, colours and dropout too."""
    by_chance = recipe(epochs=1, dropout=0.5, crop=True, mirror=True, colour_noise=0.1)
    train(by_chance, store, tmp_path / "quiet")
    with monkeypatch.context() as patch:
        stop_after(patch, SGD, "step", 2)
        with pytest.raises(Interrupted, match="--resume"):
            train(by_chance, store, tmp_path / "run")
    train(by_chance, store, tmp_path / "run", resume=True)
    assert same_weights(tmp_path / "quiet", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["drawn_by"] == ["picture"]


KILLED = """
import sys
from pathlib import Path
from alexnet.data.store import Store
from alexnet.train import recipes
from alexnet.train.loop import train
recipe = recipes.get_recipe("laptop", **eval(sys.argv[3]))
train(recipe, Store(sys.argv[1]), Path(sys.argv[2]), resume="resume" in sys.argv)
"""


def start(store: Store, run: Path, *words: str) -> "subprocess.Popen[bytes]":
    arguments = {**SMALL, "epochs": 12, "checkpoint_minutes": 0.0}
    return subprocess.Popen([sys.executable, "-c", KILLED, str(store.folder), str(run), repr(arguments), *words])


def test_killed_and_resumed(store: Store, tmp_path: Path) -> None:
    """SIGKILL at four moments, some in the middle of writing a checkpoint, then to the end: the
    bits of one quiet run.
    """
    train(recipe(epochs=12), store, tmp_path / "quiet")
    run = tmp_path / "run"
    process = start(store, run)
    for number in range(4):
        wait_for_progress(run, process)
        time.sleep(0.037 * number)
        process.kill()
        process.wait()
        process = start(store, run, "resume")
    assert process.wait(timeout=120) == 0
    assert same_weights(tmp_path / "quiet", run)
    assert log(tmp_path / "quiet") == log(run)


def wait_for_progress(run: Path, process: "subprocess.Popen[bytes]") -> None:
    """Until the latest checkpoint is a new one."""
    latest = run / "latest.safetensors"
    before = latest.stat().st_mtime_ns if latest.exists() else 0
    deadline = time.monotonic() + 60
    while not latest.exists() or latest.stat().st_mtime_ns == before:
        assert process.poll() is None, "the run ended before it was killed: make it longer"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_full_gpu_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the plain step too; the GPU is the test's invention."""

    def full(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PlainStep, "take", full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 8 * 2**30))
    with pytest.raises(TrainingError, match=r"batch_size \(=10\) does not fit .*1.0 of 8.0 GiB.*--batch-size 5"):
        train(recipe(batch_size=10), store, tmp_path / "run")


def test_label_smoothing(store: Store) -> None:
    """Against the formula in float64; 1e-6 for float32."""
    model = Start.fresh(recipe(), store, torch.device("cpu")).model.eval()
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 2, 1, 1])
    with torch.no_grad():
        loss, logits = loss_function(model, compiled=False, label_smoothing=0.1)(images, labels, None)
        plain, _ = loss_function(model, compiled=False)(images, labels, None)
    target = 0.9 * torch.eye(3, dtype=torch.float64)[labels] + 0.1 / 3
    assert float(loss) == pytest.approx(float(-(target * logits.double().log_softmax(1)).sum(1).mean()), rel=1e-6)
    assert float(plain) != pytest.approx(float(loss), rel=1e-6)


def test_resuming_a_finished_run_changes_nothing(finished: Path, store: Store) -> None:
    before = (finished / "latest.safetensors").read_bytes()
    train(recipe(), store, finished, resume=True)
    assert (finished / "latest.safetensors").read_bytes() == before


def test_folder_in_the_way(finished: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="already holds a run: continue it with --resume"):
        train(recipe(), store, finished)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="is not empty and is not a run: choose another folder"):
        train(recipe(), store, tmp_path)
    with pytest.raises(TrainingError, match="is a file, but a run needs a folder"):
        train(recipe(), store, tmp_path / "notes.txt")
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(recipe(), store, tmp_path / "new", resume=True)


def test_resuming_with_other_settings(finished: Path, store: Store) -> None:
    with pytest.raises(TrainingError, match=r"other settings \(lr 0.005, now 0.1\).*\(--lr 0.005\)"):
        train(recipe(lr=0.1), store, finished, resume=True)


def test_resuming_on_another_store(finished: Path, store: Store, tmp_path: Path) -> None:
    other = tmp_path / "store"
    shutil.copytree(store.folder, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["classes"][0] = "cyan"
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainingError, match="another store"):
        train(recipe(), Store(other), finished, resume=True)


def test_pictures_too_small(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"input_size \(=128\) is larger than the pictures.*\(=72\).*--size 128"):
        train(recipe(input_size=128), store, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # it is not in the way of the corrected command


def test_no_such_device(store: Store, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RecipeError, match=r"device \(='cuda'\) is not available.*cpu"):
        train(recipe(device="cuda"), store, tmp_path / "run")


def test_a_loss_that_explodes(store: Store, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) at epoch .*became non-finite first.*No checkpoint.*lower --lr"
    ):
        train(recipe(lr=1e6, warmup=0.0), store, tmp_path / "run")


@pytest.mark.parametrize("layer", ["conv3", "fc7"])
def test_the_layer_that_broke_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str) -> None:
    """A layer whose output overflows is named by its own name, not by those that follow."""
    begin = Start.fresh

    def poisoned(*arguments: Any) -> Any:
        begun = begin(*arguments)
        with torch.no_grad():
            begun.model.get_parameter(f"{layer}.weight").fill_(3e38)
        return begun

    monkeypatch.setattr(Start, "fresh", poisoned)
    with pytest.raises(TrainingError, match=f"the output of {layer} became non-finite first"):
        train(recipe(), store, tmp_path / "run")


def test_a_full_disk_leaves_the_last_checkpoint(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    train(recipe(epochs=1), store, run)
    before = (run / "latest.safetensors").read_bytes()

    def full(tensors: Any, path: Path, header: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native, "save_file", full)
    with pytest.raises(OutputError, match=r"could not be written.*No space left.*unchanged"):
        native.save(run / "latest.safetensors", native.load(run))
    assert (run / "latest.safetensors").read_bytes() == before
    assert not list(run.glob(".*tmp"))


def test_killed_between_the_two_checkpoints(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of an epoch writes two files; a run that dies after the first ends
    with both as if it had not.
    """
    quiet, run, save, saved = tmp_path / "quiet", tmp_path / "run", native.save, 0
    train(recipe(epochs=1), store, quiet)

    def dying(path: Path, trained: native.Trained) -> None:
        nonlocal saved
        saved += 1
        if saved == 2:
            raise KeyboardInterrupt
        save(path, trained)

    with monkeypatch.context() as patch:
        patch.setattr(native, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(epochs=1), store, run)
    train(recipe(epochs=1), store, run, resume=True)
    for name in ("latest.safetensors", "best.safetensors"):
        assert same_weights(quiet / name, run / name)
    assert log(quiet) == log(run)


def test_a_full_disk_under_the_log(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full takes nothing, neither when a line is written nor when the log is closed."""
    start_log = Run.start_log

    def full(self: Any, *arguments: int) -> None:
        start_log(self, *arguments)
        self._log.close()
        self._log = open("/dev/full", "a")  # noqa: SIM115

    monkeypatch.setattr(Run, "start_log", full)
    with pytest.raises(
        TrainingError, match=r"No space left.*No checkpoint was saved yet: free some space and start again with --overwrite"
    ):
        train(recipe(epochs=1), store, tmp_path / "run")


def test_two_processes_in_one_folder(finished: Path, store: Store, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "result.json").unlink()  # as if it had been stopped before its end
    with FileLock(run / ".lock"), pytest.raises(TrainingError, match="another process is training"):
        train(recipe(), store, run, resume=True)


def test_a_damaged_configuration(finished: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json is damaged"):
        train(recipe(), store, tmp_path, resume=True)


@pytest.mark.skipif(not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler's own; any would stop it
def test_compiled_equals_eager(store: Store, tmp_path: Path) -> None:
    """One epoch compiled, which drops the same units: the loss of each log line within 1e-3
    (float32 sums in another order, amplified by 6 steps).
    """
    eager, compiled = tmp_path / "eager", tmp_path / "compiled"
    for folder, mode in ((eager, "off"), (compiled, "on")):
        train(recipe(epochs=1, compile=mode, dropout=0.5), store, folder)
    assert json.loads((compiled / "config.json").read_text())["compiled"]
    first, second = log(eager)[0]["loss"], log(compiled)[0]["loss"]
    assert first == pytest.approx(second, rel=1e-3)
    assert not same_weights(eager, compiled)  # it did compile
