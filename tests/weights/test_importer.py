"""Any format in, recognised by content, with what `predict` needs; anything
else refused with a reason.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import alexnet
from alexnet import AlexNet, engines
from alexnet.cli import main
from alexnet.errors import CheckpointError
from alexnet.export import ENDINGS, export
from alexnet.inspect import filters
from alexnet.published import imagenet
from alexnet.trained import Trained
from alexnet.variants import get_variant
from alexnet.weights import importer, native
from alexnet.weights.formats import caffe_write
from alexnet.weights.importer import import_weights
from test_golden import distance

TINY = ("alexnet-v1.caffemodel", "alexnet-v2.caffemodel")


@pytest.mark.parametrize("file", TINY)
def test_caffes_own_answers(shared: Path, inputs: ModuleType, file: str) -> None:
    """Caffe's probabilities for its own files, through our preprocessing's channel order and
    size.
    """
    trained, foreign = import_weights(shared / "weights/tiny" / file, mean=shared / "weights/tiny/imagenet-mean.binaryproto")
    golden = np.load(shared / "weights/tiny/caffe-output.npz")
    with torch.inference_mode():
        stages = trained.model.stages(torch.from_numpy(inputs.blobs(7, 2)))
    assert distance(stages["fc8"].numpy(), golden["fc8"]) < 2e-6
    # A probability's relative error is its logit's absolute one.
    np.testing.assert_allclose(stages["fc8"].softmax(1).numpy(), golden["prob"], rtol=2e-6 * float(stages["fc8"].norm()))
    assert distance(stages["pool5"].numpy(), golden["pool5"]) < 2e-6
    own = trained.preprocessing
    assert (trained.model.variant.name, own.stored_size, own.input_size, own.resize, own.bgr) == (
        "caffe",
        256,
        227,
        "squash",
        True,
    )
    assert own.mean.shape == (3, 256, 256)
    assert own.mean.mean((1, 2)).tolist() == pytest.approx(importer.CAFFE_MEAN, abs=1e-3)  # R, G, B
    assert "Caffe" in foreign.format


def trained(variant: str, **changes) -> Trained:
    chosen = get_variant(variant, width=1 / 16, **changes)
    net = AlexNet(chosen, torch.Generator().manual_seed(3)).eval()
    return Trained(net, importer.default_classes(chosen), importer.published_preprocessing(chosen), {}, {})


ROUND_TRIPS = [
    *(("safetensors", name) for name in ("paper", "code-2012", "caffe", "caffenet", "owt", "torchvision")),
    *(("onnx", name) for name in ("paper", "code-2012", "caffe", "caffenet", "owt", "torchvision")),
    ("torchvision", "torchvision"),
    ("caffe", "caffe"),
    ("caffe", "caffenet"),
    ("npy", "caffe"),
]


@pytest.mark.parametrize(("target", "variant"), ROUND_TRIPS)
def test_round_trip_to_the_bit(tmp_path: Path, target: str, variant: str) -> None:
    """Import, export, import: parameters and variant to the bit, and the preprocessing
    where the format holds it.
    """
    first = trained(variant)
    path = tmp_path / f"file{ENDINGS[target]}"
    export(first, target, path)
    renamed = tmp_path / "no-ending"
    shutil.copy(path, renamed)  # recognised by content
    back, _ = import_weights(renamed)
    for name, value in first.model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], value), name
    if target in ("safetensors", "onnx"):
        assert back.model.variant == first.model.variant
        assert back.classes == first.classes
    else:
        x = torch.randn(1, 3, first.model.variant.input_size, first.model.variant.input_size) * 50
        assert torch.equal(back.model.eval()(x), first.model(x))
    for field in ("stored_size", "input_size", "resize", "bgr"):
        assert getattr(back.preprocessing, field) == getattr(first.preprocessing, field), field
    assert torch.equal(back.preprocessing.mean, first.preprocessing.mean)
    assert torch.equal(back.preprocessing.scale, first.preprocessing.scale)


def test_a_mean_image_survives_caffe(tmp_path: Path, shared: Path) -> None:
    first, _ = import_weights(shared / "weights/tiny" / TINY[1], mean=shared / "weights/tiny/imagenet-mean.binaryproto")
    export(first, "caffe", tmp_path / "out.caffemodel")
    back, _ = import_weights(tmp_path / "out.caffemodel", mean=tmp_path / "out.mean.binaryproto")
    assert torch.equal(back.preprocessing.mean, first.preprocessing.mean)


def test_the_published_classes_and_pictures() -> None:
    """A thousand outputs in WordNet order are ImageNet's."""
    for name, scale in (("caffe", 1.0), ("torchvision", 1 / (0.229 * 255))):
        variant = get_variant(name)
        assert importer.default_classes(variant) == imagenet.classes()
        preprocessing = importer.published_preprocessing(variant)
        assert (preprocessing.stored_size, preprocessing.input_size) == (256, variant.input_size)
        assert float(preprocessing.scale[0]) == pytest.approx(scale)
    assert importer.default_classes(get_variant("code-2012"))[0] == "class 0"  # the devkit's order is another one


def test_tensors_alone_need_a_name(tmp_path: Path) -> None:
    net = AlexNet(get_variant("caffe", width=1 / 16, num_classes=5))
    save_file(dict(net.state_dict()), tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match=r"plain\.safetensors.*fit several variants.*--variant"):
        import_weights(tmp_path / "plain.safetensors")
    found, _ = import_weights(tmp_path / "plain.safetensors", "caffenet")
    assert (found.model.variant.name, found.model.variant.width) == ("caffenet", 1 / 16)
    with pytest.raises(CheckpointError, match=r"not 'torchvision': its conv2 reads 2 towers, but the variant has 1"):
        import_weights(tmp_path / "plain.safetensors", "torchvision")


def test_a_graph_contradicts_the_variant_named(shared: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not 'caffenet': its graph has block1 = .*Drop --variant"):
        import_weights(shared / "weights/tiny" / TINY[0], "caffenet")


def test_another_input_size(tmp_path: Path) -> None:
    first = trained("torchvision", input_size=96, num_classes=4)
    export(first, "torchvision", tmp_path / "small.pth")
    with pytest.raises(CheckpointError, match="fc6 reads .* `alexnet weights import FILE --input-size SIDE -o"):
        import_weights(tmp_path / "small.pth")
    back, _ = import_weights(tmp_path / "small.pth", input_size=96)
    assert back.model.variant == first.model.variant
    assert back.preprocessing.stored_size == 110


def state(**changes) -> dict[str, torch.Tensor]:
    tensors = dict(AlexNet(get_variant("caffe", width=1 / 16, num_classes=5)).state_dict())
    return {name: value for name, value in {**tensors, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fc7.bias": None}, r"lacks fc7\.bias.*an AlexNet has"),
        ({"fc9.bias": torch.zeros(3)}, r"has fc9\.bias"),
        ({"conv3.weight": torch.zeros(24, 15, 3, 3)}, r"conv3\.weight has shape \(24, 15, 3, 3\)"),
        ({"fc7.weight": torch.zeros(256)}, r"fc7\.weight of shape \(256,\): it must have 2 dimensions"),
        ({"fc8.bias": torch.full((5,), float("nan"))}, r"5 of fc8\.bias's 5 values are NaN or infinite"),
        ({"fc8.bias": torch.zeros(5, dtype=torch.int64)}, r"fc8\.bias holds torch\.int64"),
        ({"conv1.weight": torch.zeros(0, 3, 11, 11), "conv1.bias": torch.zeros(0)}, r"0 towers"),
        ({"conv2.weight": torch.zeros(16, 0, 5, 5)}, r"not 'caffe': its conv2 reads"),
    ],
)
def test_wrong_tensors(tmp_path: Path, changes: dict, reason: str) -> None:
    path = tmp_path / "wrong.safetensors"
    save_file(state(**changes), path)
    with pytest.raises(CheckpointError, match=reason) as error:
        import_weights(path, "caffe")
    assert "wrong.safetensors" in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (gzip.compress(b"weights"), "gzip"),
        (b'name: "AlexNet"\nlayer {\n name: "data"\n}', "prototxt"),
        (b"random text, nothing else", "not in a known weights format"),
        (np.random.default_rng(0).bytes(4096), "Known formats"),
    ],
)
def test_what_is_no_weights(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        importer.read(path)


def test_half_floats_are_widened_and_said(tmp_path: Path) -> None:
    half = {name: value.half() for name, value in state().items()}
    save_file(half, tmp_path / "half.safetensors")
    back, foreign = import_weights(tmp_path / "half.safetensors", "caffe")
    assert all(torch.equal(back.model.state_dict()[name], value.float()) for name, value in half.items())
    assert foreign.notes == ("its weights were converted from torch.float16 to torch.float32",)


def test_safetensors_whose_length_begins_as_a_pickle(tmp_path: Path) -> None:
    """The first byte of a header of 128 more than a multiple of 256 bytes is that of a pickle."""
    path = tmp_path / "x.safetensors"
    for more in range(300):
        save_file(state(), path, {"more": "x" * more})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert import_weights(path, "caffe")[0].model.variant.num_classes == 5


def test_class_names(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "five.safetensors")
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\ndog\nelk\n")
    assert import_weights(tmp_path / "five.safetensors", "caffe", classes=names)[0].classes == (
        "ant",
        "bee",
        "cat",
        "dog",
        "elk",
    )
    names.write_text("ant\nant\n")
    with pytest.raises(CheckpointError, match=r"names\.txt has 2 names, but the network has 5 classes"):
        import_weights(tmp_path / "five.safetensors", "caffe", classes=names)


def test_a_partial_file_can_be_checked(shared: Path) -> None:
    conv = shared / "weights" / "imagenet-conv1-5.npz"
    assert importer.check_file(conv).looks_trained
    with pytest.raises(CheckpointError, match=r"lacks fc6\.bias"):
        import_weights(conv, "caffe")


def test_part_of_a_network(shared: Path, tmp_path: Path) -> None:
    """It is imported under its own colours: what needs a whole network refuses it, by name of what
    is missing."""
    base, source = tmp_path / "base.safetensors", shared / "weights/imagenet-conv1-5.npz"
    main(["weights", "import", str(source), "--variant", "caffe", "-o", str(base)])
    part, _ = import_weights(base, partial=True)
    assert part.missing == ("fc6", "fc7", "fc8") and len(part.model.state_dict()) == 10
    with torch.inference_mode():
        x = torch.randn(2, 3, 227, 227, generator=torch.Generator().manual_seed(0)) * 50
        stages = part.model.stages(x)
        assert list(stages)[-1] == "pool5" and torch.equal(part.model(x), stages["pool5"])
        whole = AlexNet("caffe")
        whole.load_state_dict(part.model.state_dict(), strict=False)
        assert torch.equal(whole.stages(x)["pool5"], stages["pool5"])
    for refused in (native.load, alexnet.load, engines.load):
        with pytest.raises(
            CheckpointError, match=r"base\.safetensors holds a part.*without fc6, fc7, fc8.*alexnet fit PHOTOS --from"
        ):
            refused(base)
    with pytest.raises(CheckpointError, match="holds a part of a network: fc6, fc7, fc8 missing"):
        import_weights(base)
    with pytest.raises(CheckpointError, match="lacks fc6, fc7, fc8"):
        engines.of(part)
    with pytest.raises(CheckpointError, match="lacks fc6, fc7, fc8"):
        export(part, "onnx", tmp_path / "x.onnx")
    assert np.array_equal(filters.read(base).kernels, filters.read(source, "caffe").kernels)


def test_which_layers_are_missing(tmp_path: Path) -> None:
    """What is there is taken, also behind a gap; widths of the rest are scaled as the others."""
    first, path = trained("caffe", num_classes=7).model, tmp_path / "x.safetensors"
    gap = {name: value for name, value in first.state_dict().items() if not name.startswith(("conv4", "fc6"))}
    save_file({**gap, "head.weight": torch.zeros(3, 3)}, path)
    part, foreign = import_weights(path, "caffe", partial=True)
    assert part.missing == ("conv4", "fc6") and part.model.variant == first.variant
    assert [name for name in part.extra if name.endswith("bias")] == ["conv5.bias", "fc7.bias", "fc8.bias"]
    assert "left out, as they are not a layer's weight and bias: head.weight" in foreign.notes
    native.save(path, part)
    again = native.load(path, partial=True)
    assert again.missing == part.missing and set(again.extra) == set(part.extra)
    assert list(again.model.stages(torch.zeros(1, 3, 227, 227)))[-1] == "relu3"


def test_a_head_on_pool5_is_whole(tmp_path: Path) -> None:
    """A file without fc6 and fc7 whose fc8 reads pool5 lacks nothing."""
    variant = get_variant("caffe", width=1 / 16, num_classes=4, removed=("fc6", "fc7"))
    save_file(dict(AlexNet(variant).state_dict()), tmp_path / "x.safetensors")
    found, _ = import_weights(tmp_path / "x.safetensors", "caffe", partial=True)
    assert (found.missing, found.model.variant) == ((), variant)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"conv1.bias": None}, r"lacks conv1\.weight"),  # half a layer is none
        ({"conv3.weight": torch.zeros(24, 15, 3, 3), "fc8.bias": None}, r"conv3\.weight has shape \(24, 15, 3, 3\)"),
    ],
)
def test_no_part_of_an_alexnet(tmp_path: Path, changes: dict, reason: str) -> None:
    path = tmp_path / "wrong.safetensors"
    save_file(state(**changes), path)
    with pytest.raises(CheckpointError, match=reason):
        import_weights(path, "caffe", partial=True)


@pytest.mark.parametrize("missing", [(), ("conv1",), ("fc9",), ("fc6",)])
def test_a_part_that_lies(shared: Path, tmp_path: Path, missing: tuple[str, ...]) -> None:
    part, _ = import_weights(shared / "weights/imagenet-conv1-5.npz", "caffe", partial=True)
    path = tmp_path / "x.safetensors"
    native.save(path, replace(part, missing=missing))
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged: it"):
        native.load(path, partial=True)


FULL_SIZE = """
import json, re, sys, time
from pathlib import Path
from alexnet.weights import importer
start = time.perf_counter()
importer.import_weights(Path(sys.argv[1]))
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([time.perf_counter() - start, peak * 1024 / 1e6]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its peak memory from /proc")
def test_a_full_size_file_in_little_memory(tmp_path: Path) -> None:
    """244 MB of Caffe weights in less than 800 MB, PyTorch's own included."""
    variant = get_variant("caffe")
    net = AlexNet.holding(variant, {name: torch.full(shape, 0.5) for name, shape in variant.parameter_shapes().items()})
    path = tmp_path / "full.caffemodel"
    export(Trained(net, (), importer.published_preprocessing(variant), {}, {}), "caffe", path)
    assert path.stat().st_size > 243_000_000
    del net
    out = subprocess.run([sys.executable, "-c", FULL_SIZE, str(path)], capture_output=True, text=True, check=True, timeout=120)
    _, megabytes = json.loads(out.stdout)
    assert megabytes < 800
    path.unlink()


def write_mean(path: Path, mean: torch.Tensor) -> Path:
    first = trained("caffe", num_classes=5)
    caffe_write.write(path.with_suffix(".caffemodel"), first.model.variant, first.model.state_dict(), mean)
    return path.with_name(f"{path.stem}.mean.binaryproto")


@pytest.mark.parametrize(
    ("mean", "reason"),
    [
        (torch.full((3, 256, 256), float("nan")), r"196,608 of the mean image's 196,608 values are NaN"),
        (torch.zeros(3, 255, 255), r"255 pixels wide, but the width must be even"),
        (torch.zeros(3, 200, 200), r"200 pixels wide, .* at least the input's 227"),
    ],
)
def test_a_mean_image_that_cannot_be(tmp_path: Path, mean: torch.Tensor, reason: str) -> None:
    file = write_mean(tmp_path / "net", mean)
    with pytest.raises(CheckpointError, match=reason):
        import_weights(tmp_path / "net.caffemodel", mean=file)


@pytest.mark.parametrize("image", [False, True])
def test_caffes_scale_survives(tmp_path: Path, image: bool) -> None:
    """Beside a mean image the caffemodel tells of the preprocessing its scale alone."""
    first, path = trained("caffe", num_classes=5), tmp_path / "net.caffemodel"
    mean = torch.full((3, 256, 256), 100.0) if image else first.preprocessing.mean
    preprocessing = replace(first.preprocessing, mean=mean, scale=torch.full((3,), 0.0625))
    export(replace(first, preprocessing=preprocessing), "caffe", path)
    back, _ = import_weights(path, mean=tmp_path / "net.mean.binaryproto" if image else None)
    assert torch.equal(back.preprocessing.scale, preprocessing.scale)
    assert torch.equal(back.preprocessing.mean, mean)
    uneven = replace(preprocessing, scale=torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(CheckpointError, match="all channels by one number"):
        export(replace(first, preprocessing=uneven), "caffe", path)


def test_a_float64_that_no_float32_holds(tmp_path: Path) -> None:
    huge = torch.zeros(5, dtype=torch.float64)
    huge[0] = 1e300
    save_file(state(**{"fc8.bias": huge}), tmp_path / "huge.safetensors")
    with pytest.raises(CheckpointError, match=r"1 of fc8\.bias's 5 values are NaN or infinite"):
        import_weights(tmp_path / "huge.safetensors", "caffe")


def test_eight_bit_floats_are_widened(tmp_path: Path) -> None:
    eight = {name: value.to(torch.float8_e4m3fn) for name, value in state().items()}
    save_file(eight, tmp_path / "eight.safetensors")
    back, _ = import_weights(tmp_path / "eight.safetensors", "caffe")
    assert all(torch.equal(back.model.state_dict()[name], value.float()) for name, value in eight.items())


@pytest.mark.parametrize("target", ["safetensors", "onnx"])
def test_a_file_of_ours_is_what_it_says(tmp_path: Path, target: str) -> None:
    """Under another name it would keep the first one's channel order and size."""
    path = tmp_path / f"file{ENDINGS[target]}"
    export(trained("paper"), target, path)
    with pytest.raises(CheckpointError, match=r"holds 'paper', not 'caffe': drop --variant"):
        import_weights(path, "caffe")
    with pytest.raises(CheckpointError, match=r"inputs of 224 pixels: drop --input-size"):
        import_weights(path, input_size=225)
    assert import_weights(path, "paper", 224)[0].model.variant.name == "paper"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_class_names_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    """Two classes of one name stay two."""
    save_file(state(), tmp_path / "five.safetensors")
    (tmp_path / "names.txt").write_bytes("café\nbee\ncafé\ndog\nelk\n".encode(encoding))
    classes = import_weights(tmp_path / "five.safetensors", "caffe", classes=tmp_path / "names.txt")[0].classes
    assert classes == ("café", "bee", "café (2)", "dog", "elk")


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("conv1.weight", (3, 4), r"conv1\.weight has shape \(3, 4\): expected 4 dimensions"),
        ("fc7.weight", (3,), r"fc7\.weight has shape \(3,\): expected 2 dimensions"),
        ("conv2.weight", (0, 3, 5, 5), "none of them 0"),
        ("layer1.0.conv1.weight", (3, 3), r"none of an AlexNet's layers.*first tensors are layer1\.0\.conv1\.weight"),
    ],
)
def test_what_cannot_be_checked(tmp_path: Path, name: str, shape: tuple[int, ...], reason: str) -> None:
    save_file({name: torch.zeros(shape)}, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=rf"odd\.safetensors.*{reason}"):
        importer.check_file(tmp_path / "odd.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="pipe is not a regular file"):
        importer.read(tmp_path / "pipe")
