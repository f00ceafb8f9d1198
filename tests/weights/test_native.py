"""Our own file: it goes round to the bit, and a bad one is refused with the reason."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from alexnet import AlexNet, engines
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError, OutputError, UsageError
from alexnet.export import export
from alexnet.trained import Trained
from alexnet.variants import get_variant
from alexnet.weights import importer, native
from alexnet.weights.importer import import_weights


@pytest.fixture
def trained() -> Trained:
    """A tiny caffe with odd preprocessing, so that a default in its place would show."""
    variant = get_variant("caffe", width=1 / 16, input_size=67, num_classes=3)
    model = AlexNet(variant).eval()
    preprocessing = Preprocessing(80, 67, "squash", True, torch.rand(3, 80, 80), torch.tensor([1.0, 2.0, 3.0]))
    return Trained(model, ("a", "b", "ç"), preprocessing, {"velocity.x": torch.ones(3)}, {"epoch": 4, "errors": [0.5]})


def test_round_trip(trained: Trained, tmp_path: Path) -> None:
    native.save(tmp_path / "x.safetensors", trained)
    back = native.load(tmp_path / "x.safetensors")
    assert back.model.variant == trained.model.variant
    assert (back.classes, back.state) == (trained.classes, trained.state)
    assert all(torch.equal(value, back.model.state_dict()[name]) for name, value in trained.model.state_dict().items())
    assert torch.equal(back.extra["velocity.x"], trained.extra["velocity.x"])
    first, second = trained.preprocessing, back.preprocessing
    assert torch.equal(first.mean, second.mean) and torch.equal(first.scale, second.scale)
    assert (second.stored_size, second.input_size, second.resize, second.bgr) == (80, 67, "squash", True)
    assert not back.model.training


def test_every_variant_goes_round(tmp_path: Path, trained: Trained) -> None:
    for name in ("paper", "code-2012", "caffenet", "owt", "torchvision"):
        model = AlexNet(get_variant(name, width=1 / 16, input_size=67, num_classes=3))
        native.save(tmp_path / "x.safetensors", replace(trained, model=model))
        assert native.load(tmp_path / "x.safetensors").model.variant == model.variant


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        native.load(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"has no latest\.safetensors"):
        native.load(tmp_path)


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_cut_short(trained: Trained, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.safetensors"
    native.save(path, trained)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(
        CheckpointError, match=r"damaged or not a safetensors .* `alexnet weights import .* -o weights.safetensors`, .*--from"
    ):
        native.load(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    """A file that would run code if unpickled."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(CheckpointError):
        native.load(path)
    assert not (tmp_path / "ran").exists()


def test_somebody_elses_safetensors(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="that alexnet did not write"):
        native.load(tmp_path / "x.safetensors")


def test_header_and_tensors_disagree(trained: Trained, tmp_path: Path) -> None:
    wrong = json.loads(json.dumps({"format": native.FORMAT}))
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors", wrong)
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged: its header has no entry 'variant'\. Export or"):
        native.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("part", "changes", "reason"),
    [
        ("preprocessing", {"stored_size": 10**7}, r"stored_size is 10000000, but must be from 2 to 65536"),
        ("preprocessing", {"stored_size": 81}, r"pictures of 81, which must be even"),
        ("preprocessing", {"input_size": 66}, r"crops of 66 pixels for an input of 67"),
        ("preprocessing", {"resize": "stretch"}, r"resize is 'stretch', but must be 'short-side' or"),
        ("classes", ["a", "b"], r"2 classes for 3 outputs"),
        ("classes", ["a", "b", 3], r"\[2\] is 3, but must be a text"),
        ("variant", {"num_classes": "3"}, r"num_classes is '3', but must be a whole number"),
        (
            "variant",
            {"width": 1 / 2},
            r"has conv1\.weight of shape .*describes a network in which that has shape \(48, ",
        ),
        ("variant", {"width": 1e4}, r"more than 1e\+12"),  # refused before 10^16 bytes are asked for
        ("variant", [1], r"is a list of 1, but must be an object"),
    ],
)
def test_a_header_that_lies(trained: Trained, tmp_path: Path, part: str, changes: Any, reason: str) -> None:
    path = tmp_path / "x.safetensors"
    native.save(path, trained)
    with safe_open(path, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    header[part] = json.dumps({**json.loads(header[part]), **changes} if isinstance(changes, dict) else changes)
    save_file(tensors, path, header)
    with pytest.raises(CheckpointError, match=rf"x\.safetensors.* is damaged: .*{reason}"):
        native.load(path)


@pytest.mark.parametrize(
    ("mean", "reason"),
    [(torch.zeros(2, 2), r"a mean and a scale of \(\(2, 2\)"), (torch.full((3, 1, 1), float("nan")), "NaN or infinite")],
)
def test_a_mean_that_cannot_be(trained: Trained, tmp_path: Path, mean: torch.Tensor, reason: str) -> None:
    native.save(tmp_path / "x.safetensors", replace(trained, preprocessing=replace(trained.preprocessing, mean=mean)))
    with pytest.raises(CheckpointError, match=reason):
        native.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("out", ["no/folder/x.safetensors", "folder.safetensors"])
def test_a_place_that_cannot_be_written(trained: Trained, tmp_path: Path, out: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputError, match=r"could not be written.*Check that the folder exists"):
        native.save(tmp_path / out, trained)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.safetensors"]


def test_weights_that_are_no_numbers(trained: Trained, tmp_path: Path) -> None:
    with torch.no_grad():
        trained.model.fc7.bias[1] = float("nan")
    native.save(tmp_path / "x.safetensors", trained)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: 1 of fc7\.bias's 256 values are NaN"):
        native.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("path", [None, 5, b"x.safetensors", ["x.safetensors"]])
def test_what_is_no_path(trained: Trained, path: Any) -> None:
    for act in (native.load, native.find, engines.load, importer.read, import_weights, lambda path: native.save(path, trained)):
        with pytest.raises(CheckpointError, match=r"path \(=.* must be a path, as a str or a pathlib\.Path, not "):
            act(path)
    with pytest.raises(CheckpointError, match="out .* must be a path"):
        export(trained, "safetensors", path)


def test_arguments_of_other_types(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    native.save(str(path), trained)
    assert native.load(str(path)).classes == trained.classes
    with pytest.raises(CheckpointError, match="trained .* must be Trained, not AlexNet"):
        native.save(path, trained.model)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="trained .* must be Trained, not str"):
        export(str(path), "onnx", tmp_path / "x.onnx")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="store .* must be Store or None, not str"):
        export(trained, "onnx", tmp_path / "x.onnx", int8=True, store="photos.store")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown target 7"):
        export(trained, 7, tmp_path / "x.onnx")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"variant \(=5\) must be str or Variant or None, not int"):
        import_weights(path, 5)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"input_size \(='67'\) must be int or None, not str"):
        import_weights(path, input_size="67")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"classes \(=\['a'\]\) must be a path"):
        import_weights(path, classes=["a"])  # type: ignore[arg-type]
