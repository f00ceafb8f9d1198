"""A run begins in one place: nothing else builds its parts, and a recipe's network is derived
once.
"""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import recipe, same_weights

import alexnet
from alexnet import variants
from alexnet.data.store import Store
from alexnet.errors import Interrupted
from alexnet.run_folder import LATEST
from alexnet.train import loop
from alexnet.train.loop import train
from alexnet.train.optim import SGD
from alexnet.train.recipes import Recipe
from alexnet.train.start import Start
from alexnet.weights import native
from stopping import stop_after

SRC = Path(alexnet.__file__).parent
CPU = torch.device("cpu")
PARTS = {"AlexNet", "SGD", "Loader", "Augmentation", "Augmentation.of", "Preprocessing.of"}
#: What another file may call, and why it begins no run by that.
OTHERWISE = {
    ("train/steps/check.py", "AlexNet"): "weights to check the kernels with, whatever the run's are",
    ("train/tune/begin.py", "AlexNet"): "draws the layers that a file of weights lacks",
    ("bench.py", "Augmentation"): "noise has no statistics to take the colours from",
}


def calls(path: Path) -> set[str]:
    """Names called in a file, as written, with at most one dot."""
    called = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {ast.unparse(function) for function in called if isinstance(function, ast.Name | ast.Attribute)}


def test_nothing_else_builds_what_a_run_begins_with() -> None:
    files = [*SRC.glob("train/**/*.py"), *SRC.glob("study/*.py"), SRC / "bench.py"]
    found = {(str(path.relative_to(SRC)), name) for path in files for name in calls(path) & PARTS}
    assert {name for file, name in found if file == "train/start.py"} >= PARTS - {"Augmentation"}
    assert {pair for pair in found if pair[0] != "train/start.py"} == set(OTHERWISE)


@pytest.mark.parametrize("resume", [False, True])
def test_a_network_is_derived_once(resume: bool, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its recipe, for the store's three classes; a recipe is checked with
    two, wherever one is made.
    """
    asked = recipe(epochs=1)
    if resume:
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            stop_after(patch, SGD, "step", 2)
            train(asked, store, tmp_path / "run")
    network, by_name, derived, named = Recipe.network, variants.get_variant, [], []

    def counted(self: Recipe, num_classes: int) -> variants.Variant:
        derived.append(num_classes)
        return network(self, num_classes)

    def looked_up(variant: Any, **changes: Any) -> variants.Variant:
        named.append(changes.get("num_classes"))
        return by_name(variant, **changes)

    monkeypatch.setattr(Recipe, "network", counted)
    monkeypatch.setattr(variants, "get_variant", looked_up)
    train(asked, store, tmp_path / "run", resume=resume)
    assert [classes for classes in derived if classes != 2] == [3]
    assert [classes for classes in named if classes != 2] == [3]


def test_the_loop_is_short() -> None:
    """The algorithm is read from top to bottom: at most 40 lines, loops and
    conditions at most three deep.
    """
    for node in ast.parse(Path(loop.__file__).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 40, node.name
            assert depth(node) <= 3, node.name


def depth(node: ast.AST) -> int:
    """How deep loops, conditions and `with` are nested in a node."""
    inner = max((depth(child) for child in ast.iter_child_nodes(node)), default=0)
    return inner + isinstance(node, ast.For | ast.While | ast.If | ast.With | ast.Try)


def test_fresh(store: Store) -> None:
    """The seed alone decides the weights; all parts are of one network and one store."""
    first, again, other = (Start.fresh(recipe(seed=seed), store, CPU) for seed in (3, 3, 4))
    weights = [start.model.get_parameter("conv1.weight") for start in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert first.variant == recipe().network(3) and first.trained.classes == store.classes
    assert first.augmentation.preprocessing is first.preprocessing
    assert first.optimiser.parameters["fc8.bias"] is first.model.get_parameter("fc8.bias")
    assert first.loader.split is store.train and (first.place.epoch, first.place.step) == (0, 0)
    assert first.in_batches_of(4).loader.batch_size == 4 and first.loader.batch_size == 10


def test_resumed(store: Store, tmp_path: Path) -> None:
    """Weights, velocity and place of the checkpoint; the same run a second time goes on from
    them.
    """
    one = recipe(epochs=1)
    train(one, store, tmp_path / "run")
    start = Start.resumed(one, store, CPU, tmp_path / "run" / LATEST)
    written = native.load(tmp_path / "run")
    assert (start.place.epoch, start.place.step) == (1, 0) and start.place.errors == written.state["errors"]
    assert all(torch.equal(start.optimiser.state()[name], velocity) for name, velocity in written.extra.items())
    assert start.trained.extra == {}
    native.save(tmp_path / "copy.safetensors", replace(start.trained, extra=start.optimiser.state()))
    assert same_weights(tmp_path / "run" / LATEST, tmp_path / "copy.safetensors")
