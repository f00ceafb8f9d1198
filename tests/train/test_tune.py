"""Fine-tuning: what is taken, chosen and trained, and that it can be killed anywhere."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from runs import log, same_weights
from safetensors.torch import save_file
from scipy.optimize import minimize

import alexnet
from alexnet import AlexNet, engines
from alexnet.cli import main
from alexnet.data.prepare import prepare
from alexnet.data.store import Store
from alexnet.errors import CheckpointError, Interrupted, OutputError, RecipeError, TrainingError
from alexnet.evaluate import evaluate_classifier
from alexnet.export import export
from alexnet.run_folder import FEATURES, RESULT, read_log
from alexnet.study.family import train_family
from alexnet.train import recipes
from alexnet.train.health.doctor import examine
from alexnet.train.history import read_config
from alexnet.train.loop import train
from alexnet.train.optim import SGD
from alexnet.train.result import read_result, verify_run
from alexnet.train.session import Session
from alexnet.train.start import Start, fitting
from alexnet.train.tune import base as bases
from alexnet.train.tune import begin, features, head, trial
from alexnet.train.tune.base import open_base, table
from alexnet.trained import Trained
from alexnet.variants import get_variant
from alexnet.weights import importer, native
from stopping import stop_after

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole small network of another number of classes, whose input of 64 fits the store's 72."""
    variant = get_variant("caffe", width=1 / 16, input_size=67, num_classes=5, init="he")
    net = AlexNet(variant, torch.Generator().manual_seed(5))
    preprocessing = replace(importer.published_preprocessing(variant), stored_size=72)
    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    native.save(path, Trained(net, ("a", "b", "c", "d", "e"), preprocessing, {}, {}))
    return path


@pytest.fixture(scope="module")
def convolutions(weights: Path) -> Path:
    """The same without its fully connected layers, as tensors alone."""
    state = native.load(weights).model.state_dict()
    path = weights.with_name("convolutions.safetensors")
    save_file({name: value.contiguous() for name, value in state.items() if name.startswith("conv")}, path)
    return path


def recipe(file: Path, **changes: Any) -> recipes.Recipe:
    settings: dict[str, Any] = {"weights": str(file), "tune": "head", "batch_size": 10, "device": "cpu", "head_views": 2}
    return recipes.get_recipe("finetune", **{**settings, **changes})


# --- the weights ----------------------------------------------------------------------------------


def test_a_table_says_which_layers_are_new(weights: Path, convolutions: Path, store: Store, tmp_path: Path) -> None:
    whole = open_base(recipe(weights))
    assert whole.stages == ("pool5", "fc6", "fc7") and len(whole.layers) == 8
    lines = table(whole, whole.network("fc6", recipe(weights), 3))
    assert [line.split()[-1] for line in lines[1:]] == ["loaded"] * 6 + ["used", "classes"]
    assert len({line.index(line.split()[1]) for line in lines[1:]}) == 1  # one column
    part = native.load(weights)
    save_file({n: v.contiguous() for n, v in part.model.state_dict().items() if n[:5] != "conv4"}, tmp_path / "x.safetensors")
    gap = open_base(recipe(tmp_path / "x.safetensors", variant="caffe", input_size=67))
    assert "drawn at random" in table(gap, gap.network("pool5", recipe(weights), 3))[4]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights": None}, r"name them with --from"),
        ({"weights": "nowhere.npz"}, r"weights \(=nowhere\.npz\) do not exist: name a file.*torchvision"),
        ({"weights": "caffe"}, r"not on this machine yet: run `alexnet weights pull caffe`"),
        ({"weights": "caffe-mean"}, r"is not a network"),
        ({"towers": 1}, r"towers \(=1\) is decided by the weights, which have 2"),
        ({"width": 0.5}, r"width \(=0\.5\) is decided by the weights"),
        ({"input_size": 99}, r"decided by fc6 .* which reads pictures of 67"),
        ({"variant": "torchvision"}, r"holds 'caffe', not 'torchvision'"),
    ],
)
def test_weights_that_do_not_fit(
    weights: Path, changes: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path))
    with pytest.raises((RecipeError, CheckpointError), match=reason):
        open_base(recipe(weights, **changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tune": "head", "recipe": "laptop", "weights": None, "variant": "auto"}, None),
        ({"tune": "from conv9"}, r"tune \(=from conv9\) must be head, all, auto, or from LAYER"),
        ({"tune": "conv9"}, r"tune \(=conv9\) must be head, .*; the layers are conv1, conv2, conv3, .*, fc7, fc8\.$"),
        ({"minutes": 0.0}, r"minutes \(=0\.0\) must be above 0"),
        ({"lr_factors": (0.0,) * 8}, r"must not be negative.* not all be 0"),
        ({"tune": None}, r"is for finetune|only finetune"),
    ],
)
def test_fields_out_of_range(weights: Path, changes: dict[str, Any], reason: str | None) -> None:
    if reason is None:
        with pytest.raises(RecipeError, match="only finetune begins with weights"):
            recipes.get_recipe("laptop", variant="auto")
        return
    with pytest.raises(RecipeError, match=reason):
        recipe(weights, **changes)


def test_a_layer_that_is_not_there(convolutions: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"tune \(=from fc7\): the network has no fc7, only conv1, .*fc8"):
        train(recipe(convolutions, variant="caffe", tune="from fc7"), small(store, convolutions), tmp_path / "run")


def small(store: Store, _: Path) -> Store:
    return store


def test_untrained_weights_are_said(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_base(recipe(weights))
    assert "do not look trained" in capsys.readouterr().err


# --- the head -------------------------------------------------------------------------------------


def problem(n: int = 30, views: int = 2, d: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    means = 2 * torch.randn(3, d, generator=generator)
    return 5 + 3 * (means[labels][:, None] + torch.randn(n, views, d, generator=generator)), labels


@pytest.mark.parametrize("at_once", [16_384, 7])
@pytest.mark.parametrize("decay", [1.0, 0.01])
def test_the_optimum_is_that_of_another_solver(decay: float, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy's, in float64, on the formula of the module; also where rows are taken in parts."""
    monkeypatch.setattr(head, "ROWS_AT_ONCE", at_once)
    features_, labels = problem()
    fitted = head.fit(features_, labels, 3, decay)
    rows = features_.flatten(0, 1).double().numpy()
    z = (rows - rows.mean(0)) / np.sqrt(((rows - rows.mean(0)) ** 2).mean())
    targets = torch.from_numpy(np.repeat(labels.numpy(), 2))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.from_numpy(x).requires_grad_()
        weight, bias = at[:36].view(3, 12), at[36:]
        value = F.cross_entropy(torch.from_numpy(z) @ weight.T + bias, targets) + decay / 2 * weight.square().sum()
        value.backward()
        return value.item(), at.grad.numpy()

    best = minimize(loss, np.zeros(39), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9})
    logits = z @ best.x[:36].reshape(3, 12).T + best.x[36:]
    ours = features_.flatten(0, 1) @ fitted.weight.T + fitted.bias
    difference = ours.double() - torch.from_numpy(logits)
    assert float((difference - difference.mean(1, keepdim=True)).abs().max()) < 5e-3  # a shift of all classes is no change
    assert fitted.loss == pytest.approx(F.cross_entropy(torch.from_numpy(logits), targets).item(), abs=1e-4)


def test_rows_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pictures, blurred: the same optimum, and the features are left as they are."""
    features_, labels = problem(40, 2, 108)
    before, whole = features_.clone(), head.fit(features_, labels, 3, 0.1, 1.2)
    monkeypatch.setattr(head, "ROWS_AT_ONCE", 7)
    parts = head.fit(features_, labels, 3, 0.1, 1.2)
    assert torch.equal(features_, before)
    logits = [features_.flatten(0, 1) @ fitted.weight.T + fitted.bias for fitted in (whole, parts)]
    assert float((logits[0] - logits[1]).abs().max()) < 2e-3 < float(logits[0].std())


@pytest.mark.parametrize("blur", [0.0, 1.2])
def test_choosing_solves_the_same_problem(blur: float) -> None:
    """In as many dimensions as there are rows, and in as many as there are features."""
    features_, labels = problem(40, 2, 108)
    inside, outside = torch.arange(40) < 30, torch.arange(40) >= 30
    measured = head._held_out(features_[inside], labels[inside], features_[outside], labels[outside], (1.0, 0.1), (blur, 6))
    for decay, (loss, error) in measured.items():
        whole = head.fit(features_[inside], labels[inside], 3, decay, blur)
        assert (loss, error) == pytest.approx(whole.on_views(features_[outside], labels[outside]), abs=2e-3)


def test_the_better_stage_is_chosen() -> None:
    good, labels = problem(60)
    noise = torch.randn(60, 2, 12, generator=torch.Generator().manual_seed(1))
    choice = head.choose({"pool5": noise, "fc6": good}, labels, seed=0, side=1)
    assert choice.best.stage == "fc6" and choice.best.error < 0.1 and len(choice.tried) == 2 * len(head.DECAYS)
    assert choice == head.choose({"pool5": noise, "fc6": good}, labels, seed=0, side=1)
    assert head.choose({"fc6": good}, labels, 0, decay=0.5).best.decay == 0.5
    parts = head.folds(labels.numpy(), 0)
    assert all(np.bincount(labels.numpy()[parts == fold]).tolist() == [4, 4, 4] for fold in range(head.FOLDS))


# --- features -------------------------------------------------------------------------------------


@pytest.fixture
def extractor(weights: Path, store: Store) -> features.Extractor:
    trained = native.load(weights)
    return features.Extractor(trained, ("pool5", "fc6", "fc7"), 2)


def test_features_are_the_networks_stages(extractor: features.Extractor, store: Store, tmp_path: Path) -> None:
    """By whichever engine, for the centre and its mirror."""
    found = extractor.of(store.train, store.fingerprint, tmp_path)
    pictures = extractor.trained.preprocessing
    records = torch.from_numpy(store.train.take(slice(0, 4)))
    top, left, _ = pictures.views(1)[0]
    for view, mirrored in enumerate((False, True)):
        with torch.inference_mode():
            stages = extractor.trained.model.stages(pictures.view(records, top, left, mirrored))
        for stage, name in (("pool5", "pool5"), ("fc6", "drop6"), ("fc7", "drop7")):
            expected = stages[name].flatten(1)
            assert found[stage].shape == (len(store.train), 2, expected.shape[1])
            assert float((found[stage][:4, view].float() - expected).abs().max()) < 2e-3 * float(expected.abs().max())


def test_features_on_a_full_disk(extractor: features.Extractor, store: Store, tmp_path: Path) -> None:
    """What safetensors raises then is said in a line; nothing half is left."""
    limits = pytest.importorskip("resource")
    soft, hard = limits.getrlimit(limits.RLIMIT_FSIZE)
    limits.setrlimit(limits.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match=r"safetensors could not be written \(.*File too large"):
            extractor.of(store.train, store.fingerprint, tmp_path)
    finally:
        limits.setrlimit(limits.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_views_that_come_closer(extractor: features.Extractor, store: Store) -> None:
    """Smaller squares of the picture, enlarged as Pillow does it; the first ten are a test's."""
    pictures = extractor.trained.preprocessing
    views = features.views_of(pictures, 16)
    assert [view[:3] for view in views[:10]] == pictures.views(10) and {view.side for view in views[10:]} == {56}
    records = torch.from_numpy(store.train.take(slice(0, 3)))
    whole = replace(pictures, input_size=72).view(records, 0, 0, False).numpy()
    corners = set()
    for view in views:
        seen = features._seen(pictures, records, view)
        cut = whole[:, :, view.top : view.top + view.side, view.left : view.left + view.side]
        cut = cut[..., ::-1] if view.mirrored else cut
        for picture, planes in zip(seen, cut, strict=True):
            for plane, expected in zip(picture, planes, strict=True):
                enlarged = Image.fromarray(np.ascontiguousarray(expected)).resize((67, 67), Image.Resampling.BILINEAR)
                np.testing.assert_allclose(plane, np.asarray(enlarged), atol=2e-3)
        corners |= {(view.top, view.left)} if view.side == 56 else set()
    assert corners == {(0, 0), (0, 16), (8, 8), (16, 0), (16, 16)}


def test_features_are_kept(
    extractor: features.Extractor, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Killed between two files, the second start computes the rest alone; a damaged file is
    computed again, and one of other weights is not taken."""
    monkeypatch.setattr(features, "BLOCK", 25)
    first = extractor.of(store.train, store.fingerprint, tmp_path / "a")
    files = sorted((tmp_path / "a" / FEATURES).glob("*/*"))
    assert len(files) == 3
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    killed = sorted((tmp_path / "b" / FEATURES).glob("*/*"))
    killed[2].unlink()
    content = bytearray(killed[0].read_bytes())
    content[-5] ^= 64
    killed[0].write_bytes(content)
    again = extractor.of(store.train, store.fingerprint, tmp_path / "b")
    assert all(torch.equal(first[stage], again[stage]) for stage in first)
    assert "is damaged (its numbers have changed" in capsys.readouterr().err
    third = extractor.of(store.train, store.fingerprint, tmp_path / "b")
    assert all(torch.equal(first[stage], third[stage]) for stage in first)
    assert "is damaged" not in capsys.readouterr().err
    other = replace(extractor, views=1)
    assert other.key(store.train, store.fingerprint) != extractor.key(store.train, store.fingerprint)
    assert extractor.key(store.train, "another") != extractor.key(store.train, store.fingerprint)


# --- runs -----------------------------------------------------------------------------------------


def test_a_head_on_convolutions_alone(convolutions: Path, store: Store, tmp_path: Path) -> None:
    """A network like any other: it is tested, exported, verified and begun with again."""
    asked = recipe(convolutions, variant="caffe", tune="head", input_size=67)
    run = tmp_path / "run"
    trained = train(asked, fitting(asked, store), run)
    variant = trained.model.variant
    assert (variant.removed, variant.num_classes, trained.classes) == (("fc6", "fc7"), 3, store.classes)
    taken = native.load(run).model.state_dict()
    for name, value in importer.read(convolutions).tensors.items():
        assert torch.equal(taken[name], value)
    settled = read_config(run).recipe
    assert (settled.features, settled.epochs, settled.lr_factors[:7]) == ("pool5", 1, (0.0,) * 7)
    assert read_result(run)["evaluation"]["top1_error"] < 0.3 and verify_run(run) == []
    export(native.load(run), "onnx", tmp_path / "x.onnx")
    for engine in ("torch", "onnxruntime"):
        result = evaluate_classifier(
            engines.load(tmp_path / "x.onnx" if engine != "torch" else run, engine), fitting(asked, store)
        )
        assert result.wrong == read_result(run)["evaluation"]["top1_wrong"]
    again = replace(asked, weights=str(run), variant="auto", input_size=None)
    assert open_base(again).stages == ("pool5",)


def test_frozen_layers_have_no_gradient(weights: Path, store: Store, tmp_path: Path) -> None:
    """Below the lowest layer that is trained nothing is computed backward, and nothing changes."""
    run = tmp_path / "run"
    asked = recipe(weights, tune="from conv4", epochs=2, lr=3e-3, features="fc6")
    start = Start.tuned(asked, store, CPU, open_base(asked), tmp_path / "other")
    assert start.recipe.lr_factors[:7] == (0, 0, 0, 0.1, 0.1, 0.1, 0) and 0 < start.recipe.lr_factors[7] <= 1
    trained_layers = ("conv4", "conv5", "fc6", "fc8")
    assert {name.partition(".")[0] for name in start.optimiser.velocity} == set(trained_layers)
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    train(asked, store, run)
    after = native.load(run).model.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name], value) == (not name.startswith(trained_layers)), name
    signals = [line for line in read_log(run) if line["kind"] == "signals"]
    assert all("gradient/conv1" not in line and "gradient/conv4" in line for line in signals)
    lines = [line for line in read_log(run) if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [0, 6] and lines[0]["lr"] == 0


@pytest.mark.parametrize("nesterov", [False, True])
def test_rates_of_layers(nesterov: bool) -> None:
    """Each layer's velocity and weights by the formula in float64."""
    variant = get_variant("caffe", width=1 / 16, input_size=67, num_classes=3, init="he")
    net = AlexNet(variant, torch.Generator().manual_seed(0)).double()
    factors = (0.0, 0.5, 0.1, 0.0, 1.0, 1.0, 0.0, 2.0)
    optimiser = SGD(net, 0.9, 5e-4, variant, nesterov, factors)
    values = {name: one.detach().clone() for name, one in net.named_parameters()}
    speeds = {name: torch.zeros_like(value) for name, value in values.items()}
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        scale = 0.1 ** (step >= 2)
        gradients = {name: torch.randn(one.shape, generator=generator, dtype=one.dtype) for name, one in values.items()}
        for name, one in net.named_parameters():
            one.grad = gradients[name].clone() if one.requires_grad else None
        optimiser.step(0.05, scale)
        for name, w in values.items():
            lr = 0.05 * scale * factors[int(name.split(".")[0][-1]) - 1] * (2 if name.endswith("bias") else 1)
            decay = 0.0 if name.endswith("bias") else 5e-4
            speeds[name] = 0.9 * speeds[name] - lr * (decay * w + gradients[name])
            w += 0.9 * speeds[name] - lr * (decay * w + gradients[name]) if nesterov else speeds[name]
    for name, one in net.named_parameters():
        assert one.requires_grad == (factors[int(name.split(".")[0][-1]) - 1] > 0)
        torch.testing.assert_close(one.detach(), values[name], rtol=1e-12, atol=1e-14)


@pytest.fixture(scope="module")
def whole(weights: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped. Read only."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(recipe(weights, tune="from conv5", epochs=2, lr=1e-5), store, run)
    return run


def test_what_was_chosen_is_recorded(whole: Path, store: Store, tmp_path: Path) -> None:
    """Given, it is not chosen again, and the run ends with the same bits."""
    config = read_config(whole)
    assert config.asked and config.asked.features is config.asked.head_decay is None
    assert config.recipe.features and config.recipe.head_decay and config.tuned and len(config.tuned.layers) == 8
    train(config.recipe, store, tmp_path / "again")
    assert same_weights(whole, tmp_path / "again")
    assert read_config(tmp_path / "again").asked is None


@pytest.mark.parametrize(("blur", "views"), [(0.0, 10), (1.2, 16)])
def test_closer_views_go_with_blur(
    convolutions: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, blur: float, views: int
) -> None:
    """Without a blur the last layer is fitted to a test's ten views, from the features of all 16,
    also where the run is killed once that is settled."""
    asked, run = recipe(convolutions, variant="caffe", input_size=99, head_views=None), tmp_path / "run"
    trial, pictures = head.Trial("pool5", 0.1, blur, 0.5, 0.1), fitting(asked, store)
    monkeypatch.setattr(begin, "choose", lambda *_: head.Choice(trial, (trial,)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fail_after(patch, Session, "evaluate", 0)
        train(asked, pictures, run)
    how = "decay 0.1, no blur and so 10 views, none closer" if views == 10 else "decay 0.1, blur 1.2, 16 views"
    assert f"A last layer on pool5 ({how}): top-1 error" in capsys.readouterr().err
    train(asked, pictures, run, resume=True)
    assert "Using the features of" in capsys.readouterr().err and len(list((run / FEATURES).iterdir())) == 1
    assert read_config(run).recipe.head_views == views
    train(replace(asked, features="pool5", head_decay=0.1, head_blur=blur, head_views=views), pictures, tmp_path / "given")
    assert same_weights(run, tmp_path / "given")


def test_closer_views_that_were_asked_for(convolutions: Path, store: Store, tmp_path: Path) -> None:
    """They stay without a blur, and so do those of a run whose blur was given."""
    for name, given in (("views", {"head_views": 16}), ("blur", {"head_views": None, "head_blur": 0.0})):
        asked = recipe(convolutions, variant="caffe", input_size=99, head_decay=0.1, **given)
        train(asked, fitting(asked, store), tmp_path / name)
        assert read_config(tmp_path / name).recipe.head_views == 16


@pytest.mark.parametrize("where", ["features", "head", "sgd"])
def test_killed_anywhere(
    where: str, whole: Path, weights: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed while it computes features, fits or trains ends with the same bits."""
    asked, run = read_config(whole).asked, tmp_path / "run"
    assert asked
    place = {"features": (features, "_write", 0), "head": (head, "_minimise", 4), "sgd": (SGD, "step", 3)}[where]
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, Interrupted)):
        stop_after(patch, *place) if where == "sgd" else fail_after(patch, *place)
        train(asked, store, run)
    train(asked, store, run, resume=True)
    assert same_weights(whole, run) and log(whole) == log(run) and read_config(whole) == read_config(run)


def fail_after(patch: pytest.MonkeyPatch, module: Any, name: str, calls: int) -> None:
    """The call after so many fails as a full disk does."""
    real, left = getattr(module, name), [calls]

    def failing(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*arguments)

    patch.setattr(module, name, failing)


# --- whether training more layers helps -----------------------------------------------------------


def asking(weights: Path, lr: float) -> recipes.Recipe:
    return recipe(weights, tune="auto", features="pool5", epochs=3, lr=lr)


@pytest.mark.parametrize(("lr", "chosen"), [(1e-3, "all"), (1.0, "head")])
def test_auto_does_what_helps(
    lr: float, chosen: str, weights: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A line says what was tried and heard; then the run is that of what was chosen, to the bit."""
    monkeypatch.setattr(begin, "LEAST", 12)
    train(asking(weights, lr), store, tmp_path / "auto")
    said = capsys.readouterr().err
    assert "On 12 training pictures held out for this test: the last layer alone " in said
    assert ("All layers are trained." if chosen == "all" else "Only the last layer is trained: ") in said
    settled = read_config(tmp_path / "auto").recipe
    assert (settled.tune, settled.epochs) == (chosen, 3 if chosen == "all" else 1)
    train(replace(asking(weights, lr), tune=chosen), store, tmp_path / "named")
    assert same_weights(tmp_path / "auto", tmp_path / "named")
    assert "held out for this test" not in capsys.readouterr().err


def test_killed_while_asking(weights: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(begin, "LEAST", 12)
    asked = asking(weights, 1e-3)
    train(asked, store, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fail_after(patch, SGD, "step", 5)
        train(asked, store, tmp_path / "run")
    train(asked, store, tmp_path / "run", resume=True)
    assert same_weights(tmp_path / "whole", tmp_path / "run") and log(tmp_path / "whole") == log(tmp_path / "run")
    assert read_config(tmp_path / "whole") == read_config(tmp_path / "run")


def test_too_few_to_ask(weights: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(asking(weights, 1e-3), store, tmp_path / "run")
    assert "12 pictures held out are too few to tell whether training them helps (at least 100)" in capsys.readouterr().err
    assert read_config(tmp_path / "run").recipe.tune == "head"


def test_a_gain_must_be_beyond_chance() -> None:
    """Two standard errors, at no more errors; a network that diverged has none."""
    verdict = trial.Verdict(100, 4, (0.5, 0.15), (0.45, 0.15), gain=0.05, margin=0.04)
    assert verdict.helps and str(verdict).endswith(". All layers are trained.")
    nothing, worse, diverged = "no gain beyond chance", "worse", "for all layers the learning rate is too high"
    cases = (
        ({"margin": 0.06}, nothing),
        ({"tuned": (0.4, 0.16)}, nothing),
        ({"gain": -0.05}, worse),
        ({"gain": np.nan}, diverged),
    )
    for changes, why in cases:
        other = replace(verdict, **changes)  # type: ignore[arg-type]
        assert not other.helps and str(other).endswith(f"{why}.")


def test_what_is_held_out_to_ask() -> None:
    """A fifth of the pictures that the last layer's decay was chosen on."""
    labels = torch.arange(3000) % 3
    parted = head.Parted.of(labels, seed=4)
    assert len(parted.used) == len(set(parted.used.tolist())) == head.MOST - len(parted.held)
    assert not set(parted.used.tolist()) & set(parted.held.tolist()) and torch.equal(labels[parted.held], parted.labels_of_held)
    assert (head.folds(labels.numpy(), 4)[parted.held] == 0).all() and abs(len(parted.held) - head.MOST / head.FOLDS) < 60
    assert len(head.Parted.of(labels[:60], 0).held) == 12


def test_a_family_shares_its_features(weights: Path, store: Store, tmp_path: Path) -> None:
    summary = train_family(recipe(weights), store, tmp_path / "family", [0, 1])
    assert summary["n"] == 2 and len(list((tmp_path / "family" / FEATURES).iterdir())) == 1
    assert not (tmp_path / "family" / "seed1" / FEATURES).exists()
    train_family(recipe(weights), store, tmp_path / "family", [0, 1], resume=True)


@pytest.mark.parametrize(("tune", "epochs"), [("head", "1"), ("all", "2")])
def test_a_family_on_the_command_line(weights: Path, store: Store, tmp_path: Path, tune: str, epochs: str) -> None:
    """Its page and its curves, although the first epoch has no steps."""
    words = ["--from", str(weights), "--data", str(store.folder), "--out", str(tmp_path / "family"), "--seeds", "0..1"]
    main(["train", "finetune", *words, "--tune", tune, "--epochs", epochs, "--batch-size", "8"])
    page = (tmp_path / "family" / "README.md").read_text()
    assert "later ones reuse them, so the mean of the seconds says nothing" in page and "for each model" not in page
    assert "mean ± deviation, n = 2" in page and "; caffe at 0.0625 times its width, 67 pixels, " in page
    assert (tmp_path / "family" / "curves.png").exists()


def test_another_recipe_does_not_resume(weights: Path, store: Store, tmp_path: Path) -> None:
    train(recipe(weights), store, tmp_path / "run")
    assert (tmp_path / "run" / RESULT).exists()
    with pytest.raises(TrainingError, match="begun with other settings"):
        train(recipe(weights, tune="from conv5"), store, tmp_path / "run", resume=True)
    train(recipe(weights), store, tmp_path / "run", overwrite=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["asked"]["tune"] == "head"


def test_one_class() -> None:
    train_split = SimpleNamespace(labels=np.zeros(4, np.int32))
    with pytest.raises(RecipeError, match=r"store has training pictures of 1 class only: a network needs two classes or more"):
        begin.check_store(SimpleNamespace(address="store", train=train_split))  # type: ignore[arg-type]


def test_smaller_pictures_are_enlarged(weights: Path, tmp_path: Path, photos: Any, capsys: pytest.CaptureFixture) -> None:
    little = prepare([photos(6)], tmp_path / "little", size=48)
    train(recipe(weights), little, tmp_path / "run")
    said = capsys.readouterr().err
    assert "have 48 pixels, the weights were trained on 72: they are enlarged" in said
    assert "trained on squash pictures" in said and verify_run(tmp_path / "run") == []


def test_too_few_minutes(weights: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "LEAST_SECONDS", 0)
    with pytest.raises(TrainingError, match=r"minutes \(=1e-09\) is too few for one pass over the pictures"):
        train(recipe(weights, minutes=1e-9), store, tmp_path / "run")
    train(recipe(weights), store, tmp_path / "run", overwrite=True)


def test_minutes_are_kept(weights: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """As many epochs as fit, and the last layer alone where none does."""
    asked = recipe(weights, tune="all", epochs=6, minutes=1.0)
    extractor = SimpleNamespace(seconds_a_pass=lambda split: 5.0)
    assert begin.in_minutes(asked, extractor, store, spent=10.0).epochs == 1 + 3  # type: ignore[arg-type]
    assert "leaves time for 3 epochs of 5" in capsys.readouterr().err
    assert begin.in_minutes(asked, extractor, store, spent=50.0).tune == "head"  # type: ignore[arg-type]
    assert "only the last layer is trained. Pass more --minutes" in capsys.readouterr().err
    asked = replace(asked, tune="auto")  # which tries them before, on a part
    assert begin.in_minutes(asked, extractor, store, spent=0.0, part=20).epochs == 1 + 3  # type: ignore[arg-type]
    assert begin.in_minutes(asked, extractor, store, spent=45.0, part=20).tune == "head"  # type: ignore[arg-type]
    assert "an epoch of all layers and its trial take about 20 s here" in capsys.readouterr().err


def test_loaded(weights: Path, store: Store, tmp_path: Path) -> None:
    """`alexnet.load` takes the run as any other."""
    train(recipe(weights), store, tmp_path / "run")
    assert alexnet.load(tmp_path / "run").classes == store.classes
    assert bases.HIDDEN.keys() == {"pool5", "fc6", "fc7"}


def test_trained_layers_alone(whole: Path, weights: Path, store: Store, tmp_path: Path, capsys: Any) -> None:
    """They go back onto their base to the bit, and onto no other."""
    small, back = tmp_path / "head.safetensors", tmp_path / "back.safetensors"
    main(["export", str(whole), "--to", "safetensors", "--head-only", "-o", str(small)])
    main(["weights", "import", str(small), "--base", str(weights), "-o", str(back)])
    run, again = native.load(whole), native.load(back)
    state = run.model.state_dict()
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in state.items())
    assert (again.classes, again.model.variant) == (run.classes, run.model.variant)
    assert small.stat().st_size < back.stat().st_size
    other = native.load(weights)
    with torch.no_grad():
        other.model.conv1.weight[0, 0, 0, 0] += 1
    native.save(tmp_path / "other.safetensors", other)
    with pytest.raises(CheckpointError, match=r"was trained on another base than .*other\.safetensors: on layers with SHA-256"):
        importer.join(small, tmp_path / "other.safetensors")
    for refused in (native.load, lambda path: importer.import_weights(path, partial=True)):
        with pytest.raises(CheckpointError, match=r"holds only the layers that were trained.*--base WEIGHTS"):
            refused(small)
    with pytest.raises(CheckpointError, match="is not a file of trained layers"):
        importer.join(weights, weights)


def test_trained_layers_on_a_base_of_tensors_alone(convolutions: Path, store: Store, tmp_path: Path, capsys: Any) -> None:
    """The base does not say its variant, the trained layers do: the printed command works."""
    run = tmp_path / "run"
    train(recipe(convolutions, variant="caffe", input_size=67), store, run)
    main(["export", str(run), "--to", "safetensors", "--head-only"])
    command = shlex.split(capsys.readouterr().err.splitlines()[-1].removeprefix("Next: alexnet "))
    assert command[-4:] == ["--base", str(convolutions), "-o", "whole.safetensors"]
    main([*command[:-1], str(tmp_path / "whole.safetensors")])
    again = native.load(tmp_path / "whole.safetensors").model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in native.load(run).model.state_dict().items())


def test_doctor(weights: Path, store: Store) -> None:
    """It examines the network as it begins, with a last layer that is drawn."""
    diagnosis = examine(recipe(weights, tune="all"), store)
    assert all(np.isfinite(diagnosis.trial)) and diagnosis.trial[-1] < diagnosis.trial[0] and diagnosis.causes == ()
    assert {layer.name for layer in diagnosis.layers} >= {"conv1", "fc8"}
