"""Caffe's files against Caffe's own outputs, in both layouts; hand-made files for what
no real one does; fuzzing.

`Net` below writes the wire format itself, so that the reader is not tested
with its own writer alone.
"""

import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from alexnet import AlexNet
from alexnet.arithmetic import LRN, Dropout
from alexnet.errors import CheckpointError, OutputError
from alexnet.variants import Variant, get_variant
from alexnet.weights.formats import caffe_read, caffe_schema, caffe_write
from alexnet.weights.match import fit

BOUND = 2e-6  # as in test_golden.py: float64 differs from Caffe's float32 by 2e-7 to 6e-7
TINY = get_variant("caffe", kernels=(12, 32, 48, 48, 32), units=(64, 64), num_classes=10)
SMALL = get_variant("caffe", kernels=(2, 4, 4, 4, 4), units=(4, 4), num_classes=3, input_size=67)


def without_dropout(variant: Variant) -> tuple[Any, ...]:
    return tuple(op for op in variant.ops() if not isinstance(op, Dropout))


def parameters(variant: Variant, seed: int = 0) -> dict[str, Tensor]:
    return AlexNet(variant, torch.Generator().manual_seed(seed)).state_dict()


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- the wire format, written independently -------------------------------------------------------


def varint(value: int) -> bytes:
    head = b""
    while value > 127:
        head, value = head + bytes([value & 127 | 128]), value >> 7
    return head + bytes([value])


def message(*fields: tuple[int, Any]) -> bytes:
    """Fields as (number, value): int as varint, float as float32, str and bytes with their
    length.
    """
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(raw)) + raw
    return out


def blob(array: Tensor, *more: tuple[int, Any]) -> tuple[int, bytes]:
    shape = message((1, b"".join(varint(size) for size in array.shape)))
    return 7, message((7, shape), (5, array.numpy().tobytes()), *more)


class Net(dict[str, list[tuple[int, Any]]]):
    """A small AlexNet in today's layout as name -> fields of the layer, to be changed and
    written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tensors = parameters(SMALL)
        self["data"] = [(1, "data"), (2, "Data"), (4, "data"), (4, "label")]
        current = "data"
        convolutions = {
            1: [(4, 11), (6, 4)],
            2: [(3, 2), (4, 5), (5, 2)],
            3: [(3, 1), (4, 3)],
            4: [(3, 1), (4, 3), (5, 2)],
            5: [(3, 1), (4, 3), (5, 2)],
        }
        for number, fields in convolutions.items():
            param = message((1, len(self.tensors[f"conv{number}.bias"])), *fields)
            current = self.add(f"conv{number}", "Convolution", current, (106, param))
            self.add(f"relu{number}", "ReLU", current, top=current)
            if number < 3:
                current = self.add(f"norm{number}", "LRN", current, (118, message((2, 1e-4))))
            if number in (1, 2, 5):
                current = self.add(f"pool{number}", "Pooling", current, (121, message((2, 3), (3, 2))))
        for number in (6, 7, 8):
            param = message((1, len(self.tensors[f"fc{number}.bias"])))
            current = self.add(f"fc{number}", "InnerProduct", current, (117, param))
            if number < 8:
                self.add(f"relu{number}", "ReLU", current, top=current)
                self.add(f"drop{number}", "Dropout", current, top=current)
        self["loss"] = [(1, "loss"), (2, "SoftmaxWithLoss"), (3, current), (3, "label"), (4, "loss")]

    def add(self, name: str, kind: str, bottom: str, *fields: tuple[int, Any], top: str = "") -> str:
        keys = (f"{name}.weight", f"{name}.bias")
        blobs = [blob(self.tensors[key]) for key in keys if key in self.tensors]
        self[name] = [(1, name), (2, kind), (3, bottom), (4, top or name), *fields, *blobs]
        return top or name

    def set(self, layer: str, number: int, *values: Any) -> None:
        """Put `values` in the place of a layer's fields of that number."""
        self[layer] = [field for field in self[layer] if field[0] != number] + [(number, value) for value in values]

    def write(self, path: Path) -> Path:
        path.write_bytes(message((1, "small"), *((100, message(*fields)) for fields in self.values())))
        return path


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.caffemodel"


# --- real files -----------------------------------------------------------------------------------


def distance(found: Tensor, golden: np.ndarray) -> float:
    return float(np.linalg.norm(found.numpy() - golden) / np.linalg.norm(golden))


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_caffes_own_outputs(shared: Path, inputs: ModuleType, layout: str) -> None:
    """Files that Caffe wrote, and what Caffe computed with them."""
    folder = shared / "weights" / "tiny"
    read = caffe_read.read(folder / f"alexnet-{layout}.caffemodel")
    model = AlexNet(TINY).eval()
    model.load_state_dict(read.tensors, assign=True)
    golden = np.load(folder / "caffe-output.npz")
    with torch.inference_mode():
        stages = model.stages(torch.from_numpy(inputs.blobs(7, 2)))
    assert distance(stages["fc8"], golden["fc8"]) < BOUND
    # An absolute error of a logit, up to 10.8 here, is a relative one of a probability.
    assert distance(stages["fc8"].softmax(1), golden["prob"]) < BOUND * float(stages["fc8"].abs().max())
    assert distance(stages["pool5"], golden["pool5"]) < BOUND
    # Every 18th value, after the ReLU that Caffe did in place.
    assert distance(stages["relu1"].flatten()[::18], golden["conv1"]) < BOUND


def test_both_layouts_are_one_network(shared: Path) -> None:
    old, new = (caffe_read.read(shared / "weights" / "tiny" / f"alexnet-{layout}.caffemodel") for layout in ("v1", "v2"))
    assert same(old.tensors, new.tensors)
    assert old.ops == new.ops == without_dropout(TINY)
    assert (old.format, new.format) == ("Caffe, layout of 2014", "Caffe")
    assert (old.input_size, new.input_size) == (None, 227)
    assert old.notes == new.notes == ()


def test_the_mean_image(shared: Path) -> None:
    """The colour is the one that all of Caffe's examples subtract: 104.007,
    116.669, 122.679 in B, G, R.
    """
    mean = caffe_read.read_mean(shared / "weights" / "tiny" / "imagenet-mean.binaryproto")
    assert mean.shape == (3, 256, 256) and mean.dtype == torch.float32
    assert mean.mean((1, 2)).tolist() == pytest.approx([122.679, 116.669, 104.007], abs=5e-4)


def test_looks_like(shared: Path, path: Path, net: Net) -> None:
    tiny = shared / "weights" / "tiny"
    assert all(caffe_read.looks_like(tiny / f"alexnet-{layout}.caffemodel") for layout in ("v1", "v2"))
    assert not caffe_read.looks_like(tiny / "imagenet-mean.binaryproto")
    assert not caffe_read.looks_like(tiny / "caffe-output.npz")
    assert not caffe_read.looks_like(shared / "facts.md")
    assert not caffe_read.looks_like(path)  # there is none
    whole = net.write(path).read_bytes()
    for cut in (50, 200, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert caffe_read.looks_like(path)  # so that `read` says that it is cut short
    for foreign in (b"", b"\x80\x02}q\x00.", b"PK\x03\x04" * 9, b"\x93NUMPY" * 9, b"\x08\x07\x12\x04onnx", b"\x0a" * 99):
        path.write_bytes(foreign)
        assert not caffe_read.looks_like(path), foreign


# --- reading hand-made files ----------------------------------------------------------------------


def test_small(net: Net, path: Path) -> None:
    """The hand-made network is the one that the tests below change."""
    read = caffe_read.read(net.write(path))
    assert same(read.tensors, net.tensors) and read.ops == without_dropout(SMALL)
    assert read.input_size is None and read.preprocessing is None and read.notes == ()


def test_a_layer_that_was_renamed_to_be_trained_anew(net: Net, path: Path) -> None:
    net.set("fc8", 1, "fc8_flickr")
    read = caffe_read.read(net.write(path))
    assert same(read.tensors, net.tensors)
    assert read.notes == ("layer 'fc8_flickr' is fc8 here",)


def test_a_name_that_is_no_utf8(net: Net, path: Path) -> None:
    """Somebody's editor wrote it; it is only a name."""
    net.set("conv1", 1, b"\xe9t\xe9")
    read = caffe_read.read(net.write(path))
    assert same(read.tensors, net.tensors) and "is conv1 here" in read.notes[0]


def test_what_caffe_adds_in_training(net: Net, path: Path) -> None:
    """Splits of blobs that are read twice, losses, accuracies; a gradient beside the numbers;
    rules that we do not know.
    """
    net.set("fc8", 7, *(blob(net.tensors[f"fc8.{kind}"], (6, b"\0" * 400))[1] for kind in ("weight", "bias")))
    net["split"] = [(1, "s"), (2, "Split"), (3, "label"), (4, "label0"), (4, "label1")]
    net["split2"] = [(1, "s2"), (2, "Split"), (3, "fc8"), (4, "fc8_0"), (4, "fc8_1")]
    net["accuracy"] = [(1, "a"), (2, "Accuracy"), (3, "fc8_1"), (3, "label1"), (4, "a"), (8, message((1, 1)))]
    assert same(caffe_read.read(net.write(path)).tensors, net.tensors)


def test_a_split_in_the_chain(net: Net, path: Path) -> None:
    layers = dict(net)
    net.clear()
    for name, fields in layers.items():
        net[name] = fields
        if name == "fc7":
            net["split"] = [(1, "s"), (2, "Split"), (3, "fc7"), (4, "fc7_0"), (4, "fc7_1")]
    for name in ("relu7", "drop7"):
        net.set(name, 3, "fc7_0")
        net.set(name, 4, "fc7_0")
    net.set("fc8", 3, "fc7_0")
    assert caffe_read.read(net.write(path)).ops == without_dropout(SMALL)


def test_layers_that_are_not_in_place(net: Net, path: Path) -> None:
    net.set("relu6", 4, "relu6")
    net.set("drop6", 3, "relu6")
    net.set("drop6", 4, "drop6")
    net.set("fc7", 3, "drop6")
    assert caffe_read.read(net.write(path)).ops == without_dropout(SMALL)


def test_numbers_in_other_dress(net: Net, path: Path) -> None:
    """Four numbers for a shape in a new layer, doubles, and data in two pieces."""
    weight, bias = net.tensors["fc8.weight"], net.tensors["fc8.bias"]
    raw = weight.numpy().tobytes()
    old = message((1, 1), (2, 1), (3, 3), (4, 4), (5, raw[:20]), (5, raw[20:]))
    doubles = message((7, message((1, b"\x03"))), (8, bias.double().numpy().tobytes()))
    net.set("fc8", 7, old, doubles)
    assert same(caffe_read.read(net.write(path)).tensors, net.tensors)


def test_what_the_data_layer_tells(net: Net, path: Path) -> None:
    net.set("data", 100, message((3, 67), (5, 104.0), (5, 117.0), (5, 123.0), (1, 0.00390625)))
    read = caffe_read.read(net.write(path))
    assert read.input_size == 67 and read.preprocessing is not None
    assert read.preprocessing.mean.flatten().tolist() == [123, 117, 104]
    assert read.preprocessing.scale.tolist() == [1 / 256] * 3
    assert (read.preprocessing.bgr, read.preprocessing.stored_size, read.preprocessing.input_size) == (True, 256, 67)
    net.set("data", 100, message((3, 67), (4, "mean.binaryproto"), (1, 0.5)))
    read = caffe_read.read(net.write(path))
    assert read.preprocessing is None
    assert "mean image mean.binaryproto" in read.notes[0] and "multiplied by 0.5" in read.notes[1]


@pytest.mark.parametrize(
    "fields",
    [
        [(3, "data"), *((4, size) for size in (1, 3, 67, 67))],
        [(3, "data"), (8, message((1, b"\1\3\x43\x43")))],
    ],
)
def test_the_input_of_a_deployed_net(net: Net, path: Path, fields: list[tuple[int, Any]]) -> None:
    del net["data"]
    net.write(path)
    path.write_bytes(message(*fields) + path.read_bytes())
    assert caffe_read.read(path).input_size == 67


REFUSED: dict[str, tuple[Callable[[Net], Any], str]] = {
    "unknown type": (
        lambda n: n.set("norm1", 2, "BatchNorm"),
        "layer 'norm1' is of type 'BatchNorm'.*known types: Convolution",
    ),
    "leaky": (lambda n: n.set("relu1", 123, message((1, 0.1))), "relu1.*negative_slope"),
    "within": (lambda n: n.set("norm1", 118, message((4, 1))), "norm1.*norm_region = WITHIN_CHANNEL"),
    "even window": (lambda n: n.set("norm1", 118, message((1, 4))), "local_size 4"),
    "no window": (lambda n: n.set("norm1", 118, message((1, 0))), "local_size 0"),
    "average": (lambda n: n.set("pool1", 121, message((1, 1), (2, 3), (3, 2))), "pool1.*pool = AVE.*MAX"),
    "padded pooling": (lambda n: n.set("pool1", 121, message((2, 3), (3, 2), (4, 1))), "pool1.*pad = 1"),
    "global pooling": (lambda n: n.set("pool1", 121, message((12, 1))), "global_pooling = True"),
    "pooling without size": (lambda n: n.set("pool1", 121, b""), "kernel_size 0"),
    "stride 0": (lambda n: n.set("pool1", 121, message((2, 3), (3, 0))), "stride 0"),
    "dilated": (lambda n: n.set("conv3", 106, message((1, 4), (3, 1), (4, 3), (18, 2))), "conv3.*dilation = 2"),
    "pads differ": (lambda n: n.set("conv3", 106, message((1, 4), (9, 1), (10, 2), (4, 3))), "pad of 1 x 2"),
    "one pad": (lambda n: n.set("conv3", 106, message((1, 4), (9, 1), (4, 3))), "pad of 1 x 0"),
    "kernel not square": (lambda n: n.set("conv3", 106, message((1, 4), (4, 3), (4, 5))), "kernel_size of 3 x 5"),
    "no bias term": (lambda n: n.set("conv3", 106, message((1, 4), (2, 0), (4, 3))), "bias_term = False"),
    "group 0": (lambda n: n.set("conv3", 106, message((1, 4), (4, 3), (5, 0))), "group 0"),
    "group 3": (lambda n: n.set("conv3", 106, message((1, 4), (4, 3), (5, 3))), "group 3.*divide"),
    "transposed": (lambda n: n.set("fc7", 117, message((1, 4), (6, 1))), "transpose = True"),
    "another count": (lambda n: n.set("fc7", 117, message((1, 5))), "fc7.*4 x 4 weights.*5 x 4"),
    "another kernel": (lambda n: n.set("conv3", 106, message((1, 4), (3, 2), (4, 5))), "conv3.*4 x 4 x 3 x 3.*5 x 5"),
    "no blobs": (lambda n: n.set("conv3", 7), "conv3.*0 blobs"),
    "one blob": (lambda n: n.set("conv3", 7, blob(n.tensors["conv3.weight"])[1]), "conv3.*1 blobs"),
    "empty blob": (lambda n: n.set("fc8", 7, b"", b""), "fc8.*without numbers"),
    "claims too many": (lambda n: n.set("fc8", 7, message((1, 1 << 20), (2, 1 << 20), (5, b"\0" * 8)), b""), "claims.*holds 2"),
    "negative shape": (
        lambda n: n.set("fc8", 7, message((7, message((1, b"\xff" * 9 + b"\1"))), (5, b"\0" * 8)), b""),
        "claims a blob of -1",
    ),
    "odd bytes": (lambda n: n.set("fc8", 7, message((1, 1), (2, 1), (3, 1), (4, 1), (5, b"\0" * 7)), b""), "are damaged"),
    "not packed": (lambda n: n.set("fc8", 7, message((5, 1.0)), b""), "are damaged"),
    "branch": (lambda n: n.set("fc8", 3, "fc6"), "fc8.*reads 'fc6' instead.*branches"),
    "after a softmax": (
        lambda n: n.update(relu7=[(1, "s"), (2, "Softmax"), (3, "fc7"), (4, "fc7")]),
        "drop7.*reads 'fc7' instead",
    ),
    "two inputs": (lambda n: n.set("fc8", 3, "fc7", "fc6"), "reads 2 blobs"),
    "four convolutions": (lambda n: n.set("conv5", 2, "Dropout"), "five convolutions, then three.*conv4 .Convolution., fc6"),
    "pooling first": (
        lambda n: n.set("relu1", 2, "Silence") or n.set("conv1", 2, "Silence") or n.set("norm1", 3, "data"),
        "AlexNet has five",
    ),
    "ceil": (
        lambda n: n.set("data", 100, message((3, 71))),
        "71 pixels gives pool1 maps of 16 pixels, which Caffe rounds up to 8 and alexnet down to 7",
    ),
    "too small": (lambda n: n.set("data", 100, message((3, 20))), "20 pixels is too small for"),
    "other crop": (lambda n: n.set("data", 100, message((3, 99))), "fc6.*holds 4 x 4 weights.*4 x 16"),
    "grey": (
        lambda n: n.set("data", 2, "Input") or n.set("data", 143, message((1, message((1, b"\1\1\x43\x43"))))),
        "1 x 1 x 67 x 67",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(net: Net, path: Path, case: str) -> None:
    change, reason = REFUSED[case]
    change(net)
    with pytest.raises(CheckpointError, match=reason) as caught:
        caffe_read.read(net.write(path))
    assert str(caught.value).startswith(f"{path} cannot be read as a caffemodel: ")


@pytest.mark.parametrize("number", [0, 3, 24, 25, 35, 39, 40, 2**31 - 1])
def test_the_types_of_2014(path: Path, shared: Path, number: int) -> None:
    """Types that no AlexNet has, by number; those that it has are in the real file."""
    whole = (shared / "weights" / "tiny" / "alexnet-v1.caffemodel").read_bytes()
    path.write_bytes(whole + message((2, message((2, "fc8"), (3, "x"), (4, "odd"), (5, number)))))
    known = {3: "Concat", 25: "Eltwise", 35: "AbsVal", 39: "Deconvolution"}
    if number == 24:
        assert caffe_read.read(path)  # WindowData: a source
        return
    with pytest.raises(CheckpointError, match=f"layer 'odd' is of type '{known.get(number, f'type {number}')}'"):
        caffe_read.read(path)


def test_other_kinds_of_file(path: Path, shared: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        caffe_read.read(path)
    with pytest.raises(CheckpointError, match="directory"):
        caffe_read.read(tmp_path)
    path.write_text('name: "AlexNet"\nlayer {\n  name: "data"\n}\n')
    with pytest.raises(CheckpointError, match=r"is a prototxt.*name the \.caffemodel"):
        caffe_read.read(path)
    path.write_bytes(message((2, message((1, message((1, "conv1")))))))
    with pytest.raises(CheckpointError, match="layout of 2013.*upgrade_net_proto_binary"):
        caffe_read.read(path)
    path.write_bytes(message((1, "empty")))
    with pytest.raises(CheckpointError, match="holds no layers"):
        caffe_read.read(path)
    path.write_bytes(message((2, b""), (100, b"")))
    with pytest.raises(CheckpointError, match="mixes"):
        caffe_read.read(path)
    with pytest.raises(CheckpointError, match="does not begin a field of Caffe's NetParameter"):
        caffe_read.read(shared / "weights" / "tiny" / "imagenet-mean.binaryproto")
    with pytest.raises(CheckpointError, match="cannot be read as a mean image"):
        caffe_read.read_mean(shared / "weights" / "tiny" / "alexnet-v2.caffemodel")


def test_cut_short_anywhere(net: Net, path: Path) -> None:
    whole = net.write(path).read_bytes()
    loss = len(message((100, message(*net["loss"]))))  # without its last layer it is whole, for it computes nothing
    for cut in range(0, len(whole) - loss, 13):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            caffe_read.read(path)


def test_where_it_is_cut(net: Net, path: Path) -> None:
    whole = net.write(path).read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(
        CheckpointError, match=r"cut short or damaged: field 100 at byte \d+ would end at byte 3,016, beyond the end at 1,000"
    ):
        caffe_read.read(path)


def test_a_mean_of_another_shape(path: Path) -> None:
    for fields in ([(1, 1), (2, 3), (3, 2), (4, 3)], [(1, 1), (2, 1), (3, 3), (4, 6)], [(7, message((1, b"\x12")))]):
        path.write_bytes(message(*fields, (5, b"\0" * 72)))
        with pytest.raises(CheckpointError, match="expected 1 x 3 x size x size"):
            caffe_read.read_mean(path)


@pytest.mark.parametrize("content", ["length", "numbers", "shape", "fields", "layers", "varint", "settings"])
def test_claims_cost_nothing(net: Net, path: Path, content: str) -> None:
    """A few bytes that claim terabytes, and a file of nothing but tags: both end
    soon, and without memory.
    """
    if content == "length":
        path.write_bytes(varint(100 << 3 | 2) + varint(1 << 50) + b"\0" * 100)
    elif content == "numbers":  # a shape and data that agree on 16 GiB
        shape = message((1, varint(1 << 32)))
        net.set("fc8", 7, message((7, shape)) + varint(5 << 3 | 2) + varint(1 << 34) + b"\0" * 8, b"")
        net.write(path)
    elif content == "shape":
        net.set("fc6", 7, message((7, message((1, varint(1 << 40) * 5))), (5, b"\0" * 8)), b"")
        net.write(path)
    elif content == "fields":
        path.write_bytes(message((100, b"\x08\x00" * 10_000_000)))
    elif content == "layers":
        path.write_bytes(message((100, b"")) * 5_000_000)
    elif content == "varint":
        path.write_bytes(b"\xff" * 10_000_000)
    else:
        path.write_bytes(message((100, message((1, "x" * 20_000_000)))))
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(CheckpointError):
        caffe_read.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20 and time.perf_counter() - start < 5


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [
        SMALL,
        replace(SMALL, name="x", towers=1, lrn_k=2.0, dropout=0.25),
        get_variant("caffenet", width=1 / 16, input_size=67, num_classes=1),
    ],
)
@pytest.mark.parametrize("size", [1, 80])
def test_round_trip(path: Path, variant: Variant, size: int) -> None:
    tensors, mean = parameters(variant), torch.rand(3, size, size) * 255
    caffe_write.write(
        path,
        variant,
        {
            name: tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
            for name, tensor in tensors.items()
        },
        mean,
    )
    read = caffe_read.read(path)
    assert caffe_read.looks_like(path)
    assert same(read.tensors, tensors) and read.ops == without_dropout(variant) and read.input_size == 67
    assert all(tensor.is_contiguous() for tensor in read.tensors.values())
    if size == 1:
        assert read.preprocessing is not None and torch.equal(read.preprocessing.mean, mean)
        assert not (path.parent / "x.mean.binaryproto").exists()
    else:
        assert torch.equal(caffe_read.read_mean(path.parent / "x.mean.binaryproto"), mean)
        assert "x.mean.binaryproto" in " ".join(read.notes)
    assert ("drops 0.25" in " ".join(read.notes)) == (variant.dropout == 0.25)
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(
        {"x.caffemodel", "x.prototxt", *(["x.mean.binaryproto"] if size > 1 else [])}
    )


def test_the_text_beside_it(path: Path) -> None:
    """The prototxt is the caffemodel without its numbers."""
    caffe_write.write(path, SMALL, parameters(SMALL), torch.ones(3, 1, 1))
    text = path.with_suffix(".prototxt").read_text()
    net = text_format.Parse(text, caffe_schema.MESSAGE["Net"]())
    assert [layer.name for layer in net.layer] == ["data", *(op.name for op in SMALL.ops()), "prob"]
    assert list(net.layer[0].input_param.shape[0].dim) == [1, 3, 67, 67]
    for part in (
        'type: "Convolution"',
        "local_size: 5",
        "alpha: 0.0001",
        "group: 2",
        "crop_size: 67",
        "mean_value: 1.0",
        "# The input is BGR",
    ):
        assert part in text
    whole = caffe_schema.MESSAGE["Net"].FromString(path.read_bytes())
    for layer in whole.layer:
        layer.DiscardUnknownFields()  # the blobs
    assert whole == net


WRITE_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"conv1_padding": (1, 2), "input_size": 64}, r"conv1_padding is \(1, 2\).*both sides equally"),
    ({"lrn_window": "tower"}, "lrn_window is 'tower'.*across all"),
    ({"block2": ("conv", "relu", "norm", "spatial", "pool")}, "block2.*spatial"),
    ({"dropout_scaling": "test"}, "dropout_scaling is 'test'.*times 0.5, the outputs are the same"),
    ({"input_size": 71}, "71 pixels gives pool1"),
]


@pytest.mark.parametrize(("changes", "reason"), WRITE_REFUSED)
def test_what_caffe_cannot_hold(path: Path, changes: dict[str, Any], reason: str) -> None:
    variant = replace(SMALL, **changes)
    with pytest.raises(CheckpointError, match=f"Caffe cannot hold this network: .*{reason}"):
        caffe_write.write(path, variant, parameters(variant), torch.ones(3, 1, 1))
    assert not list(path.parent.iterdir())


def test_rgb_and_one_scale(path: Path) -> None:
    """A grey data set's torchvision network, mean 0 and deviation 1: the same logits of the same
    picture, turned round.
    """
    variant = get_variant("torchvision", width=1 / 16, num_classes=4)
    net = AlexNet(variant, torch.Generator().manual_seed(1)).eval()
    scale = torch.tensor([0.0123, 0.0123, 0.0123]) * torch.tensor([1, 1 + 1e-7, 1])
    caffe_write.write(path, variant, net.state_dict(), torch.full((3, 1, 1), 99.5), scale)
    read = caffe_read.read(path)
    assert read.settled["channel_order"] == "BGR" and read.preprocessing is not None
    assert read.preprocessing.scale.tolist() == [pytest.approx(0.0123)] * 3
    assert read.preprocessing.mean.flatten().tolist() == [99.5] * 3
    other = AlexNet(fit(read)).eval()
    other.load_state_dict(dict(read.tensors))
    x = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(other(x.flip(1)), net(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(CheckpointError, match=r"Caffe multiplies all channels by one number\. Export it to onnx"):
        caffe_write.write(path, variant, net.state_dict(), torch.full((3, 1, 1), 99.5), torch.tensor([0.01, 0.01, 0.02]))


def test_a_window_within_towers_of_a_single_tower(path: Path) -> None:
    """One tower's window is the window across all; a net without LRN has none."""
    for changes in ({"towers": 1}, {"block1": ("conv", "relu", "pool"), "block2": ("conv", "relu", "pool")}):
        variant = replace(SMALL, lrn_window="tower", **changes)
        caffe_write.write(path, variant, parameters(variant), torch.ones(3, 1, 1))
        assert all(op.towers == 1 for op in caffe_read.read(path).ops or () if isinstance(op, LRN))


def test_the_advice_about_dropout(path: Path) -> None:
    """The paper's halving at test is the same as half the weights in fc7 and fc8."""
    paper = replace(SMALL, dropout_scaling="test")
    model, tensors = AlexNet(paper).eval(), parameters(paper, 1)
    model.load_state_dict(tensors)
    halved = {**tensors, "fc7.weight": tensors["fc7.weight"] / 2, "fc8.weight": tensors["fc8.weight"] / 2}
    caffe_write.write(path, SMALL, halved, torch.ones(3, 1, 1))
    other = AlexNet(SMALL).eval()
    other.load_state_dict(caffe_read.read(path).tensors)
    x = torch.randn(2, 3, 67, 67) * 50
    torch.testing.assert_close(other(x), model(x))


def test_wrong_tensors_and_names(path: Path) -> None:
    tensors = parameters(SMALL)
    with pytest.raises(CheckpointError, match=r"must end in \.caffemodel"):
        caffe_write.write(path.with_suffix(".prototxt"), SMALL, tensors, torch.ones(3, 1, 1))
    with pytest.raises(CheckpointError, match=r"fc7\.bias missing: an AlexNet has"):
        caffe_write.write(
            path, SMALL, {name: tensor for name, tensor in tensors.items() if name != "fc7.bias"}, torch.ones(3, 1, 1)
        )
    with pytest.raises(CheckpointError, match=r"fc7\.weight has shape \(4,\), but"):
        caffe_write.write(path, SMALL, {**tensors, "fc7.weight": torch.ones(4)}, torch.ones(3, 1, 1))


def test_a_write_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caffe_write.write(path, SMALL, parameters(SMALL), torch.ones(3, 80, 80))
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="could not be written.*No space left.*unchanged"):
        caffe_write.write(path, SMALL, parameters(SMALL, 1), torch.zeros(3, 80, 80))
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    with pytest.raises(OutputError, match="could not be written"):
        caffe_write.write(path.parent / "none" / path.name, SMALL, parameters(SMALL), torch.ones(3, 1, 1))


# --- fuzzing --------------------------------------------------------------------------------------

FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WHOLE = message((1, "small"), *((100, message(*fields)) for fields in Net().values()))


def read_or_refuse(path: Path) -> None:
    caffe_read.looks_like(path)
    for read in (caffe_read.read, caffe_read.read_mean):
        try:
            read(path)
        except CheckpointError as error:
            assert len(str(error)) < 2000


@FUZZ
@given(st.binary(max_size=300))
def test_any_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    read_or_refuse(path)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 40))
def test_a_few_bytes_changed(path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(WHOLE)
    for position, value in changes:
        content[position] = value
    path.write_bytes(content[: len(content) - cut])
    read_or_refuse(path)


@FUZZ
@given(st.data())
def test_settings_changed(path: Path, data: st.DataObject) -> None:
    """Fields of whole layers replaced: what random bytes seldom reach."""
    net = Net()
    value = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 12), st.floats(width=32), st.binary(max_size=30))
    for _ in range(data.draw(st.integers(1, 3))):
        name, number = (
            data.draw(st.sampled_from(sorted(net))),
            data.draw(st.sampled_from([1, 2, 3, 4, 7, 100, 106, 117, 118, 121, 123, 143])),
        )
        inner = st.lists(st.tuples(st.integers(1, 18), value), max_size=5).map(lambda fields: message(*fields))
        net.set(name, number, data.draw(st.one_of(value, inner)))
    read_or_refuse(net.write(path))
