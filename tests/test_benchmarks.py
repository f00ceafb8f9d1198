"""The GPU's benchmark on photos, at small size on a CPU: what it compares is what it says,
and its verdict can fail.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet import kernels
from alexnet.bench import contest
from alexnet.data.store import Store
from alexnet.errors import RecipeError, TrainingError
from alexnet.kernels.convolutions import LIBRARY, RELU, Passes
from alexnet.train.loop import train
from alexnet.train.recipes import Recipe
from alexnet.train.steps.fused import FusedStep
from alexnet.train.steps.plain import PlainStep
from alexnet.variants import get_variant

CPU = torch.device("cpu")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = {"width": 1 / 8, "input_size": 67, "compile": "off"}


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def test_gpu_scripts_need_few_packages() -> None:
    """They run where alexnet is not installed, and many of its packages are not."""
    missing = ["matplotlib", "openvino", "pi_heif", "pyarrow", "scipy", "starlette", "tensorboard", "tyro", "uvicorn"]
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); import check_gpu, compile_step, train_gpu"
    paths = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent / "src")])
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script("real_data", monkeypatch)


@pytest.fixture
def full_epoch(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script("full_epoch", monkeypatch)


# --- curves ---------------------------------------------------------------------------------------


def test_the_plain_curve_is_trainings(real_data: Any, store: Store, tmp_path: Path) -> None:
    """To the bit: the first line of the log is the mean over the first 20 steps, dropout,
    crops and warm-up included.
    """
    recipe = real_data.recipe_of("paper-2012", CPU, **SMALL, batch_size=3, init="he", warmup=0.3, epochs=1, seed=4)
    train(recipe, store, tmp_path / "run")
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert line["kind"] == "train" and line["step"] == 20
    curve = real_data.Course(recipe, store).plain(20)
    assert curve == pytest.approx([line["loss"]], rel=1e-9)


@pytest.mark.parametrize("schedule", ["linear", "step"])
def test_the_fused_curve_is_the_plain_one(real_data: Any, store: Store, monkeypatch: pytest.MonkeyPatch, schedule: str) -> None:
    """In float32 and without dropout both see the same bits; longer than the recipe's
    three epochs of 6 steps.
    """
    monkeypatch.setattr(real_data, "pick_precision", lambda *_: "fp32")
    recipe = real_data.recipe_of("laptop", CPU, **SMALL, batch_size=10, lr=0.002, schedule=schedule, lr_drops=(2.0,), crop=True)
    plain, fused = real_data.Course(recipe, store).plain(40), real_data.Course(recipe, store).fused(40)
    assert fused == pytest.approx(plain, rel=1e-4) and plain[1] < plain[0]


@pytest.mark.parametrize("name", ["paper-2012", "laptop"])
def test_the_noise_is_another_draw(real_data: Any, store: Store, name: str) -> None:
    """Of dropout; of mirrors in a recipe that drops nothing, whose network has the
    layers with a rate of 0.
    """
    recipe = real_data.recipe_of(name, CPU, **SMALL, batch_size=4)
    kinds = (PlainStep, PlainStep, real_data.OtherDraws)
    one, again, other = (real_data.Course(recipe, store).plain(20, kind) for kind in kinds)
    assert np.array_equal(one, again) and not np.array_equal(one, other) and other == pytest.approx(one, rel=0.2)


def curves_of(real_data: Any, rng: np.random.Generator, shape: tuple[int, int] = (5, 15)) -> dict[str, Any]:
    return {name: 2 + rng.normal(0, 0.01, shape) for name in ("plain", "other", "fused")}


def test_a_correct_step_fails_as_often_as_it_says(real_data: Any) -> None:
    """Of 2000 sets of curves from one distribution 5 % are off in level (deviation 0.5 %),
    at most 2.5 % in distance.
    """
    rng = np.random.default_rng(0)
    found = [real_data.Curves(**curves_of(real_data, rng)) for _ in range(2000)]
    level = np.mean([abs(one.level[0]) > one.level[1] for one in found])
    distance = np.mean([one.distance[0] > one.distance[1] for one in found])
    assert level == pytest.approx(0.05, abs=0.015) and distance <= 0.025
    assert np.mean([one.agree for one in found]) > 0.92


def test_a_wrong_step_fails(real_data: Any) -> None:
    """A level one deviation of a window too high; one window 20 deviations too high;
    a loss that is no number.
    """
    right = curves_of(real_data, np.random.default_rng(1))
    jump = np.zeros(15)
    jump[7] = 0.2
    assert real_data.Curves(**right).agree
    shifted, jumped = (real_data.Curves(**{**right, "fused": right["fused"] + by}) for by in (0.01, jump - jump.mean()))
    assert not shifted.agree and shifted.distance[0] <= shifted.distance[1]
    assert not jumped.agree and abs(jumped.level[0]) <= jumped.level[1]
    for name in ("plain", "fused"):
        assert not real_data.Curves(**{**right, name: right[name] * np.where(jump, np.nan, 1)}).agree


def test_short_of_epochs(real_data: Any) -> None:
    """Fewer epochs bring the drops of the learning rate forward; more than the
    recipe's own are not made.
    """
    short = real_data.recipe_of("paper-2012", CPU, epochs=30)
    assert (short.epochs, short.lr_drops) == (30, (8.333, 17.0, 26.333))
    assert real_data.recipe_of("laptop", CPU, epochs=30).epochs == 3


# --- accuracy -------------------------------------------------------------------------------------


def test_accuracy_by_both_paths(
    real_data: Any, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are trained by the public function; what is finished is not trained again."""
    recipe = real_data.recipe_of("laptop", CPU, epochs=1, batch_size=10, **SMALL)
    found = real_data.accuracy(recipe, store, tmp_path / "out", 2)
    for path, precision in (("plain", "fp32"), ("fused", "bf16")):
        config = json.loads((tmp_path / "out" / path / "seed1" / "config.json").read_text())["recipe"]
        assert config["precision"] == precision and config["fused"] == ("on" if path == "fused" else "off")
        family = json.loads((tmp_path / "out" / path / "family.json").read_text())
        assert found["errors"][path] == [one["top1_error"] for one in family["members"]]
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    again = real_data.accuracy(recipe, store, tmp_path / "out", 2)
    assert again == found and {file: file.stat().st_mtime_ns for file in before} == before
    real_data.print_accuracy("laptop", found)
    assert "points, fused - plain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fused", "verdict"),
    [
        ((0.30, 0.31, 0.29), "equal within noise"),
        ((0.40, 0.41, 0.39), "DIFFERENT"),
        ((0.30, 0.31, 0.30), "equal"),
        ((0.31, 0.32, 0.31), "apart by the same in every pair, which gives no interval"),
    ],
)
def test_the_verdict_on_accuracy(
    real_data: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, store: Store, fused: Any, verdict: str
) -> None:
    plain = (0.30, 0.31, 0.30)

    def family(recipe: Recipe, *_: Any, **__: Any) -> dict[str, Any]:
        errors = fused if recipe.fused == "on" else plain
        return {"members": [{"top1_error": error} for error in errors], "seconds_per_model": 1.0}

    monkeypatch.setattr(real_data, "train_family", family)
    found = real_data.accuracy(Recipe(), store, Path("nowhere"), 3)
    real_data.print_accuracy("some", found)
    assert capsys.readouterr().out.endswith(f"some: the paths' errors are {verdict}\n")
    assert found["agree"] == (verdict != "DIFFERENT")


# --- the command ----------------------------------------------------------------------------------


def run_main(real_data: Any, monkeypatch: pytest.MonkeyPatch, store: Store, *arguments: str) -> object:
    """The code that the command exits with."""
    monkeypatch.setattr(sys, "argv", ["real_data.py", "--data", str(store.folder), "--device", "cpu", *arguments])
    try:
        real_data.main()
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("agree", [True, False])
def test_the_command(
    real_data: Any, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], agree: bool
) -> None:
    """Prints the table, ends with JSON; exits with 1 if the two differ, as with a fused
    step that learns too fast.
    """
    if not agree:
        take = FusedStep.take
        monkeypatch.setattr(FusedStep, "take", lambda self, epoch, step, lr, scale: take(self, epoch, step, 30 * lr, 1))
    small = ["--width", "0.125", "--input-size", "64", "--batch-size", "8", "--steps", "20", "--seeds", "3"]
    code = run_main(real_data, monkeypatch, store, "--recipe", "laptop", "--part", "curves", *small)
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert (code, result["agree"]) == ((0, True) if agree else (1, False))
    assert "        1-20" in out and np.shape(result["curves"]["laptop"]["fused"]) == (3, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "seeds (=1) must be at least 2"),
        (["--steps", "30"], "steps (=30) must be a multiple of 20"),
        (["--recipe", "laptop", "--input-size", "80"], "input_size (=80) is larger than the pictures"),
        (["--recipe", "lap"], "unknown recipe 'lap'"),
    ],
)
def test_refusals(
    real_data: Any,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    code = run_main(real_data, monkeypatch, store, *arguments)
    assert message in f"{code} {capsys.readouterr().err}" and code != 0


def test_a_path_that_breaks_is_a_difference(
    real_data: Any, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told, and the JSON still comes."""

    def broken(recipe: Recipe, *_: Any, **__: Any) -> dict[str, Any]:
        raise TrainingError("the loss is nan")

    monkeypatch.setattr(real_data, "train_family", broken)
    code = run_main(
        real_data, monkeypatch, store, "--recipe", "laptop", "small-photos", "--part", "accuracy", "--input-size", "64"
    )
    out = capsys.readouterr().out.splitlines()
    assert code == 1 and out[:-1] == [f"{name}: accuracy FAILED: the loss is nan" for name in ("laptop", "small-photos")]
    assert json.loads(out[-1])["accuracy"]["laptop"] == {"agree": False, "error": "the loss is nan"}


# --- the full epoch -------------------------------------------------------------------------------


def test_photos_over_and_over(full_epoch: Any) -> None:
    records = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for count in (8, 2, 3):
        assert np.array_equal(full_epoch.filled_with(records, count, CPU).numpy(), records[np.arange(count) % 3])


def test_an_epoch_of_repeated_photos(
    full_epoch: Any, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """250 records of 60 photos, each with its own photo's label; sizes of batch share the
    records.
    """
    variant = get_variant("paper", width=1 / 8, input_size=67, num_classes=3, init="he", pixels="unit")
    steps, make = [], full_epoch.build
    monkeypatch.setattr(full_epoch, "build", lambda *arguments: steps.append(make(*arguments)) or steps[-1])
    epochs = full_epoch.FullEpochs(variant, store, CPU, count=250)
    found = {batch: epochs.run(batch) for batch in (10, 50)}
    assert [found[batch]["steps"] for batch in (10, 50)] == [25, 5]
    assert found[10]["last_loss"] < found[10]["first_loss"]
    one, other = (step.feed for step in steps)
    assert one.records is other.records and len(one.records) == len(one.loader.split) == 250
    for place in (0, 59, 60, 249):
        assert np.array_equal(one.records[place].numpy(), store.train.records[place % 60])
        assert one.loader.split.labels[place] == store.train.labels[place % 60]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("250 records from 60, 0.00 GiB") and lines[2].startswith("batch 10: one epoch of 250 resident")


def test_an_epoch_of_noise(full_epoch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_epoch, "NOISE", 6)
    found = full_epoch.FullEpochs(get_variant("paper", width=1 / 8, input_size=67, num_classes=3), None, CPU, count=9).run(4)
    assert found["steps"] == 2 and found["images_per_second"] > 0


def test_photos_that_do_not_fit(full_epoch: Any, store: Store) -> None:
    full_epoch.check_store(get_variant("paper", input_size=67), store)
    with pytest.raises(RecipeError, match="trains on 227 pixels.* have 72.*--size 256"):
        full_epoch.check_store(get_variant("caffe"), store)
    with pytest.raises(RecipeError, match="has 3 classes"):
        full_epoch.check_store(get_variant("paper", input_size=67, num_classes=2), store)


# --- the table of kernels -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "by_bytes", "by_flop", "bound", "reason"),
    [
        (4e-6, 1e-6, 2e-6, "launch", "2.0 us above its floor, less than 5 in all"),
        (40e-6, 10e-6, 2e-6, "bytes", "30.0 us above its floor: bounded by bytes, at 25% of the copy's speed"),
        (40e-6, 10e-6, 20e-6, "operations", "20.0 us above its floor: bounded by operations, at 50% of the product's speed"),
    ],
)
def test_what_bounds_a_part(
    monkeypatch: pytest.MonkeyPatch, seconds: float, by_bytes: float, by_flop: float, bound: str, reason: str
) -> None:
    part = script("gpu_parts", monkeypatch).Timed("some", seconds, by_bytes, by_flop)
    assert part.bound == part.as_json()["bound"] == bound and part.reason().startswith(reason)
    assert part.line().endswith(f"{part.floor / seconds:.0%}  {bound}")


def test_the_three_worst_parts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By time above the floor, not by share: with every part 7 us above its own,
    but three at 1, 2 and 3 ms.
    """
    gpu_parts = script("gpu_parts", monkeypatch)
    slow = {"conv2 weight (grouped)": 2e-3, "update": 3e-3, "fc6 forward": 1e-3}
    floor = lambda part: max(part.bytes / 4e12, part.flop / 8e14)  # noqa: E731
    monkeypatch.setattr(gpu_parts, "GPU", CPU)
    monkeypatch.setattr(gpu_parts, "part_seconds", lambda part: floor(part) + slow.get(part.name, 7e-6))
    ways = {f"conv{number}": LIBRARY for number in range(1, 6)}
    found = gpu_parts.print_parts(get_variant("paper"), 128, ways, 8e14, 4e12)
    assert list(found["worst"]) == ["update", "conv2 weight (grouped)", "fc6 forward"]
    assert "3000.0 us above its floor: bounded by bytes" in found["worst"]["update"]
    assert "bounded by operations" in found["worst"]["conv2 weight (grouped)"]
    out = capsys.readouterr().out
    assert f"furthest from their floor, in time:\n  update: {found['worst']['update']}\n" in out
    predicted = found["predicted"]
    assert list(predicted) == [" and ".join(prefixes) for prefixes in gpu_parts.PREDICTED]
    assert all(measured > 0 for _, measured in predicted.values()), "a prediction of no part"
    assert 128 * sum(measured for _, measured in predicted.values()) == pytest.approx(found["sum_us"], rel=0.02)


def test_parts_with_towers_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runs, from planes to planes."""
    gpu_parts = script("gpu_parts", monkeypatch)
    monkeypatch.setattr(gpu_parts, "GPU", CPU)
    monkeypatch.setattr("alexnet.bench.STORED", 72)
    ways = {f"conv{number}": LIBRARY for number in (1, 3)}
    ways |= dict.fromkeys(("conv2", "conv4", "conv5"), Passes("split", "own", "grouped", apart=True))
    made = {part.name: part.make()() for part in gpu_parts.parts(get_variant("paper", **NETWORK), 2, ways)}
    assert {"conv2 forward (split apart)", "conv4 data (own apart)", "conv5 weight (grouped apart)"} <= set(made)
    shapes = {
        name: tuple(made[name].shape) for name in made if name.endswith(("pool1 forward", "ReLU forward", "pool5 forward"))
    }
    assert list(shapes.values()) == [(4, 6, 7, 7), (4, 24, 3, 3), (4, 24, 3, 3), (2, 32, 1, 1)]


def test_a_bias_and_a_relu_are_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By themselves, or with the convolution that writes them."""
    gpu_parts = script("gpu_parts", monkeypatch)
    monkeypatch.setattr(gpu_parts, "GPU", CPU)
    ways = {f"conv{number}": LIBRARY for number in range(1, 6)} | {"conv4": LIBRARY._replace(forward=RELU)}
    names = [part.name for part in gpu_parts.parts(get_variant("paper"), 128, ways)]
    assert names[names.index("conv3 forward (grouped)") :][:9] == [
        "conv3 forward (grouped)",
        "conv3 data (grouped)",
        "conv3 weight (grouped)",
        "conv3's bias+ReLU forward",
        "conv3's bias+ReLU backward",
        "conv4 forward (own+relu)",
        "conv4 data (grouped)",
        "conv4 weight (grouped)",
        "conv4's bias+ReLU backward",
    ]


# --- the stages -----------------------------------------------------------------------------------

NETWORK = {"width": 1 / 8, "input_size": 67, "num_classes": 3}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The GPU's command with a small network on a CPU: one call is timed where a GPU replays many,
    peers are not compiled, and processes that need a GPU say only how they were called.
    """
    train_gpu = script("train_gpu", monkeypatch)

    def once(call: Any, *_: object) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    for module in (train_gpu, train_gpu.gpu_parts):
        monkeypatch.setattr(module, "GPU", CPU)
    stubs = {
        "demand_gpu": lambda: None,
        "ceilings": lambda: {"product_flops": 1e12, "copy_bytes_per_second": 1e10},
        "contest": lambda runs, device, batch, floor, *_: contest(runs, device, batch, floor, 1, 1),
        "script": lambda *command: '{"right": true}\n' + " ".join(command),
        "checked": lambda _: {"right": True},
        "FullEpochs": partial(train_gpu.FullEpochs, count=150),
        "get_variant": lambda name: get_variant(name, **NETWORK),
        "against_peers": partial(train_gpu.against_peers, compiled=False),
        "KEPT_UP": dict.fromkeys((1, 2, 3), 0.0),
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(train_gpu, name, stub)
    monkeypatch.setattr(train_gpu.gpu_parts.towers, "call_seconds", once)
    monkeypatch.setattr(train_gpu.gpu_parts, "part_seconds", lambda part: once(part.make()))
    monkeypatch.setattr("alexnet.bench.pays", lambda *_: True)
    monkeypatch.setattr("alexnet.bench.STORED", 72)
    monkeypatch.setattr(sys.modules["full_epoch"], "STORED", 72)
    train_gpu.gpu_parts.towers.timings.cache_clear()
    return train_gpu


def stage(train_gpu: Any, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The code that a stage exits with."""
    monkeypatch.setattr(sys, "argv", ["train_gpu.py", *map(str, arguments)])
    try:
        train_gpu.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


PARTS = {
    1: ["machine", "compiling", "check", "ceilings", "bake-off 4", "kept-up 4", "streams 4", "contest 4", "packing"],
    2: ["machine", "compiling", "ceilings", "bake-off 4", "parts 4", "kept-up 4", "streams 4", "contest 4", "packing"],
    3: ["machine", "compiling", "ceilings", "kept-up 4", "epochs", "packing"],
}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_stage_is_a_record(stages: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    """Every part measures something, in its order; the folder has all of it."""
    out, cache = tmp_path / "gpu", tmp_path / "kernels.tar.gz"
    cache.touch()
    assert stage(stages, monkeypatch, number, "--out", out, "--batch", 4, "--cache", cache) == 0
    found = json.loads((out / "result.json").read_text())
    assert list(found["parts"]) == PARTS[number]
    assert not {name: part for name, part in found["parts"].items() if "result" not in part}
    assert {"cudnn", "driver", "commit", "clocks", "torch"} <= set(found["parts"]["machine"]["result"])
    assert found["parts"]["compiling"]["result"]["printed"][-1].endswith(f"--unpack {cache}")
    readme = (out / "README.md").read_text()
    assert readme.startswith(f"# Training on a GPU, stage {number}\n\n`python benchmarks/train_gpu.py {number} ")
    assert all(f"\n# {name}\n" in readme for name in PARTS[number][:-1])
    if number < 3:
        ways = found["parts"]["bake-off 4"]["result"]["conv2 data"]["ways"]
        assert list(ways) == ["grouped", "split", "dense", "own", "grouped apart", "split apart", "own apart"]
        assert all(way["us"] > 0 for way in ways.values())
        rows = found["parts"]["contest 4"]["result"]["rows"]
        assert next(iter(rows)) == stages.OURS and len(rows) > 1 and len(rows[stages.OURS]["rates"]) == 1


def test_a_part_that_fails_is_passed_over(
    stages: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a check that does is the exit code. What was measured before stays, and nothing begins
    when the time is used up."""

    def fails(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory\nand more")

    monkeypatch.setattr(stages, "checked", fails)
    assert stage(stages, monkeypatch, 1, "--out", tmp_path, "--batch", 4, "--part", "machine", "check", "streams") == 1
    assert "check FAILED: OutOfMemoryError: CUDA out of memory\n" in capsys.readouterr().out
    assert stage(stages, monkeypatch, 1, "--out", tmp_path, "--part", "ceilings") == 0
    assert stage(stages, monkeypatch, 1, "--out", tmp_path, "--part", "compiling", "--seconds", -1) == 0
    assert "compiling: left out, as the time is used up." in capsys.readouterr().out
    parts = json.loads((tmp_path / "result.json").read_text())["parts"]
    assert list(parts) == ["machine", "check", "streams 4", "ceilings"]
    assert parts["check"]["error"] == "OutOfMemoryError: CUDA out of memory" and "result" in parts["streams 4"]


def test_photos_decide_the_exit_code(
    stages: Any, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store is looked at first."""
    monkeypatch.setattr(stages.real_data, "compare", lambda photos, _: {"agree": list(photos.named) == ["paper-2012"]})
    line = [3, "--out", tmp_path / "out", "--part", "photos", "--data", store.folder, "--recipe"]
    assert stage(stages, monkeypatch, *line, "laptop") == 1
    monkeypatch.setattr(sys, "argv", ["train_gpu.py", *map(str, line), "paper-2012"])
    with pytest.raises(SystemExit, match=r"input_size \(=224\) is larger than the pictures"):
        stages.main()


# --- the quick check ------------------------------------------------------------------------------


@pytest.fixture
def check_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = script("check_gpu", monkeypatch)
    monkeypatch.setattr("alexnet.bench.STORED", 72)
    monkeypatch.setattr(found, "first_tiles_only", lambda: None)  # would last
    return found


def test_the_quick_check(check_gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """On the reference, which is right: every part runs, and says so."""
    limits = {torch.float32: 1e-5, torch.bfloat16: 4e-3}
    found = check_gpu.check(get_variant("paper", **NETWORK), 2, CPU, limits)
    assert found["right"], capsys.readouterr().out
    assert len(found["parts"]) == 1 + 5 * 2 + 2 + 2 + 4
    assert "apart" in found["parts"]["conv2"]["result"] and "apart" not in found["parts"]["conv3"]["result"]
    assert "apart" in found["parts"]["relu3"]["result"]  # which writes what conv4 reads


def test_the_quick_check_finds_what_is_wrong(check_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.bias_relu
    monkeypatch.setattr(
        kernels, "bias_relu", lambda x, bias, planes: right(x, bias, planes) * (1.02 if x.dtype != torch.float64 else 1)
    )
    monkeypatch.setattr(check_gpu, "WAYS_TRIED", check_gpu.WAYS_TRIED[:1])
    found = check_gpu.check(get_variant("paper", **NETWORK), 2, CPU)
    wrong = [name for name, part in found["parts"].items() if not part["right"]]
    assert wrong == ["conv3+relu3", "relu3", "conv4+relu4", "relu4", "step, our own convolutions"] and not found["right"]


def test_the_quick_check_of_many_units(check_gpu: Any) -> None:
    """Of which some are so near to zero that rounding decides whether they pass their gradient."""
    parts = dict(check_gpu.kernel_parts(get_variant("paper"), 8, CPU, check_gpu.LIMITS))
    assert parts["conv3+relu3"]().endswith("of 0.004")


def test_the_quick_check_by_the_kernels(check_gpu: Any, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each but the step, which has tests of its own; the interpreter cuts bfloat16 off."""
    if device.type == "cpu":
        monkeypatch.setattr(kernels, "on_kernels", lambda x: x.dtype != torch.float64)
    limits = {torch.float32: 1e-5, torch.bfloat16: 8e-3 if device.type == "cpu" else 4e-3}
    variant = get_variant("paper", **{**NETWORK, "width": 1 / 16})
    found = check_gpu.run(list(check_gpu.kernel_parts(variant, 1, device, limits)))
    assert found["right"], found


# --- compiling ------------------------------------------------------------------------------------

WALK = """
import sys
from compile_step import compile_share
from alexnet.variants import get_variant
for batch in map(int, sys.argv[2:]):
    print(*compile_share(get_variant("paper", width=1 / 2), 90, int(sys.argv[1]), 400, batch), sep="\\n")
    print("---")
"""


def python(*arguments: str, cache: Path) -> str:
    """The output of a process that does not interpret kernels."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": f"{environment.get('PYTHONPATH', '')}:{BENCHMARKS}"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_steps_kernels_are_compiled_before_it_runs(tmp_path: Path) -> None:
    """Those that it launches, each once, whatever the batch. One is compiled here, packed, and
    found again elsewhere, where the paths are others.
    """
    pytest.importorskip("triton")
    first, second, *_ = python("-c", WALK, "399", "16", "48", cache=tmp_path / "none").split("---\n")
    named = [line.split()[0] for line in first.splitlines()]
    assert first == second and len(set(first.splitlines())) == len(named) < 400
    # In tiles that can help at their kernels; those with towers also with towers apart, and conv3
    # and conv4 with ReLU.
    of_layers = 3 + 2 * (2 + 2) + (7 + 5) + 2 * (6 + 6) + 2 * (2 + 6) + 7 + 2 * 6, 2 + 2 * 2 + 6 + 2 * 6 + 2 * 2
    counts = {"_augment": 4 + 4, "_convolve": of_layers[0], "_weight_gradient": of_layers[1], "_cross_entropy": 1}
    assert {name: named.count(name) for name in counts} == counts
    assert not (tmp_path / "none").exists()
    compiled = str(named.index("_cross_entropy"))
    python("-c", WALK, compiled, "16", cache=tmp_path / "one")
    kernels = [path.parent.name for path in (tmp_path / "one").glob("*/*.cubin")]
    assert len(kernels) == 1
    file = str(tmp_path / "kernels.tar.gz")
    tool = str(BENCHMARKS / "compile_step.py")
    python(tool, "--no-compiling", "--pack", file, cache=tmp_path / "one")
    shutil.rmtree(tmp_path / "one")
    assert "unpacked" in python(tool, "--no-compiling", "--unpack", file, cache=tmp_path / "two")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("*/*")}
    python("-c", WALK, compiled, "16", cache=tmp_path / "two")
    assert before and {path: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("*/*")} == before


def test_another_tritons_kernels_stay_packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    compile_step = script("compile_step", monkeypatch)
    monkeypatch.setattr(compile_step, "folder", lambda: tmp_path / "cache")
    (tmp_path / "cache" / "key").mkdir(parents=True)
    for name in ("kernel.cubin", "kernel.json", "launcher.so"):
        (tmp_path / "cache" / "key" / name).write_text("1")
    compile_step.pack(tmp_path / "file")
    monkeypatch.setattr(compile_step, "folder", lambda: tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr(compile_step, "triton_key", lambda: "another")
        assert compile_step.unpack(tmp_path / "file") == 0 and not (tmp_path / "other").exists()
    assert compile_step.unpack(tmp_path / "file") == 2  # nothing that the host executes
    assert compile_step.unpack(tmp_path / "file") == 0  # what is there stays


# --- the memory of several devices ----------------------------------------------------------------


def test_memory_of_ranks_is_as_documented() -> None:
    """Of two pictures, whose activations are 1/64 of the table's; the whole table."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "rank_memory.py", "--batch", "2"], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    lines = (BENCHMARKS.parent / "docs" / "training.md").read_text().splitlines()
    documented = [line for line in lines if line.startswith(("| one device", "| towers,", "| data,", "| hybrid,"))]
    ranks = [held | {"activations": 64 * held["activations"]} for held in chain(*json.loads(last)["held"].values())]
    assert len(documented) == len(ranks) == 7
    for line, held in zip(documented, ranks, strict=True):
        _, _, *cells, together, share, _ = line.split("|")
        assert [float(cell.replace(",", "")) for cell in cells] == pytest.approx([*held.values()], abs=0.06)
        assert float(together.replace(",", "")) == round(sum(held.values()))
        assert share.strip() == f"{sum(held.values()) * 1e6 / (3 * 2**30):.0%}"
