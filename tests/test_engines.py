"""Every engine gives PyTorch's answer, and files know their preprocessing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alexnet import AlexNet, engines
from alexnet.data.preprocessing import Preprocessing
from alexnet.data.store import Store
from alexnet.errors import CheckpointError
from alexnet.evaluate import evaluate_classifier
from alexnet.export import export
from alexnet.fused import Fused
from alexnet.predict import predict
from alexnet.run_folder import LATEST
from alexnet.trained import Trained
from alexnet.variants import get_variant
from alexnet.weights import native
from conftest import write_photos

SERVING = [
    pytest.param(name, marks=pytest.mark.skipif(not engines.find_spec(name), reason=f"{name} is not installed"))
    for name in engines.SERVING
]


@pytest.fixture(scope="module")
def trained(store: Store) -> Trained:
    variant = get_variant("code-2012", width=1 / 16, input_size=64, num_classes=3, init="he")
    net = AlexNet(variant, torch.Generator().manual_seed(0)).eval()
    return Trained(net, store.classes, Preprocessing.of(variant, store), {}, {})


@pytest.mark.parametrize("engine", SERVING)
@pytest.mark.parametrize("n", [1, 3, 32])
def test_the_same_logits(trained: Trained, engine: str, n: int) -> None:
    x = 60 * torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(n))
    expected = trained.model(x).detach()
    found = engines.of(trained, engine).network(x)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("engine", SERVING)
def test_a_result_outlives_the_next_one(trained: Trained, engine: str) -> None:
    """An engine's own buffer is not handed out."""
    network = engines.of(trained, engine).network
    first = network(torch.full((2, 3, 64, 64), 50.0))
    kept = first.clone()
    network(torch.full((2, 3, 64, 64), -50.0))
    assert torch.equal(first, kept)


@pytest.mark.parametrize("engine", SERVING)
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_exported_files_predict_alike(trained: Trained, store: Store, tmp_path: Path, engine: str, target: str) -> None:
    if (engine, target) == ("onnxruntime", "openvino"):
        path = tmp_path / "x.xml"
        export(trained, "openvino", path)
        with pytest.raises(CheckpointError, match=r"'onnxruntime'\) cannot run this kind of file: use openvino"):
            engines.load(path, engine)
        return
    path = tmp_path / ("x.onnx" if target == "onnx" else "x.xml")
    export(trained, target, path)
    photos = write_photos(tmp_path / "photos", 2)
    files = sorted(map(str, photos.rglob("*.jpg")))
    expected = list(predict(engines.of(trained), files))
    found = list(predict(engines.load(path, engine), files))
    for ours, theirs in zip(expected, found, strict=True):
        assert dict(theirs.top) == pytest.approx(dict(ours.top), abs=1e-5)
    assert (
        evaluate_classifier(engines.load(path, engine), store).top1_error
        == evaluate_classifier(engines.of(trained), store).top1_error
    )


def test_the_default_is_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"torch"}
    monkeypatch.setattr(engines, "find_spec", lambda name: name if name in there else None)
    assert engines.choose("auto") == "torch"
    there.add("onnxruntime")
    assert engines.choose("auto") == "onnxruntime"
    there.add("openvino")
    assert engines.choose("auto") == "openvino"
    assert engines.choose("torch") == "torch"
    there.remove("openvino")
    with pytest.raises(CheckpointError, match=r"'openvino'\) is not installed: pip install 'alexnet\[serve\]'"):
        engines.choose("openvino")


def test_a_run_and_a_file_load_on_any_engine(trained: Trained, tmp_path: Path) -> None:
    native.save(tmp_path / LATEST, trained)
    x = torch.randn(2, 3, 64, 64) * 50
    for path in (tmp_path, tmp_path / LATEST):
        for name in ("torch", *(name for name in engines.SERVING if engines.find_spec(name))):
            classifier = engines.load(path, name)
            assert (classifier.engine, classifier.classes) == (name, trained.classes)
            np.testing.assert_allclose(classifier.network(x).detach(), trained.model(x).detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x07\x12\x00"])
@pytest.mark.parametrize("ending", ["onnx", "xml"])
def test_foreign_files(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged|lacks alexnet's metadata"):
        engines.load(path)


def test_preprocessing_inside_is_refused(trained: Trained, tmp_path: Path) -> None:
    export(trained, "onnx", tmp_path / "x.onnx", with_preprocessing=True)
    with pytest.raises(CheckpointError, match="has its preprocessing in the graph"):
        engines.load(tmp_path / "x.onnx")


@pytest.mark.parametrize("engine", SERVING)
def test_a_damaged_graph(trained: Trained, tmp_path: Path, engine: str) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "x.onnx"
    export(trained, "onnx", path)
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match=rf"x\.onnx is damaged: {engine} cannot run it"):
        engines.load(path, engine)
    model.metadata_props[0].value = "{"
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match=r"x\.onnx: the entry 'alexnet' of its metadata is damaged"):
        engines.load(path, engine)


def test_openvinos_weights_are_missing(trained: Trained, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    export(trained, "openvino", tmp_path / "x.xml")
    (tmp_path / "x.bin").unlink()
    with pytest.raises(CheckpointError, match=r"its weights, x\.bin, must be in the same folder"):
        engines.load(tmp_path / "x.xml")


def test_without_onnx_auto_is_pytorch(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO alone cannot be handed a network in memory."""
    monkeypatch.setattr(engines, "find_spec", lambda name: name in ("openvino", "torch"))
    assert engines.of(trained, "auto").engine == "torch"


INTERRUPTED = """
import faulthandler, os, signal
faulthandler.enable()
from alexnet import AlexNet, engines
from alexnet.variants import get_variant
from alexnet.weights.importer import default_classes, published_preprocessing
from alexnet.weights.native import Trained
variant = get_variant("caffe", width=1 / 16, num_classes=3)
trained = Trained(AlexNet(variant).eval(), default_classes(variant), published_preprocessing(variant), {}, {})
first, second = (engines.of(trained, "openvino") for _ in range(2))
del first
del second
signal.signal(signal.SIGINT, lambda *_: print("interrupted"))
os.kill(os.getpid(), signal.SIGINT)
"""


def test_ctrl_c_after_two_networks_on_openvino() -> None:
    """Each with a Core of its own left the process a stack for signals that is no more."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


# --- the GPU's kernels ----------------------------------------------------------------------------


def test_kernels_are_trusted_where_they_agree(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    """On a CPU they are their reference; logits of float32 sums in another order, the second
    batch's by the kernels.
    """
    model = trained.model.eval()
    size, calls = model.variant.input_size, []

    def fused(x: Tensor) -> Tensor:
        calls.append(len(x))
        return Fused(model)(x)

    network, plain = engines.trusted(fused, engines.eager(model)), engines.eager(model)
    with torch.no_grad():
        for count in (2, 3, 4):
            x = torch.randn(count, 3, size, size)
            torch.testing.assert_close(network(x), plain(x), rtol=1e-4, atol=1e-4)
    assert calls == [2, 3, 4] and not capsys.readouterr().err
    assert engines.fastest(model)(x).shape == (4, model.variant.num_classes)


@pytest.mark.parametrize("broken", [lambda y: 1.1 * y, lambda y: y * torch.nan, lambda y: y.view(-1, 10**9)])
def test_kernels_that_are_wrong_are_left(
    trained: Trained, broken: Callable[[Tensor], Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained.model.eval()
    plain = engines.eager(model)
    network = engines.trusted(lambda x: broken(plain(x)), plain)
    with torch.no_grad():
        x = torch.randn(2, 3, model.variant.input_size, model.variant.input_size)
        assert torch.equal(network(x), plain(x)) and torch.equal(network(x), plain(x))
    told = capsys.readouterr().err
    assert told.count("The GPU kernels are not used") == 1


def test_kernels_are_looked_at_for_each_size_of_batch(capsys: pytest.CaptureFixture[str]) -> None:
    """They are chosen by size; numbers that are not finite, on both sides, are the network's
    own.
    """

    def plain(x: Tensor) -> Tensor:
        return x / x[:, :1]

    network = engines.trusted(lambda x: plain(x) * (len(x) < 8), plain)
    for count in (2, 9, 9):
        x = torch.rand(count, 3) + 1
        assert torch.equal(network(x), plain(x))
    assert capsys.readouterr().err.count("are not used for 9 pictures") == 1
    zeros = torch.zeros(2, 3)
    assert engines.trusted(plain, plain)(zeros).isnan().all() and not capsys.readouterr().err


@pytest.mark.parametrize("path", [None, 3, b"run", ["run"]])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^path \(=.*\) must be a path"):
        engines.load(path)
