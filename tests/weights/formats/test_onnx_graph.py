"""Our networks as ONNX: ONNX Runtime and OpenVINO compute what PyTorch computes, from
tensors and from pixels.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from alexnet import AlexNet, engines
from alexnet.arithmetic import LRN, Dropout
from alexnet.data.image import encode
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError
from alexnet.trained import Trained
from alexnet.variants import get_variant, named
from alexnet.weights.formats import onnx_graph
from alexnet.weights.formats.onnx_graph import from_header, header, to_onnx

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

VARIANTS = tuple(named())
CLASSES = tuple("abcdefghij")
Run = Callable[[np.ndarray], np.ndarray]


def make(name: str, mean_image: bool = True, **changes: Any) -> Trained:
    """A narrow network with weights that keep the signal's size (He), so that every
    stage carries it to the end.
    """
    variant = get_variant(name, **{"width": 1 / 8, "num_classes": 10, "input_size": 67, **changes})
    generator = torch.Generator().manual_seed(3)
    model = AlexNet(variant, generator).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 100
            parameter.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    stored = 80 * variant.input_size // 67
    mean = torch.rand(3, stored, stored, generator=generator) * 255
    scale = 1 / torch.tensor([60.0, 50.0, 40.0]) if variant.pixels == "unit" else torch.tensor([1.0, 0.9, 0.8])
    mean = mean if mean_image else mean[:, :1, :1]
    return Trained(
        model,
        CLASSES,
        Preprocessing(stored, variant.input_size, variant.resize, variant.channel_order == "BGR", mean, scale),
        {},
        {},
    )


def onnxruntime(model: Any) -> Run:
    """A function that runs the model in ONNX Runtime."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def vino(model: Any) -> Run:
    """A function that runs the model in OpenVINO; without the hint, CPUs with AMX or
    AVX512-BF16 compute in bfloat16.
    """
    core = engines.openvino_core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    return lambda x: compiled(x)[0]


ENGINES = pytest.mark.parametrize("engine", [onnxruntime, vino])


def picture(batch: int, side: int, seed: int = 0) -> Tensor:
    """Noise as loud as photos, so that the sums under LRN's power are far from k
    (see `test_lrn_matters`).
    """
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 300


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@ENGINES
@pytest.mark.parametrize("name", VARIANTS)
def test_logits(name: str, engine: Callable[[Any], Run]) -> None:
    """float32 on both sides: 3e-7 to 9e-7 was found, 1e-5 is promised. One compiled
    model takes both batches.
    """
    trained = make(name)
    run = engine(to_onnx(trained))
    for batch in (1, 3):
        x = picture(batch, 67, batch)
        with torch.inference_mode():
            expected = trained.model(x).numpy()
        assert difference(run(x.numpy()), expected) < 1e-5


@pytest.mark.parametrize("name", [name for name in VARIANTS if any(isinstance(op, LRN) for op in named()[name].ops())])
def test_lrn_matters(name: str) -> None:
    """The inputs above would show a wrong LRN: it more than halves some values, and towers
    or not makes a difference.
    """
    model = make(name).model
    stages = model.stages(picture(3, 67, 3))
    before = dict(zip(stages, ["x", *stages], strict=False))["norm1"]
    assert (stages["norm1"].abs() < 0.5 * stages[before].abs()).any()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_stage_by_name(name: str) -> None:
    """Stages have their names from `alexnet summary`; all but dropout that is nothing at test."""
    trained = make(name)
    model = to_onnx(trained)
    x = picture(2, 67)
    with torch.inference_mode():
        expected = trained.model.stages(x)
    silent = {op.name for op in trained.model.ops if isinstance(op, Dropout) and op.inverted}
    stages = [name for name in expected if name not in silent]
    model.graph.output.extend(onnx.ValueInfoProto(name=stage) for stage in stages if stage != "fc8")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(zip(stages, session.run(stages, {"x": x.numpy()}), strict=True))
    assert {stage: value.shape for stage, value in found.items()} == {stage: tuple(expected[stage].shape) for stage in stages}
    assert max(difference(found[stage], expected[stage].numpy()) for stage in stages) < 1e-5
    assert [node.name for node in model.graph.node if node.name in expected] == stages


def test_the_file_describes_itself() -> None:
    trained = make("code-2012")
    model = to_onnx(trained)
    onnx.checker.check_model(model, full_check=True)
    onnx.checker.check_model(to_onnx(trained, with_preprocessing=True), full_check=True)
    assert (model.producer_name, model.opset_import[0].version, model.ir_version) == ("alexnet", 17, 8)
    assert {tensor.name for tensor in model.graph.initializer} >= set(trained.model.state_dict())
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "fc8"]
    assert "code-2012" in model.doc_string


def test_zeros_are_a_node_of_their_own() -> None:
    """OpenCV 4 ignores `count_include_pad`: without the node its logits were 2 to 11 % off."""
    model = to_onnx(make("code-2012"))
    (average,) = (node for node in model.graph.node if node.op_type == "AveragePool")
    assert {attribute.name for attribute in average.attribute} == {"kernel_shape", "strides"}
    cv2 = pytest.importorskip("cv2")  # of the extra dev
    network, x = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8)), picture(2, 67)
    network.setInput(x.numpy())
    with torch.inference_mode():
        assert difference(network.forward(), make("code-2012").model(x).numpy()) < 1e-5


# Pixels to probabilities.


def reference(trained: Trained, pixels: np.ndarray) -> np.ndarray:
    """The graph's pipeline in float64: PyTorch's antialiased resize, then the network."""
    preprocessing = trained.preprocessing
    x = torch.from_numpy(pixels).double().permute(0, 3, 1, 2)
    if preprocessing.resize == "short-side":
        height, width = x.shape[2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        x = x[:, :, top : top + side, left : left + side]
    x = F.interpolate(x, (preprocessing.stored_size,) * 2, mode="bilinear", antialias=True)
    x = (x - preprocessing.mean.double()) * preprocessing.scale.double().view(3, 1, 1)
    start, size = (preprocessing.stored_size - preprocessing.input_size) // 2, preprocessing.input_size
    x = x[:, :, start : start + size, start : start + size]
    x = x.flip(1) if preprocessing.bgr else x
    model = AlexNet(trained.model.variant).double().eval()
    model.load_state_dict(trained.model.state_dict())
    with torch.inference_mode():
        return model(x).softmax(1).numpy()


def calm(trained: Trained, pixels: np.ndarray) -> Trained:
    """The same network with fc8 scaled down until the probabilities are far from 0 and 1:
    else they would hide errors.
    """
    with torch.no_grad():
        for parameter in (trained.model.get_parameter("fc8.weight"), trained.model.get_parameter("fc8.bias")):
            parameter.mul_(1e-3)
        while reference(trained, pixels).max() < 0.5:
            for parameter in (trained.model.get_parameter("fc8.weight"), trained.model.get_parameter("fc8.bias")):
                parameter.mul_(1.5)
    return trained


SIZES = [(201, 320), (120, 80), (80, 80), (50, 61), (67, 401), (1, 1)]


@ENGINES
@pytest.mark.parametrize(
    ("name", "changes", "mean_image"),
    [("paper", {}, True), ("caffe", {}, True), ("torchvision", {}, False), ("code-2012", {"channel_order": "BGR"}, False)],
)
def test_pixels_to_probabilities(name: str, changes: dict[str, Any], mean_image: bool, engine: Callable[[Any], Run]) -> None:
    """Wide, tall, smaller than the record, one pixel: one model takes every size; 1e-6 was
    found, 1e-5 is promised.
    """
    rng = np.random.default_rng(5)
    batches = [rng.integers(0, 256, (1 + number % 2, *size, 3), np.uint8) for number, size in enumerate(SIZES)]
    trained = calm(make(name, mean_image, **changes), batches[0])
    run = engine(to_onnx(trained, with_preprocessing=True))
    for pixels in batches:
        np.testing.assert_allclose(run(pixels), reference(trained, pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("resize", ["short-side", "squash"])
def test_a_crop_as_large_as_the_record(resize: Any) -> None:
    trained = make("owt", mean_image=False)
    trained = replace(trained, preprocessing=replace(trained.preprocessing, stored_size=67, resize=resize))
    pixels = np.random.default_rng(6).integers(0, 256, (2, 90, 140, 3), np.uint8)
    trained = calm(trained, pixels)
    found = onnxruntime(to_onnx(trained, with_preprocessing=True))(pixels)
    np.testing.assert_allclose(found, reference(trained, pixels), rtol=0, atol=1e-5)


def test_a_large_photo() -> None:
    """4,000 pixels become 80: the filter's weights are whole numbers up to 8,000, so
    no size costs precision.
    """
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (1, 40, 30, 3), np.uint8)
    pixels = coarse.repeat(100, axis=1).repeat(100, axis=2)
    trained = calm(make("owt"), pixels[:, ::25, ::25].copy())
    found = onnxruntime(to_onnx(trained, with_preprocessing=True))(pixels)
    np.testing.assert_allclose(found, reference(trained, pixels), rtol=0, atol=1e-5)


def test_near_records_on_photos(shared: Path) -> None:
    """What the graph leaves out (whole grey levels, colour at half resolution) moves
    probabilities by a hundredth.
    """
    photos = sorted((shared / "data" / "imagenette-mini" / "val").rglob("*.JPEG"))[::20]
    pixels = [np.array(Image.open(path).convert("RGB"))[None] for path in photos]
    trained = calm(make("torchvision", mean_image=False, input_size=195), pixels[0])
    run = onnxruntime(to_onnx(trained, with_preprocessing=True))
    found = np.concatenate([run(picture) for picture in pixels])
    preprocessing = trained.preprocessing
    records = np.stack([encode(path.read_bytes(), preprocessing.stored_size, preprocessing.resize) for path in photos])
    with torch.inference_mode():
        x = preprocessing.view(torch.from_numpy(records), *preprocessing.views(1)[0])
        expected = trained.model(x).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02)  # 0.008 was found


# The header, and errors.


@pytest.mark.parametrize("name", VARIANTS)
def test_the_header_goes_round(name: str) -> None:
    trained = make(name, mean_image=name != "owt")
    variant, classes, preprocessing = from_header(header(trained))
    assert (variant, classes) == (trained.model.variant, trained.classes)
    assert torch.equal(preprocessing.mean, trained.preprocessing.mean)
    assert torch.equal(preprocessing.scale, trained.preprocessing.scale)
    plain = ("stored_size", "input_size", "resize", "bgr")
    assert all(getattr(preprocessing, name) == getattr(trained.preprocessing, name) for name in plain)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (["format"], "alexnet 99", "format is 'alexnet 99', but must be 'alexnet 1'"),
        (["variant", "name"], "vgg", "unknown variant 'vgg'"),
        (["variant", "lrn_coefficient"], None, "lrn_coefficient is null, but must be a number"),
        (["variant", "block1"], ["conv", "swish"], "block1"),
        (["variant", "towers"], "2", "towers is '2', but must be a whole number"),
        (["variant", "widht"], 1.0, "widht is not a known field"),
        (["classes"], ["a"], "1 classes for 10 outputs"),
        (["preprocessing", "stored_size"], 10**30, "stored_size is a whole number of more than 30 digits, but must fit"),
        (["preprocessing", "stored_size"], 20, "crops of 67 from pictures of 20"),
        (["preprocessing", "input_size"], 66, "crops of 66 pixels for an input of 67"),
        (["preprocessing", "resize"], "stretch", "resize is 'stretch', but must be 'short-side' or 'squash'"),
        (["preprocessing", "bgr"], 1, "bgr is 1, but must be true or false"),
        (["preprocessing", "scale"], {"shape": [3], "data": "AAAA"}, "3 bytes for an array of"),
        (["preprocessing", "scale"], {"shape": [0], "data": ""}, r"scale.shape\[0\] is 0, but must be"),
        (["preprocessing", "scale"], {"shape": [1], "data": "AAAAAA=="}, "a mean and a scale of"),
        (["preprocessing", "scale", "data"], "é", "are not base64"),
        (["preprocessing", "filter"], "box", "filter is 'box', but must be 'bilinear, antialiased'"),
        (["preprocessing"], 7, "preprocessing is 7, but must be an object"),
    ],
)
def test_bad_headers(place: list[str], value: Any, reason: str) -> None:
    content = json.loads(header(make("paper")))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(CheckpointError, match=reason) as caught:
        from_header(json.dumps(content))
    assert "metadata is damaged: " in str(caught.value)


def test_a_header_of_our_first_files() -> None:
    """They did not name the filter, and their variants may lack a field of today's."""
    trained = make("caffe", lrn_k=1.5)
    content = json.loads(header(trained))
    assert content["preprocessing"].pop("filter") == "bilinear, antialiased"
    assert content["variant"].pop("resize") == "squash"
    variant, classes, _ = from_header(json.dumps(content))
    assert (variant, classes) == (trained.model.variant, trained.classes)


@pytest.mark.parametrize("text", ["", "[", "[]", "null", "[" * 100_000, "1" * 5000, '{"format": "alexnet 1"}'])
def test_no_header_at_all(text: str) -> None:
    with pytest.raises(
        CheckpointError, match="the entry 'alexnet' of its metadata is damaged: .*Export or download the file again"
    ):
        from_header(text)


def test_saved_whole(tmp_path: Path) -> None:
    trained = make("paper")
    (tmp_path / "net.onnx").write_bytes(to_onnx(trained).SerializeToString())
    assert onnx.load(tmp_path / "net.onnx") == to_onnx(trained)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_weights_in_any_form_are_written_as_float32() -> None:
    """channels_last is how checkpoints are loaded; the bytes in the file are in C, H, W order."""
    trained = make("paper")
    expected = to_onnx(trained)
    trained.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert to_onnx(trained) == expected


def test_a_network_too_large_for_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match="at most 2 GB"):
        to_onnx(make("paper"))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CheckpointError, match=r"pip install 'alexnet\[serve\]'"):
        to_onnx(make("paper"))
