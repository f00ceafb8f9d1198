"""What proves a run: whatever is changed afterwards is found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet import engines
from alexnet.data.store import Store
from alexnet.errors import CheckpointError, StoreError
from alexnet.evaluate import evaluate_classifier
from alexnet.train import recipes, result
from alexnet.train.loop import train
from alexnet.train.result import read_result, verify_run, weights_hash
from alexnet.weights import native

SMALL: dict[str, Any] = {"width": 1 / 8, "epochs": 1, "batch_size": 10, "lr": 0.005, "compile": "off", "device": "cpu"}


@pytest.fixture(scope="module")
def finished(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(recipes.get_recipe("laptop", **SMALL), store, folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_is_recorded(finished: Path, store: Store) -> None:
    recorded, trained = read_result(finished), native.load(finished)
    expected = evaluate_classifier(engines.of(trained), store)
    assert recorded["evaluation"]["top1_error"] == expected.top1_error
    assert recorded["evaluation"]["top1_wrong"] == expected.images - expected.confusion.trace()
    assert recorded["weights"]["sha256"] == weights_hash(trained.model.state_dict())
    assert recorded["store"]["fingerprint"] == store.fingerprint
    assert recorded["environment"]["torch"] == torch.__version__
    assert verify_run(finished) == []


def test_hash() -> None:
    """Equal for equal parameters in whatever order and memory format; not for another
    name, shape, type or bit.
    """
    tensor = torch.arange(24.0).view(2, 3, 2, 2)
    plain = weights_hash({"a": tensor, "b": torch.ones(2)})
    assert plain == weights_hash({"b": torch.ones(2), "a": tensor.contiguous(memory_format=torch.channels_last)})
    others = [{"c": tensor}, {"a": tensor.view(3, 2, 2, 2)}, {"a": tensor.double()}, {"a": torch.nextafter(tensor, tensor + 1)}]
    assert len({plain, *(weights_hash({"b": torch.ones(2), **other}) for other in others)}) == 5


def test_one_changed_weight(run: Path) -> None:
    trained = native.load(run)
    with torch.no_grad():
        trained.model.fc8.bias[0] = torch.nextafter(trained.model.fc8.bias[0], torch.tensor(1.0))
    native.save(run / "latest.safetensors", trained)
    (found,) = verify_run(run)  # too little to change an answer, but not the same weights
    assert "holds other weights: SHA-256" in found


@pytest.mark.parametrize("name", ["config.json", "environment.json", "log.jsonl"])
def test_changed_files(run: Path, name: str) -> None:
    (run / name).write_text((run / name).read_text() + " ")
    assert verify_run(run) == [f"{name} is missing or has changed since the run ended"]
    (run / name).unlink()
    assert verify_run(run) == [f"{name} is missing or has changed since the run ended"]


def test_changed_checkpoints(run: Path) -> None:
    """Those beside the latest one are hashed whole."""
    best = run / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-1] + b"?")
    assert verify_run(run) == ["best.safetensors is missing or has changed since the run ended"]


def test_a_better_number(run: Path) -> None:
    images = read_result(run)["evaluation"]["images"]
    edit(run / "result.json", lambda content: content["evaluation"].update(top1_wrong=3, top1_error=3 / images))
    wrong = verify_run(run)
    assert len(wrong) == 1 and f"of {images} pictures, recorded 3 (0 may differ in the same environment)" in wrong[0]
    edit(run / "result.json", lambda content: content["evaluation"].update(top1_error=0.5, top5_error=0.5))
    assert [line for line in verify_run(run) if "is recorded as 0.5, which is not" in line] == verify_run(run)[1:]
    assert len(verify_run(run)) == 3


def test_elsewhere_one_picture_in_a_thousand_may_differ(run: Path) -> None:
    """At least one. Here, none."""
    wrong = read_result(run)["evaluation"]["top1_wrong"]
    images = read_result(run)["evaluation"]["images"]
    by_one = wrong - 1 if wrong else 1
    edit(run / "result.json", lambda content: content["evaluation"].update(top1_wrong=by_one, top1_error=by_one / images))
    assert verify_run(run)
    edit(run / "result.json", lambda content: content["environment"].update(processor="another"))
    assert verify_run(run) == []
    by_two = by_one - 1 if wrong else 2
    edit(run / "result.json", lambda content: content["evaluation"].update(top1_wrong=by_two, top1_error=by_two / images))
    assert "(1 may differ in another environment)" in verify_run(run)[0]


def test_another_store(run: Path, store: Store, tmp_path: Path) -> None:
    other = Path(shutil.copytree(store.folder, tmp_path / "store"))
    assert verify_run(run, other) == []  # a copy is the same store
    edit(other / "manifest.json", lambda content: content["statistics"]["mean_colour"].__setitem__(0, 1.0))
    (found,) = verify_run(run, other)
    assert "is another data set" in found and "name that one with --data" in found
    edit(run / "result.json", lambda content: content["store"].update(folder=str(tmp_path / "gone")))
    with pytest.raises(StoreError, match="no such folder exists"):
        verify_run(run)


def test_unfinished_and_damaged(run: Path) -> None:
    (run / "result.json").write_text('{"weights": {}}')
    with pytest.raises(CheckpointError, match=r"result.json is damaged"):
        verify_run(run)
    (run / "result.json").unlink()
    with pytest.raises(CheckpointError, match="the run is not finished. To continue it"):
        verify_run(run)


def test_killed_before_the_result_was_written(run: Path, store: Store) -> None:
    """--resume of a run that had trained to its end makes up for it, with the same content."""
    before = read_result(run)
    (run / "result.json").unlink()
    train(recipes.get_recipe("laptop", **SMALL), store, run, resume=True)
    assert read_result(run) == before
    assert result.verify_run(run) == []
