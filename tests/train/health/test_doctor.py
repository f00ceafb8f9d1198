"""The doctor names each failure that is made here, and accuses no recipe that learns; so
does the watch over a run.
"""

import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.data.prepare import prepare
from alexnet.data.store import MANIFEST, MEAN, Split, Store
from alexnet.errors import Interrupted, TrainingError
from alexnet.model import AlexNet
from alexnet.train import recipes
from alexnet.train.health import doctor, watch
from alexnet.train.health.causes import ALIKE
from alexnet.train.health.doctor import Diagnosis, examine
from alexnet.train.health.probe import relation
from alexnet.train.health.signals import frequencies_loss
from alexnet.train.loop import train
from alexnet.train.start import Start
from conftest import write_photos

CPU: dict[str, Any] = {"device": "cpu", "compile": "off"}
#: Nets that a test can afford; the 0.01 of 2012 fades in anything narrower.
HALF: dict[str, Any] = {"width": 0.5, "input_size": 96, **CPU}
EIGHTH: dict[str, Any] = {"width": 1 / 8, "input_size": 72, **CPU}


def names(diagnosis: Diagnosis) -> list[str]:
    return [cause.name for cause in diagnosis.causes]


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """600 photos of ten classes, 128 pixels."""
    return prepare([shared / "data" / "imagenette-mini"], tmp_path_factory.mktemp("doctor") / "store", size=128)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three colours, 72 pixels, 210 pictures to train on: enough to ask whether labels fit."""
    folder = tmp_path_factory.mktemp("colours")
    write_photos(folder / "train", 70)
    write_photos(folder / "val", 4, first=100)
    return prepare([folder], tmp_path_factory.mktemp("colours-store") / "store", size=72)


def copied(store: Store, folder: Path) -> Path:
    return Path(shutil.copytree(store.folder, folder))


def relabelled(store: Store, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Store:
    """A copy of the store with other labels in train."""
    copied(store, folder)
    labels = np.array(store.train.labels)
    change(labels).astype("<i4").tofile(folder / "train.labels")
    return Store(folder)


def pictures(folder: Path, draw: Callable[[np.random.Generator, int], np.ndarray]) -> Store:
    """A store of drawn pictures: `draw(rng, class)` gives (72, 72, 3) in [0, 255]."""
    rng = np.random.default_rng(0)
    for label in range(2):
        (folder / "photos" / str(label)).mkdir(parents=True)
        for index in range(20):
            array = draw(rng, label).clip(0, 255).astype(np.uint8)
            Image.fromarray(array).save(folder / "photos" / str(label) / f"{index}.png")
    return prepare([folder / "photos"], folder / "store", size=72)


# --- healthy recipes are not accused --------------------------------------------------------------


@pytest.mark.parametrize("name", ["laptop", "small-photos", "paper-2012", "caffe", "modern"])
def test_healthy_on_photos(photos: Store, name: str) -> None:
    """On real photos, at half width: each of these leaves ln 10 behind within 600 steps of 64."""
    diagnosis = examine(recipes.get_recipe(name, **{**HALF, "input_size": 128}), photos)
    assert names(diagnosis) == []
    assert {layer.verdict for layer in diagnosis.layers} == {"healthy"}
    assert diagnosis.expected_loss == pytest.approx(np.log(10))
    assert diagnosis.first_loss == pytest.approx(diagnosis.expected_loss, abs=0.3)
    assert len(diagnosis.trial) == doctor.TRIAL_STEPS


@pytest.mark.parametrize("name", ["laptop", "small-photos"])
def test_healthy_on_few_drawings(store: Store, name: str) -> None:
    """60 pictures of three colours: too few to ask the labels."""
    diagnosis = examine(recipes.get_recipe(name, **EIGHTH), store)
    assert names(diagnosis) == []
    assert diagnosis.labels == doctor.Labels(3, None, 60)


def test_what_is_measured(store: Store) -> None:
    """Against the definitions, from the model's own stages in float64."""
    recipe = recipes.get_recipe("laptop", **EIGHTH)
    diagnosis = examine(recipe, store)
    begun = Start.fresh(recipe, store, torch.device("cpu"))
    images, _, _ = doctor.batch(begun.in_batches_of(32), 0)
    stages = {name: value.detach().double() for name, value in begun.model.eval().stages(images).items()}
    assert [layer.name for layer in diagnosis.layers] == [name for name in stages if not name.startswith("drop")]
    for layer in diagnosis.layers:
        value = stages[layer.name]
        assert layer.spread == pytest.approx(float(value.std(0, correction=0).mean() / value.abs().mean()), rel=1e-4)
        if layer.name.startswith("relu"):
            silent = (value <= 0).all(0).flatten(1).all(1) if value.dim() == 4 else (value <= 0).all(0)
            assert layer.dead == pytest.approx(float(silent.double().mean()), abs=1e-6)
    images, labels, keys = doctor.batch(begun.in_batches_of(16), 0)
    torch.nn.functional.cross_entropy(begun.model.train()(images, keys), labels).backward()
    weight = begun.model.get_parameter("fc7.weight")
    fc7 = next(layer for layer in diagnosis.layers if layer.name == "fc7")
    assert weight.grad is not None
    assert fc7.gradient == pytest.approx(float(weight.grad.norm()), rel=1e-4)
    step = recipe.lr * (weight.grad + recipe.weight_decay * weight)
    assert fc7.update == pytest.approx(float((step.norm() / weight.norm()).detach()), rel=1e-4)


def test_as_json(store: Store) -> None:
    """Strict JSON, also after an explosion."""
    diagnosis = examine(recipes.get_recipe("laptop", **EIGHTH, pixels="mean-image", lr=10.0), store)
    assert not np.isfinite(diagnosis.trial[-1])
    plain = json.loads(json.dumps(diagnosis.as_json(), allow_nan=False))
    assert plain["trial"][-1] is None
    assert plain["causes"][0]["name"] == "he-large-pixels"
    assert plain["layers"][0]["name"] == "conv1"


# --- each cause, created and named ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "changes", "cause", "field"),
    [
        ("paper-text", {}, "bias-one", "variant"),
        ("paper-2012", {"pixels": "unit"}, "small-pixels", "pixels"),
        ("caffe", {"pixels": "unit"}, "small-pixels", "pixels"),
        ("caffe", {"width": 1 / 8}, "narrow", "init"),
        ("small-photos", {"pixels": "mean-image"}, "he-large-pixels", "pixels"),
        ("paper-2012", {"init": "he"}, "he-large-pixels", "pixels"),
        ("small-photos", {"lr": 0.5}, "large-steps", "lr"),
        ("paper-2012", {"lr": 0.5}, "large-steps", "lr"),
        ("laptop", {"lr": 1e-7}, "small-steps", "lr"),
        ("caffe", {"init_std": (0.001,) * 8, "width": 1.0, "input_size": 96}, "fading", "init"),
    ],
)
def test_named_on_photos(photos: Store, recipe: str, changes: dict[str, Any], cause: str, field: str) -> None:
    diagnosis = examine(recipes.get_recipe(recipe, **{**HALF, **changes}), photos)
    assert names(diagnosis) == [cause]
    assert diagnosis.causes[0].field == field
    assert any(layer.verdict != "healthy" for layer in diagnosis.layers)


def test_the_remedies_work(photos: Store) -> None:
    """What the doctor advises, it finds healthy."""
    assert names(examine(recipes.get_recipe("paper-text", **HALF, variant="code-2012"), photos)) == []
    assert names(examine(recipes.get_recipe("paper-text", **HALF, init="he", pixels="unit"), photos)) == []
    high = examine(recipes.get_recipe("small-photos", **HALF, lr=0.5), photos)
    advised = float(high.causes[0].remedy.split("such as ")[1].split(",")[0])
    assert names(examine(recipes.get_recipe("small-photos", **HALF, lr=advised), photos)) == []


@pytest.mark.parametrize(("worst", "accused"), [(28.0, False), (72.0, True), (float("inf"), True), (float("nan"), True)])
def test_explosion(worst: float, accused: bool) -> None:
    """28: the highest loss of a recipe that learns; 72: the lowest in a trial of He
    initialisation on 0-255 pixels.
    """
    recipe = recipes.get_recipe("small-photos")
    layer = doctor.StageHealth("fc8", 0.4, None, 1.0, 0.8, "healthy")
    seen = doctor.Findings(
        recipe,
        recipe.network(3),
        doctor.InputStatistics(0.0, 1.0, 50.0),
        doctor.Labels(3, None, 60),
        (layer,),
        (1.1, worst, 3.0),
    )
    cause = doctor.exploding(seen)
    assert (cause is not None) == accused
    assert cause is None or ("changed fc8 by 80%" in cause.evidence and "such as 0.001," in cause.remedy)


@pytest.mark.parametrize("pixels", ["mean-image", "unit"])
def test_mean_not_subtracted(photos: Store, tmp_path: Path, pixels: str) -> None:
    """A store whose mean image is blank, or whose statistics are another
    data set's on the scale 0-1.
    """
    folder = copied(photos, tmp_path / "store")
    if pixels == "mean-image":
        np.save(folder / MEAN, np.zeros_like(photos.mean_image))
    else:
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["statistics"]["mean_colour"] = [0.485, 0.456, 0.406]
        (folder / MANIFEST).write_text(json.dumps(manifest))
    recipe = recipes.get_recipe("small-photos", **{**EIGHTH, "input_size": 96, "pixels": pixels})
    diagnosis = examine(recipe, Store(folder))
    assert names(diagnosis) == ["mean-not-subtracted"]
    assert "alexnet verify" in diagnosis.causes[0].remedy


@pytest.mark.parametrize("pixels", ["mean-image", "unit"])
def test_no_contrast(tmp_path: Path, pixels: str) -> None:
    """Pictures that were stored on the scale 0-1: their pixels are 0 or 1."""
    dark = pictures(tmp_path, lambda rng, label: rng.integers(0, 2, (72, 72, 3)))
    assert names(examine(recipes.get_recipe("laptop", **EIGHTH | {"pixels": pixels}), dark)) == ["no-contrast"]


def test_equal_pictures(tmp_path: Path) -> None:
    """One picture, forty times, but for one pixel, as files that are equal could not be on both
    sides of the split: there is contrast, but not between pictures."""

    def ramp(rng: np.random.Generator, label: int) -> np.ndarray:
        picture = np.tile(np.linspace(0, 255, 72)[:, None, None], (1, 72, 3))
        picture[0, 0] = rng.integers(0, 256, 3)
        return picture

    assert names(examine(recipes.get_recipe("laptop", **EIGHTH), pictures(tmp_path, ramp))) == ["equal-pictures"]


def test_labels_constant(store: Store, tmp_path: Path) -> None:
    one = relabelled(store, tmp_path / "one", np.zeros_like)
    assert names(examine(recipes.get_recipe("laptop", **EIGHTH), one)) == ["one-class"]


@pytest.mark.parametrize("which", ["photos", "colours"])
def test_labels_shuffled(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store: Store = request.getfixturevalue(which)
    mixed = relabelled(store, tmp_path / "mixed", np.random.default_rng(1).permutation)
    small = {**EIGHTH, "input_size": max(72, store.size * 3 // 4)}
    assert names(examine(recipes.get_recipe("laptop", **small), mixed)) == ["shuffled-labels"]
    healthy = examine(recipes.get_recipe("laptop", **small), store)
    assert names(healthy) == [] and healthy.labels.score is not None and healthy.labels.score > 10


def test_relation_is_calibrated() -> None:
    """Labels without relation score like a unit normal (50 draws: mean within 0.5, deviation 0.7 to
    1.4); half shuffled ones show.
    """
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 40)
    features = rng.normal(size=(200, 12)) + 2 * np.eye(5, 12)[labels]
    scores = [relation(features, rng.permutation(labels)) for _ in range(50)]
    assert abs(np.mean(scores)) < 0.5 and 0.7 < np.std(scores) < 1.4
    half = labels.copy()
    half[::2] = rng.permutation(half[::2])
    assert relation(features, half) > doctor.RELATED
    assert relation(np.ones((200, 12)), labels) is None


# --- the watch over a run -------------------------------------------------------------------------


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if line["kind"] == kind]


def watched(store: Store, run: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[list[str], str]:
    """Train with a plateau called after 20 steps; the warnings, and what was said."""
    monkeypatch.setattr(watch, "PLATEAU_FROM", (20, 20))
    recipe = recipes.get_recipe("laptop", **{**EIGHTH, "epochs": 7, "batch_size": 16, "mirror": False, **changes})
    with redirect_stderr(io.StringIO()) as said:
        train(recipe, store, run)
    return [name for line in lines(run, "warning") for name in line if name not in ("kind", "step")], said.getvalue()


def test_a_healthy_run_is_not_warned(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warned, said = watched(store, tmp_path / "run", monkeypatch, epochs=10)
    assert warned == [] and "Warning" not in said
    (line,) = lines(tmp_path / "run", "signals")
    assert line["step"] == watch.FIRST_LOOK
    assert line["spread/pool5"] > ALIKE and line["dead/relu5"] < 0.5
    assert line["gradient/conv1"] > 0 and 0 < line["update/fc8"] < 1


def test_a_plateau_is_explained(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of 0.01 on scaled pixels: flat from the first step, said once,
    with the field to change.
    """
    warned, said = watched(store, tmp_path / "run", monkeypatch, init="gaussian", lr=0.001, epochs=10)
    assert warned == ["small-pixels"]
    assert (
        said.count("Warning: the loss is still 1.") == 1 and "3 classes are (1.099)" in said and "--pixels mean-image" in said
    )


def test_a_plateau_without_a_known_cause(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Healthy layers that learn nothing, for the learning rate is next to nothing:
    the doctor is recommended.
    """
    warned, said = watched(store, tmp_path / "run", monkeypatch, lr=1e-7)
    assert warned == ["plateau"] and "alexnet doctor" in said


def test_a_dead_layer_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initialise = AlexNet.initialise

    def dying(self: AlexNet, generator: torch.Generator | None = None) -> None:
        initialise(self, generator)
        self.get_parameter("conv4.bias").data.fill_(-1e4)

    monkeypatch.setattr(AlexNet, "initialise", dying)
    warned, said = watched(store, tmp_path / "run", monkeypatch)
    assert warned == ["dead-layer"]
    assert said.count("relu4 is dead: 100%") == 1 and "--lr 0.002" in said


def test_a_gradient_that_is_no_number(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found at a look although the loss is finite; the next step's loss ends the run."""
    backward = torch.Tensor.backward
    calls = 0

    def broken(self: torch.Tensor, *arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        backward(self, *arguments, **options)
        if calls == watch.FIRST_LOOK + 1:
            model.get_parameter("conv2.weight").grad.fill_(float("inf"))

    model: Any = None
    fresh = AlexNet.__init__

    def kept(self: AlexNet, *arguments: Any, **options: Any) -> None:
        nonlocal model
        fresh(self, *arguments, **options)
        model = self

    monkeypatch.setattr(AlexNet, "__init__", kept)
    monkeypatch.setattr(torch.Tensor, "backward", broken)
    said = io.StringIO()
    with pytest.raises(TrainingError, match="conv2 became non-finite first"), redirect_stderr(said):
        train(recipes.get_recipe("laptop", **EIGHTH, epochs=9, batch_size=16), store, tmp_path / "run")
    assert "the gradient of conv2 is no longer finite" in said.getvalue()


def test_he_on_large_pixels_is_named_when_the_loss_breaks(store: Store, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"He initialisation expects pixels of deviation 1.*--pixels unit"):
        train(recipes.get_recipe("laptop", **EIGHTH, pixels="mean-image", lr=10.0, warmup=0.0), store, tmp_path / "run")


def test_watching_changes_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is looked at in every step ends with the bits of one that is never looked at."""
    recipe = recipes.get_recipe("laptop", **EIGHTH, epochs=2, batch_size=16, dropout=0.5)
    ends = []
    for name, steps in (("always", 1), ("never", 10**9)):
        monkeypatch.setattr(watch, "LOOK_STEPS", steps)
        monkeypatch.setattr(watch, "FIRST_LOOK", 0 if steps == 1 else -1)
        ends.append(train(recipe, store, tmp_path / name).model.state_dict())
    assert len(lines(tmp_path / "always", "signals")) == 6 and not lines(tmp_path / "never", "signals")
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_a_resumed_run_does_not_repeat_its_warning(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the warning: the run that goes on is as quiet, and the log the same, as if it
    had not been stopped.
    """
    flat: dict[str, Any] = {"init": "gaussian", "lr": 0.001, "epochs": 12, "checkpoint_minutes": 0.0}
    watched(store, tmp_path / "quiet", monkeypatch, **flat)
    plateau = watch.Watch.plateau

    def stopping(self: watch.Watch, step: int, *arguments: Any) -> Any:
        cause = plateau(self, step, *arguments)
        if cause:
            os.kill(os.getpid(), signal.SIGINT)
        return cause

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(watch.Watch, "plateau", stopping)
        watched(store, tmp_path / "run", monkeypatch, **flat)
    recipe = recipes.get_recipe("laptop", **{**EIGHTH, "batch_size": 16, "mirror": False, **flat})
    with redirect_stderr(io.StringIO()) as said:
        train(recipe, store, tmp_path / "run", resume=True)
    assert "Warning" not in said.getvalue()
    assert lines(tmp_path / "run", "warning") == lines(tmp_path / "quiet", "warning")


def test_frequencies_loss() -> None:
    """Entropy: ln 2 for two equal classes, 0 for one, and by hand for 3 to 1."""

    def split(*labels: int) -> Split:
        return Split("train", np.zeros((len(labels), 6), np.uint8), np.array(labels, np.int32), Path())

    assert frequencies_loss(split(0, 1), 2) == pytest.approx(np.log(2))
    assert frequencies_loss(split(1, 1), 3) == 0
    assert frequencies_loss(split(0, 0, 0, 1), 2) == pytest.approx(0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    smoothed = -0.95 * np.log(0.95) - 0.05 * np.log(0.05)  # the entropy of 1 - s / 2 and s / 2, s = 0.1
    assert frequencies_loss(split(0, 0), 2, label_smoothing=0.1) == pytest.approx(smoothed)
