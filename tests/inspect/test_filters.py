"""conv1's kernels are the same pictures from whatever file they come, whole or not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor

from alexnet import AlexNet
from alexnet.cli import main
from alexnet.errors import CheckpointError
from alexnet.export import ENDINGS, export
from alexnet.inspect.filters import first_layer, pictures, read
from alexnet.trained import Trained
from alexnet.variants import get_variant
from alexnet.weights import importer, native
from alexnet.weights.formats import caffe_write


def network(variant: str) -> Trained:
    chosen = get_variant(variant, width=1 / 16, input_size=67, num_classes=3)
    model = AlexNet(chosen, torch.Generator().manual_seed(0)).eval()
    preprocessing = importer.published_preprocessing(chosen)
    return Trained(model.requires_grad_(False), ("a", "b", "c"), preprocessing, {}, {})


@pytest.fixture(scope="module")
def caffe() -> Trained:
    return network("caffe")


def by_hand(weight: Tensor, towers: int, bgr: bool) -> np.ndarray:
    """As the docstring says, kernel by kernel."""
    kernels = []
    for kernel in weight.numpy():
        kernel = np.stack([kernel[channel] for channel in ((2, 1, 0) if bgr else (0, 1, 2))], axis=-1)
        kernels.append((kernel - kernel.min()) / (kernel.max() - kernel.min()))
    return np.array(np.split(np.array(kernels), towers))


def test_pictures() -> None:
    weight = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    for towers, bgr in ((1, False), (2, True), (3, False)):
        np.testing.assert_allclose(pictures(weight, towers, bgr), by_hand(weight, towers, bgr), atol=1e-6)
    assert pictures(weight).min() == 0 and pictures(weight).max() == 1
    grey = pictures(weight, grey=True)
    assert np.array_equal(grey[..., 0], grey[..., 2])
    np.testing.assert_allclose(grey, pictures(weight.sum(1, keepdim=True)), atol=1e-6)  # one channel is grey
    assert (pictures(torch.zeros(2, 3, 5, 5)) == 0.5).all()  # a dead kernel


@pytest.mark.parametrize("shape", [(6, 4, 5, 5), (6, 75), (0, 3, 5, 5), (6, 3, 0, 5), (6, 3, 5)])
def test_odd_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "x.npz", **{"conv1.weight": np.ones(shape, np.float32)})
    with pytest.raises(CheckpointError, match=r"x\.npz.*conv1\.weight(\.npy)? (has shape|claims)"):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 3, 3, 7), (64, 3, 11, 11), (97, 1, 2, 2)])
def test_other_shapes_are_drawn(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "x.npz", **{"conv1.weight": np.random.default_rng(0).normal(size=shape).astype(np.float32)})
    main(["filters", str(tmp_path / "x.npz"), "-o", str(tmp_path / "x.png")])
    assert (tmp_path / "x.png").stat().st_size > 100


@pytest.mark.parametrize("target", ["safetensors", "caffe", "npy", "onnx"])
def test_every_format(caffe: Trained, tmp_path: Path, target: str) -> None:
    expected = by_hand(caffe.model.state_dict()["conv1.weight"], 2, True)
    np.testing.assert_allclose(first_layer(caffe.model), expected, atol=1e-6)
    path = tmp_path / f"x{ENDINGS[target]}"
    export(caffe, target, path)
    found = read(path)
    np.testing.assert_allclose(found.kernels, expected, atol=1e-6)
    assert not any("assumed" in note for note in found.notes)
    with pytest.raises(CheckpointError, match="is not 'torchvision'|drop --bgr"):
        read(_rgb(tmp_path), bgr=True)


def _rgb(folder: Path) -> Path:
    export(network("torchvision"), "torchvision", folder / "rgb.pth")
    return folder / "rgb.pth"


def test_torchvisions(tmp_path: Path) -> None:
    net = network("torchvision")
    found = read(_rgb(tmp_path))
    np.testing.assert_allclose(found.kernels, by_hand(net.model.state_dict()["conv1.weight"], 1, False), atol=1e-6)
    assert found.notes == ()


def test_a_runs_folder(caffe: Trained, tmp_path: Path) -> None:
    native.save(tmp_path / "latest.safetensors", caffe)
    assert np.array_equal(read(tmp_path).kernels, first_layer(caffe.model))


def test_what_the_file_does_not_say(caffe: Trained, tmp_path: Path) -> None:
    """Tensors alone: the order of channels is assumed and said, or taken from the variant; towers
    from conv2, if it is there.
    """
    weights = caffe.model.state_dict()
    save_file({name: weights[name] for name in ("conv1.weight", "conv2.weight")}, tmp_path / "two.safetensors")
    np.savez(tmp_path / "one.npz", **{"conv1.weight": weights["conv1.weight"].numpy()})
    two, one = read(tmp_path / "two.safetensors"), read(tmp_path / "one.npz")
    assert two.kernels.shape[0] == 2 and one.kernels.shape[0] == 1
    assert len(two.notes) == 1 and "assuming RGB" in two.notes[0]
    assert len(one.notes) == 2 and "how many towers" in one.notes[1]
    expected = first_layer(caffe.model)
    for found in (read(tmp_path / "one.npz", variant="caffe"), read(tmp_path / "two.safetensors", bgr=True)):
        assert np.array_equal(found.kernels, expected) and found.notes == ()
    assert np.array_equal(two.kernels, expected[..., ::-1])
    with pytest.raises(CheckpointError, match=r"red, green, blue: drop --bgr"):
        read(tmp_path / "one.npz", variant="paper", bgr=True)


def test_part_of_a_caffemodel(caffe: Trained, tmp_path: Path) -> None:
    """The layers up to conv2, as of a network that was cut for its features."""
    layers = caffe_write._deploy(caffe.model.variant, caffe.preprocessing.mean, "", 1.0)
    end = [layer.name for layer in layers].index("conv2") + 1
    parts = caffe_write._model_parts("cut", layers[:end], caffe.model.state_dict())
    (tmp_path / "cut.caffemodel").write_bytes(b"".join(bytes(part) for part in parts))
    with pytest.raises(CheckpointError, match="five convolutions"):
        importer.read(tmp_path / "cut.caffemodel")
    found = read(tmp_path / "cut.caffemodel")
    assert np.array_equal(found.kernels, first_layer(caffe.model))
    assert "only its first layers were read" in found.notes[-1] and "five convolutions" in found.notes[-1]


def test_part_of_an_onnx_file(caffe: Trained, tmp_path: Path) -> None:
    weights = {name: caffe.model.state_dict()[f"{name}.weight"].numpy() for name in ("conv1", "conv2")}
    nodes = [
        helper.make_node("Conv", ["x", "conv1"], ["a"], strides=[4, 4]),
        helper.make_node("LeakyRelu", ["a"], ["b"]),  # which no AlexNet has
        helper.make_node("Conv", ["b", "conv2"], ["y"], group=2),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], stored)), tmp_path / "x.onnx")
    found = read(tmp_path / "x.onnx", bgr=True)
    assert np.array_equal(found.kernels, first_layer(caffe.model)) and "only its first layers" in found.notes[-1]


def test_part_of_a_npy(caffe: Trained, tmp_path: Path) -> None:
    weight = caffe.model.state_dict()["conv1.weight"].numpy()
    layers = {"conv1": [weight.transpose(2, 3, 1, 0), np.zeros(len(weight), np.float32)]}
    np.save(tmp_path / "x.npy", np.array(layers, dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="it has the layers conv1; needed"):
        importer.read(tmp_path / "x.npy")
    found = read(tmp_path / "x.npy")
    assert np.array_equal(found.kernels, first_layer(caffe.model)) and "it has the layers conv1" in found.notes[-1]


def test_neither_whole_nor_a_beginning(caffe: Trained, tmp_path: Path) -> None:
    """What is damaged, or has no conv1, is refused with its first reason."""
    export(caffe, "caffe", tmp_path / "x.caffemodel")
    content = (tmp_path / "x.caffemodel").read_bytes()
    (tmp_path / "x.caffemodel").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"x\.caffemodel cannot be read as a caffemodel"):
        read(tmp_path / "x.caffemodel")
    save_file({"fc8.weight": torch.ones(2, 2)}, tmp_path / "fc8.safetensors")
    with pytest.raises(CheckpointError, match=r"fc8\.safetensors has no conv1\.weight; its first tensors: fc8\.weight"):
        read(tmp_path / "fc8.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        read(tmp_path / "none.npz")


def test_imagenets(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real filters: as in the paper, one tower is grey and the other one coloured."""
    weights = shared / "weights" / "imagenet-conv1-5.npz"
    out = tmp_path / "filters.svg"
    main(["filters", str(weights), "--bgr", "-o", str(out)])
    said = capsys.readouterr()
    assert "48 kernels of 11 x 11 in each of 2 towers" in said.out
    assert said.err == f"Next: alexnet weights verify {weights}\n"
    assert out.read_bytes().startswith(b"<?xml")
    kernels = read(weights, bgr=True).kernels
    colour = (kernels.max(-1) - kernels.min(-1)).mean((2, 3))  # (2, 48) spread of the channels
    assert np.median(colour[0]) > 2 * np.median(colour[1])
    assert np.array_equal(kernels, read(weights, variant="caffe").kernels)


def test_command_refuses(caffe: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    native.save(tmp_path / "x.safetensors", caffe)
    for words, says in (
        (["-o", str(tmp_path / "x.gif")], "must end in .png, .svg or .pdf"),
        (["--variant", "cafe", "-o", str(tmp_path / "x.png")], "unknown variant 'cafe'"),
    ):
        np.savez(tmp_path / "x.npz", **{"conv1.weight": np.ones((2, 3, 5, 5), np.float32)})
        with pytest.raises(SystemExit) as stop:
            main(["filters", str(tmp_path / "x.npz"), *words])
        assert stop.value.code == 2 and says in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
