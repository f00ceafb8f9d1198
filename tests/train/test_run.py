"""A run's folder: begun, replaced, repeated, continued; and what is said where its files are
damaged, gone or do not fit.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import log, recipe, same_weights

from alexnet import engines, run_folder
from alexnet.data.prepare import prepare
from alexnet.data.resample import resampled
from alexnet.data.store import Store
from alexnet.ensemble import evaluate_average
from alexnet.errors import AlexNetError, Interrupted, RecipeError, TrainingError
from alexnet.evaluate import evaluate_classifier
from alexnet.run_folder import member
from alexnet.study.ablate import Plan, ablate
from alexnet.study.ablations import ABLATIONS
from alexnet.study.family import train_family
from alexnet.train import announce, recipes, run, start
from alexnet.train.health.doctor import examine
from alexnet.train.history import read_config
from alexnet.train.loop import train
from alexnet.train.optim import SGD
from alexnet.train.result import read_result, verify_run
from alexnet.train.start import fitting
from alexnet.weights import native
from conftest import write_photos
from stopping import stop_after


@pytest.fixture(scope="module")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(recipe(), store, folder)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# --- a store of larger pictures -------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder / "train", 8)
    write_photos(folder / "val", 3, first=100)
    return prepare([folder], tmp_path_factory.mktemp("store") / "store", size=256)


def test_the_default_way(large: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """256 pixels and a recipe that wants 72: resampled once, and every reader of the run
    finds the copy by itself.
    """
    folder = tmp_path / "run"
    train(recipe(epochs=1), large, folder)
    small = large.folder / "72px"
    assert f"The pictures of {large.folder} are resampled from 256 to 72 pixels, once: {small}" in capfd.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    assert config["store"] == {"folder": str(large.folder), "fingerprint": Store(small).fingerprint}
    assert native.load(folder).preprocessing.stored_size == 72
    train(recipe(epochs=2), large, folder, resume=True)
    assert verify_run(folder) == []
    shutil.rmtree(small)  # it is only kept to be quick
    assert verify_run(folder) == [] and verify_run(folder, large.folder) == [] and verify_run(folder, small) == []
    examine(recipe(), large)
    network = engines.load(folder, "torch")
    alone = evaluate_classifier(network, large)
    assert alone.top1_error == read_result(folder)["evaluation"]["top1_error"]
    assert evaluate_average([network, network], large).plain.top1_error == alone.top1_error
    direct = tmp_path / "direct"
    train(recipe(epochs=2), resampled(large, 72), direct)
    assert read_config(direct).store == read_config(folder).store


def test_a_run_that_is_refused_leaves_the_store_alone(
    copy: Path, large: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Resampling a large store takes a while: the folder and the settings are looked at before."""
    store = Store(shutil.copytree(large.folder, tmp_path / "store", ignore=shutil.ignore_patterns("72px")))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "family").mkdir()
    shutil.move(copy, member(tmp_path / "family", 0))
    begun = member(tmp_path / "family", 0)
    for folder, changes, resume, message in (
        (
            begun,
            {},
            False,
            "already holds a run: continue it with --resume, replace it with --overwrite, or choose another folder",
        ),
        (begun, {"lr": 0.1}, True, r"other settings \(lr 0.005, now 0.1\)"),
        (begun, {"mirror": False}, True, r"resume with the same \(--mirror\), or choose another --out\.$"),
        (tmp_path / "full", {}, False, "is not empty and is not a run"),
        (tmp_path / "full", {}, True, "is not empty and is not a run"),
        (tmp_path / "none", {}, True, "nothing to resume"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(recipe(**changes), store, folder, resume=resume)
    with pytest.raises(SystemExit, match="2"):
        command("train", "laptop", "--data", store.folder, "--out", tmp_path / "family", "--seeds", "0..1")
    with pytest.raises(
        TrainingError, match=r"\(--epochs 2\), or choose another --out. Only a single run can be given more epochs"
    ):
        train_family(recipe(epochs=3), store, tmp_path / "family", (0, 1), resume=True)
    shutil.move(begun, member(tmp_path / "family" / "standard", 0))
    with pytest.raises(TrainingError, match=r"\(lr 0.005, now 0.1\).* or choose another --out"):
        ablate(Plan(ablation=ABLATIONS["no-lrn"], recipe=recipe(lr=0.1), seeds=1), store, tmp_path / "family")
    assert not list(store.folder.glob("*px"))


def test_pictures_that_fit_are_taken_as_they_are(store: Store, large: Store, tmp_path: Path) -> None:
    assert fitting(recipe(), store) is store
    assert fitting(recipes.get_recipe("paper-2012"), large) is large
    assert fitting(recipe(input_size=171), large) is large  # one and a half times the crop
    assert fitting(recipe(input_size=170), large).size == 192
    with pytest.raises(RecipeError, match=r"input_size \(=300\) is larger than the pictures .*\(=256\)"):
        fitting(recipe(input_size=300), large)


def test_a_run_that_was_begun_on_large_pictures_goes_on_with_them(
    large: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As runs did before pictures were resampled."""
    with monkeypatch.context() as patch:
        patch.setattr(start, "MOST_ROOM", 10)
        train(recipe(epochs=1), large, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    trained = train(recipe(epochs=1), large, tmp_path / "run", resume=True)
    assert trained.preprocessing.stored_size == 256


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [
        ("small-photos", 144, "short-side"),
        ("laptop", 72, "short-side"),
        ("paper-2012", 256, "short-side"),
        ("caffe", 256, "squash"),
    ],
)
def test_the_store_that_a_recipe_wants(name: str, size: int, resize: str) -> None:
    assert recipes.get_recipe(name).stored_as == {"size": size, "resize": resize}


# --- again ----------------------------------------------------------------------------------------


def test_a_start_that_failed_is_not_in_the_way(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match="No checkpoint was saved yet"):
        train(recipe(lr=1e6, warmup=0.0, keep="0"), store, folder)
    assert (folder / "config.json").exists() and (folder / "epoch-0000.safetensors").exists()
    (folder / "notes.txt").write_text("mine")
    train(recipe(), store, folder)
    assert f"{folder} holds a run that stopped before its first checkpoint: starting it again." in capfd.readouterr().err
    assert read_config(folder).recipe.lr == 0.005
    assert not (folder / "epoch-0000.safetensors").exists() and (folder / "notes.txt").read_text() == "mine"
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert verify_run(folder) == []


def test_overwrite(copy: Path, finished: Path, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The run goes, to the last file; what is not the run's stays."""
    for name in ("notes.txt", "alexnet.onnx", ".notes.tmp", "tensorboard/mine.txt", "epoch-1.safetensors"):
        (copy / name).write_text("mine")
    (copy / "epoch-0007.safetensors").write_text("old")
    (copy / ".latest.safetensors.0123456789ab.tmp").write_text("half")
    train(recipe(seed=3), store, copy, overwrite=True)
    said = capfd.readouterr().err
    assert f"Deleting the run in {copy}. Left as they are: .notes.tmp, alexnet.onnx, epoch-1.safetensors" in said
    for name in ("notes.txt", "alexnet.onnx", ".notes.tmp", "tensorboard/mine.txt", "epoch-1.safetensors"):
        assert (copy / name).read_text() == "mine"
    assert not (copy / "epoch-0007.safetensors").exists() and not list(copy.glob(".latest*"))
    assert len(list((copy / "tensorboard").glob("events.*"))) == 1
    quiet = tmp_path / "quiet"
    train(recipe(seed=3), store, quiet, overwrite=True)  # a new folder is as good
    assert same_weights(quiet, copy) and log(quiet) == log(copy) and not same_weights(finished, copy)


@pytest.mark.parametrize("content", ['{"architectures": ["Other"]}', "{", None])
def test_overwrite_refuses_what_is_no_run(store: Store, tmp_path: Path, content: str | None) -> None:
    """Other programs have a config.json too, and a log.jsonl."""
    for name in ("log.jsonl", "model.safetensors"):
        (tmp_path / name).write_text("theirs")
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    for overwrite in (True, False):
        with pytest.raises(AlexNetError, match="is damaged|is not empty and is not a run"):
            train(recipe(), store, tmp_path, overwrite=overwrite)
    assert (tmp_path / "log.jsonl").read_text() == "theirs"
    with pytest.raises(RecipeError, match="choose one of them"):
        train(recipe(), store, tmp_path, resume=True, overwrite=True)


def test_more_epochs_equal_a_run_begun_with_them(finished: Path, store: Store, tmp_path: Path) -> None:
    """Where the schedule does not depend on the number of epochs: to the bit."""
    steady: dict[str, Any] = {"schedule": "plateau", "patience": 1, "warmup": 0.0}
    long, short = tmp_path / "long", tmp_path / "short"
    train(recipe(epochs=4, **steady), store, long)
    train(recipe(epochs=2, **steady), store, short)
    train(recipe(epochs=4, **steady), store, short, resume=True)
    assert same_weights(long, short) and log(long) == log(short)
    assert read_result(short)["epochs"] == 4 and verify_run(short) == []
    config = json.loads((short / "config.json").read_text())
    assert (config["recipe"]["epochs"], config["extended"]) == (4, [{"epochs": 2, "at": 2.0}])
    assert "extended" not in json.loads((long / "config.json").read_text())
    with pytest.raises(TrainingError, match=r"other settings \(epochs 4, now 2\).*\(--epochs 4\)"):
        train(recipe(epochs=2, **steady), store, short, resume=True)


def test_more_epochs_of_a_linear_schedule(copy: Path, store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    """From epoch 2 on the learning rate is that of a run of 4 epochs, which is said; stopped and
    resumed, it is the same run.
    """
    other = Path(shutil.copytree(copy, copy.parent / "other"))
    train(recipe(epochs=4), store, copy, resume=True)
    assert (
        f"{copy} now trains for 4 epochs instead of 2. From epoch 2 on, the learning rate changes from 0 to 0.0026, its value "
        "at this point in a run of 4 epochs. The result differs from that of a run started with --epochs 4."
        in capfd.readouterr().err
    )
    rates = [line["lr"] for line in log(copy) if line["kind"] == "train"]
    expected = [0.005 * min(1, (1 - done / 4) / 0.95) for done in (2 + 5 / 6, 3 + 5 / 6)]
    assert rates[2:] == pytest.approx(expected, rel=1e-9)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, SGD, "step", 8)
        with pytest.raises(Interrupted):
            train(recipe(epochs=4), store, other, resume=True)
    assert not (other / "result.json").exists()
    train(recipe(epochs=4), store, other, resume=True)
    assert same_weights(copy, other) and log(copy) == log(other)
    assert len(read_config(other).extended) == 1


def test_curves_for_tensorboard(finished: Path) -> None:
    """As TensorBoard's own reader sees them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    lines = [line for line in log(finished) if line["kind"] == "train"]
    points = events.Scalars("train/loss")
    assert [(point.step, pytest.approx(point.value, rel=1e-6)) for point in points] == [
        (one["step"], one["loss"]) for one in lines
    ]
    assert len(events.Scalars("val/top1_error")) == 2


def test_a_run_without_tensorboard(
    finished: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same run but for its curves; that they are missing is said once in a process."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"] + ["tensorboard"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "alexnet.train.board", raising=False)
    run._without_board.cache_clear()
    for name in ("one", "two"):
        train(recipe(), store, tmp_path / name)
        assert not (tmp_path / name / "tensorboard").exists()
        assert same_weights(finished, tmp_path / name) and log(finished) == log(tmp_path / name)
    said = capfd.readouterr().err
    assert said.count("TensorBoard") == said.count("pip install 'alexnet[tensorboard]'") == 1


# --- elsewhere ------------------------------------------------------------------------------------


def test_another_number_of_threads_is_said_and_recorded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, here = tmp_path / "run", run.environment()
    with monkeypatch.context() as patch:
        stop_after(patch, SGD, "step", 3)
        with pytest.raises(Interrupted):
            train(recipe(epochs=1), store, folder)
    there = {**here, "threads": 64}
    with monkeypatch.context() as patch:
        patch.setattr(announce, "environment", lambda: there)
        train(recipe(epochs=1), store, folder, resume=True)
    assert f"continues in another environment (threads {here['threads']}, now 64): its weights" in capfd.readouterr().err
    here, there = here | {"lanes": 1}, there | {"lanes": 1}
    assert read_result(folder)["environments"] == [here, there]
    assert verify_run(folder) == []
    train(recipe(epochs=2), store, folder, resume=True)
    assert read_result(folder)["environments"] == [here, there, here]


@pytest.mark.parametrize(
    ("begun", "later", "said"),
    [("auto", "cpu", False), ("cpu", "auto", False), ("cuda", "auto", True), ("cuda", "cpu", True)],
)
def test_a_run_goes_on_by_the_device_that_it_computes_on(
    begun: str,
    later: str,
    said: bool,
    finished: Path,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """auto and cpu are one device where there is no GPU; another one is said, and mixes nothing
    that is compared.
    """
    for gpu in ("torch.cuda", "torch.backends.mps"):
        monkeypatch.setattr(f"{gpu}.is_available", lambda: False)
    family = tmp_path / "family"
    folder = member(family, 0)
    with monkeypatch.context() as patch:
        stop_after(patch, SGD, "step", 3)
        with pytest.raises(Interrupted):
            train(recipe(device="cpu" if begun == "cuda" else begun), store, folder)
    if begun == "cuda":
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(config.replace('"device": "cpu"', '"device": "cuda"'))
        saved = native.load(folder)
        saved.state["trained_by"] = ["fp32 on cuda"]
        native.save(folder / "latest.safetensors", saved)
        with pytest.raises(TrainingError, match=rf"other settings \(device cuda, now {later}\)"):
            train_family(recipe(device=later), store, family, (0,), resume=True)
    capfd.readouterr()
    train(recipe(device=later), store, folder, resume=True)
    line = "This run used fp32 on cuda until now and continues with fp32 on cpu: its results mix the two."
    assert (line in capfd.readouterr().err) == said
    assert same_weights(folder, finished)
    if not said:
        train_family(recipe(device=later), store, family, (0,), resume=True)


def test_one_process_after_several_is_said() -> None:
    """What an environment does not say is one lane and one process, in `alexnet verify` too."""
    several, alone = {"threads": 1, "ranks": 4, "parallel": "towers"}, {"threads": 1, "lanes": 1}
    assert run_folder.changes(several, alone) == "ranks 4, now 1, parallel towers, now none"
    assert run_folder.changes(alone, {"threads": 1}) == ""


def test_an_unbroken_run_has_one_environment(finished: Path) -> None:
    assert read_result(finished)["environments"] == [run.environment() | {"lanes": 1}]


# --- the command line -----------------------------------------------------------------------------


def command(*words: object) -> None:
    from alexnet.cli import main

    main([str(word) for word in words])


FAST = ("--width", "0.125", "--compile", "off", "--device", "cpu", "--batch-size", "10", "--lr", "0.005")


def test_a_run_is_repeated_and_resumed_by_its_configuration(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command("train", "laptop", "--data", store.folder, "--out", "run", "--epochs", "1", *FAST)
    said = capsys.readouterr()
    assert "run: held-out top-1 error " in said.out and "of 18 pictures (95% interval " in said.out
    assert "chance 66.67%), after 1 epoch." in said.out and "Warning: only 18 test pictures" in said.out
    assert "top-5" not in said.out  # of three classes it says nothing
    command("train", "--config", "run")
    assert same_weights(Path("run"), Path("run2")) and log(Path("run")) == log(Path("run2"))
    assert "Repeating run in run2: alexnet train laptop --width 0.125 --epochs 1" in capsys.readouterr().err
    command("train", "laptop", "--config", "run/config.json", "--out", "other", "--seed", "1")
    assert read_config(Path("other")).recipe == replace(read_config(Path("run")).recipe, seed=1)
    command("train", "laptop", "--resume", "--out", "run2", "--epochs", "2")  # the other settings are the run's
    assert read_result(Path("run2"))["epochs"] == 2
    command("train", "--resume", "--out=run2")
    command("train", "--config", "run", "--out", "other", "--overwrite")
    assert same_weights(Path("run"), Path("other"))
    for words, message in (
        (["modern", "--config", "run"], "run is a run of recipe laptop, not modern: leave out the recipe."),
        (["--config", "nowhere"], "nowhere cannot be read: No such file or directory."),
        (["laptop", "--resume", "--out", "run", "--lr", "0.1"], "other settings (lr 0.005, now 0.1): resume with the same"),
        (
            ["laptop", "--data", store.folder, "--out", "f", "--seeds", "0..1", "--overwrite"],
            "--overwrite replaces a single run, not a family: delete f yourself",
        ),
    ):
        with pytest.raises(SystemExit, match="2"):
            command("train", *words)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"kernels": (96, 256, 384, 384, 256), "towers": 1, "sees_both_towers": (True,) * 5, "init_std": (0.01,) * 8},
        {"whiten": True, "init": "torch", "pixels": "mean-image", "dropout": 0.5, "activation": "tanh", "pool_size": 2},
        {"block1": ("conv", "relu", "pool"), "removed": ("conv3", "fc6"), "lr_drops": (1.5, 2.0), "schedule": "step"},
    ],
)
def test_every_field_survives_the_configuration(store: Store, tmp_path: Path, changes: dict[str, Any]) -> None:
    wanted = replace(recipes.get_recipe("paper-text"), width=0.125, input_size=70, keep="0..2", seed=2**40, **changes)
    opened = run.open_run(tmp_path / "run", wanted, store, resume=False, compiled=True)
    opened.close()
    assert read_config(tmp_path / "run") == opened.config and opened.config.recipe == wanted


def test_prepare_for_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    for words, size, resize in (
        (["--for", "small-photos"], 144, "short-side"),
        (["--for", "caffe", "--size", "64"], 64, "squash"),
        ([], 256, "short-side"),
    ):
        folder = tmp_path / f"store{size}"
        command("prepare", photos, folder, *words)
        assert (Store(folder).size, Store(folder).manifest["resize"]) == (size, resize)
    capsys.readouterr()
    options = ["--width", "0.125", "--epochs", "1", "--batch-size", "3", "--device", "cpu", "--compile", "off"]
    command("train", "laptop", "--data", tmp_path / "store64", "--out", tmp_path / "run", *options)
    assert "paper is meant for short-side pictures, and this store holds squash ones" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command("prepare", photos, tmp_path / "x", "--for", "smal-photos")
    assert "did you mean 'small-photos'" in capsys.readouterr().err
