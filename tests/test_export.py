"""Every target, int8 with its loss told, and refusals that write nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet import AlexNet, __version__, engines
from alexnet import export as exporting
from alexnet.data.store import Store
from alexnet.errors import CheckpointError, OutputError, UsageError
from alexnet.evaluate import evaluate_classifier
from alexnet.export import check_destination, destination, export
from alexnet.quantise import has_vnni, quantise
from alexnet.train import recipes
from alexnet.train.loop import train
from alexnet.trained import Trained
from alexnet.variants import get_variant
from alexnet.weights import native
from alexnet.weights.importer import default_classes, import_weights, published_preprocessing

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def learned(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """It tells the three colours apart."""
    recipe = recipes.get_recipe("laptop", width=1 / 8, epochs=10, batch_size=10, lr=0.02, compile="off", device="cpu")
    trained = train(recipe, store, tmp_path_factory.mktemp("export") / "run")
    assert trained.state["errors"][-1] < 0.1
    return trained


def fresh(variant: str, **changes) -> Trained:
    chosen = get_variant(variant, width=1 / 16, num_classes=10, **changes)
    return Trained(AlexNet(chosen).eval(), default_classes(chosen), published_preprocessing(chosen), {}, {})


def ranges(model: "onnx.ModelProto") -> dict[str, tuple[int, int]]:
    """Smallest and largest of each quantised weight."""
    arrays = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    return {name: (int(a.min()), int(a.max())) for name, a in arrays.items() if a.dtype == np.int8 and a.ndim > 1}


def test_int8_is_small_and_as_good(learned: Trained, store: Store, tmp_path: Path) -> None:
    lines = export(learned, "onnx", tmp_path / "int8.onnx", int8=True, store=store)
    export(learned, "onnx", tmp_path / "fp32.onnx")
    assert lines[0].startswith("top-1 error on 18 held-out pictures: 0.00% (95% interval 0.00% to 17.59%) in float32, ")
    assert "only 18 test pictures" in lines[1]
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("int8", "fp32")]
    assert sizes[0] < 0.35 * sizes[1]
    for engine in engines.SERVING:
        int8 = engines.load(tmp_path / "int8.onnx", engine)
        assert evaluate_classifier(int8, store).top1_error <= evaluate_classifier(engines.of(learned), store).top1_error + 0.01
        records = torch.from_numpy(np.array(store.held_out.records))
        x = learned.preprocessing.view(records, *learned.preprocessing.views(1)[0])
        expected, found = learned.model(x).detach(), int8.network(x)
        # Eight bits of the largest value: 1/256 a layer, eight layers; without any effect of
        # quantising it would be 1e-6.
        assert 1e-4 < float((found - expected).norm() / expected.norm()) < 0.05
    x = quantise(learned, store)
    kinds = [node.op_type for node in x.graph.node]
    assert "QuantizeLinear" in kinds
    assert (x.producer_name, x.producer_version) == ("alexnet", __version__)  # not the quantiser's
    assert len(ranges(x)) == 8
    scales = {entry.name: entry for entry in x.graph.initializer if entry.name == "conv1.weight_scale"}
    assert list(scales["conv1.weight_scale"].dims) == [12]  # one scale for each kernel


def test_int8_is_no_source_of_weights(learned: Trained, store: Store, tmp_path: Path) -> None:
    export(learned, "onnx", tmp_path / "int8.onnx", int8=True, store=store)
    with pytest.raises(CheckpointError, match=r"int8\.onnx.*rounded to whole numbers \(int8\); import the float32 network"):
        import_weights(tmp_path / "int8.onnx")


def test_seven_bits_without_vnni(learned: Trained, store: Store) -> None:
    assert all(low >= -64 and high <= 64 for low, high in ranges(quantise(learned, store, seven_bits=True)).values())
    assert any(high == 127 for _, high in ranges(quantise(learned, store, seven_bits=False)).values())
    assert isinstance(has_vnni(), bool)


def test_too_much_lost_is_refused(learned: Trained, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quantiser that spoils fc8."""

    def spoiled(trained: Trained, store: Store) -> "onnx.ModelProto":
        model = quantise(trained, store)
        for entry in model.graph.initializer:
            if entry.name == "fc8.weight_quantized":
                array = onnx.numpy_helper.to_array(entry)
                entry.CopyFrom(onnx.numpy_helper.from_array(np.roll(array, 1, axis=0), entry.name))
        return model

    monkeypatch.setattr(exporting, "quantise", spoiled)
    with pytest.raises(CheckpointError, match=r"int8 lost .* points, more than 1\. Nothing was written; add --allow-loss"):
        export(learned, "onnx", tmp_path / "x.onnx", int8=True, store=store)
    assert not list(tmp_path.iterdir())
    assert export(learned, "onnx", tmp_path / "x.onnx", int8=True, store=store, allow_loss=True)
    assert (tmp_path / "x.onnx").exists()


def test_int8_with_preprocessing(learned: Trained, store: Store, tmp_path: Path) -> None:
    """Pixels in, probabilities out, in integers between."""
    export(learned, "onnx", tmp_path / "whole.onnx", int8=True, with_preprocessing=True, store=store)
    export(learned, "onnx", tmp_path / "plain.onnx", int8=True, store=store)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 100, 80, 3), np.uint8)
    found = ort.InferenceSession(tmp_path / "whole.onnx").run(None, {"image": pixels})[0]
    export(learned, "onnx", tmp_path / "float.onnx", with_preprocessing=True)
    expected = ort.InferenceSession(tmp_path / "float.onnx").run(None, {"image": pixels})[0]
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert found.shape == (2, 3)
    export(learned, "openvino", tmp_path / "whole.xml", int8=True, with_preprocessing=True, store=store)
    compiled = openvino.compile_model(tmp_path / "whole.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled([pixels])[0], expected, atol=0.05)


def test_openvinos_file_is_float32(learned: Trained, tmp_path: Path) -> None:
    export(learned, "openvino", tmp_path / "x.xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bin", "x.xml"]
    assert (tmp_path / "x.bin").stat().st_size >= 4 * learned.model.variant.parameters


@pytest.mark.parametrize(
    ("target", "variant", "changes", "reason"),
    [
        ("torchvision", "caffe", {}, "torchvision's alexnet has towers = 1, but this network has 2"),
        ("torchvision", "owt", {}, "conv1_padding"),
        ("caffe", "paper", {}, "conv1_padding is"),
        ("caffe", "code-2012", {}, "Caffe cannot hold"),
        ("caffe", "torchvision", {}, "its scale is"),
        ("npy", "caffenet", {}, "block1"),
        ("npy", "paper", {}, "conv1_padding"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path: Path, target: str, variant: str, changes: dict, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        export(fresh(variant, **changes), target, tmp_path / f"x{exporting.ENDINGS[target]}")
    assert not list(tmp_path.iterdir())


def test_wishes_that_do_not_fit(tmp_path: Path, store: Store) -> None:
    net = fresh("torchvision")
    for wish in ({"int8": True, "store": store}, {"with_preprocessing": True}):
        with pytest.raises(UsageError, match="works with --to onnx and --to openvino only"):
            export(net, "torchvision", tmp_path / "x.pth", **wish)
    with pytest.raises(UsageError, match="name a store with --data"):
        export(net, "onnx", tmp_path / "x.onnx", int8=True)
    with pytest.raises(OutputError, match=r"x\.bin\) must end in \.onnx for onnx"):
        export(net, "onnx", tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match="other classes"):
        export(net, "onnx", tmp_path / "x.onnx", int8=True, store=store)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["safetensors", "torchvision", "npy", "onnx", "openvino"])
def test_a_full_disk(tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stood there before stays, and nothing is left beside it."""
    net = fresh("torchvision" if target == "torchvision" else "caffe")
    path = tmp_path / f"x{exporting.ENDINGS[target]}"
    path.write_text("before")

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"could not be written.*No space left"):
        export(net, target, path)
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir() if found.suffix != ".bin"] == [path.name]


def test_int8_for_openvino_knows_its_classes(learned: Trained, store: Store, tmp_path: Path) -> None:
    """The quantiser leaves an entry of its own in the metadata."""
    export(learned, "openvino", tmp_path / "int8.xml", int8=True, store=store)
    found = engines.load(tmp_path / "int8.xml")
    assert found.classes == learned.classes
    assert evaluate_classifier(found, store).top1_error <= 0.1


def test_checkpoints_are_not_overwritten(learned: Trained, tmp_path: Path) -> None:
    """A run's latest checkpoint holds the optimiser's state; an export over it would end the
    run.
    """
    run = tmp_path / "run"
    run.mkdir()
    native.save(run / "latest.safetensors", replace(learned, extra={"velocity.fc8.bias": torch.zeros(3)}))
    native.save(run / "best.safetensors", learned)
    with pytest.raises(OutputError, match="is the file that is being exported"):
        check_destination(run, run / "latest.safetensors")
    with pytest.raises(OutputError, match="which is needed to resume it"):
        check_destination(run / "best.safetensors", run / "latest.safetensors")
    check_destination(run, run / "alexnet.onnx")


def test_where_it_goes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert destination(run, "onnx") == run / "alexnet.onnx"
    assert destination(run, "onnx", int8=True) == run / "alexnet-int8.onnx"
    assert destination(run, "onnx", with_preprocessing=True) == run / "alexnet-pixels.onnx"
    assert destination(run / "best.safetensors", "torchvision") == run / "best.pth"
    assert destination(run / "best.safetensors", "safetensors") == run / "best-plain.safetensors"


def test_a_checkpoint_loses_its_training_state(learned: Trained, tmp_path: Path) -> None:
    export(learned, "safetensors", tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_size < 4.2 * learned.model.variant.parameters + 2e5


def test_options_that_would_do_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data is used only with --precision int8"):
        export(fresh("caffe"), "onnx", tmp_path / "x.onnx", store=store)
    with pytest.raises(UsageError, match="--allow-loss is used only with --precision int8"):
        export(fresh("caffe"), "onnx", tmp_path / "x.onnx", allow_loss=True)


def test_openvino_into_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"x\.xml could not be written"):
        export(fresh("caffe"), "openvino", tmp_path / "none" / "x.xml")
