"""Caffe's files: `.caffemodel` in both of its layouts, and `mean.binaryproto`. Read and written.

A caffemodel is one protocol-buffer message, `NetParameter`: a list of layers, each with its settings, the names of the blobs it
reads (bottoms) and writes (tops), and its parameters. The layout of 2014, in which the published AlexNet and CaffeNet came,
keeps layers under field 2 with an enumeration for their type and four numbers for a blob's shape; later files keep them under
field 100 with a word and a list. The numbers are the same in both: float32, convolutions as (out, in / groups, height, width),
the inputs of fc6 in C, H, W order. So nothing is turned round on the way in.

Two halves do the work. `_fields` walks the wire format, where every field is a tag, a length and bytes, and finds the
parameters without reading them; each blob then goes from the file straight into its tensor, and 244 MB cost 244 MB. What is
left of a layer, a few dozen bytes, is parsed by the `protobuf` library with the descriptors in `_SCHEMA`, the excerpt of
Caffe's `caffe.proto` that AlexNet needs. Lengths and shapes are claims: a length must lie inside its parent, a shape must have
as many numbers as the data, and memory is taken for data that is there.

Caffe's pictures are BGR, 0-255. It rounds the size after pooling up where we round down, and its dropout is inverted; a network
in which that would show is refused in either direction.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import dropwhile
from math import isqrt, prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from numpy.typing import NDArray
from torch import Tensor

from alexnet.arithmetic import LRN, Conv, Dropout, Linear, MaxPool, Op, ReLU, output_size
from alexnet.data.augment import Preprocessing
from alexnet.errors import CheckpointError, VariantError
from alexnet.files import write_parts
from alexnet.variants import LAYER_NAMES, POOL_NAMES, Variant
from alexnet.weights.foreign import Foreign, plain_tensors

#: Message -> fields as "name number type [default]"; `*` marks a repeated field, `+` one whose numbers are packed.
_SCHEMA: dict[str, tuple[str, ...]] = {
    "Shape": ("dim 1 int64+",),
    "Blob": ("num 1 int32", "channels 2 int32", "height 3 int32", "width 4 int32", "shape 7 Shape"),
    "Transform": ("scale 1 float 1", "crop_size 3 uint32", "mean_file 4 string", "mean_value 5 float*"),
    "Data": ("crop_size 5 uint32",),
    "Input": ("shape 1 Shape*",),
    "Convolution": (
        "num_output 1 uint32", "bias_term 2 bool true", "pad 3 uint32*", "kernel_size 4 uint32*", "group 5 uint32 1",
        "stride 6 uint32*", "pad_h 9 uint32", "pad_w 10 uint32", "kernel_h 11 uint32", "kernel_w 12 uint32",
        "stride_h 13 uint32", "stride_w 14 uint32", "axis 16 int32 1", "dilation 18 uint32*",
    ),
    "InnerProduct": ("num_output 1 uint32", "bias_term 2 bool true", "axis 5 int32 1", "transpose 6 bool"),
    "LRN": ("local_size 1 uint32 5", "alpha 2 float 1", "beta 3 float 0.75", "norm_region 4 int32", "k 5 float 1"),
    "Pooling": (
        "pool 1 int32", "kernel_size 2 uint32", "stride 3 uint32 1", "pad 4 uint32", "kernel_h 5 uint32", "kernel_w 6 uint32",
        "stride_h 7 uint32", "stride_w 8 uint32", "pad_h 9 uint32", "pad_w 10 uint32", "global_pooling 12 bool",
    ),
    "ReLU": ("negative_slope 1 float",),
    "Dropout": ("dropout_ratio 1 float 0.5",),
    "Layer": (
        "name 1 string", "type 2 string", "bottom 3 string*", "top 4 string*", "transform_param 100 Transform",
        "convolution_param 106 Convolution", "data_param 107 Data", "dropout_param 108 Dropout",
        "inner_product_param 117 InnerProduct", "lrn_param 118 LRN", "pooling_param 121 Pooling", "relu_param 123 ReLU",
        "input_param 143 Input",
    ),
    "OldLayer": (
        "bottom 2 string*", "top 3 string*", "name 4 string", "type 5 int32", "convolution_param 10 Convolution",
        "data_param 11 Data", "dropout_param 12 Dropout", "inner_product_param 17 InnerProduct", "lrn_param 18 LRN",
        "pooling_param 19 Pooling", "relu_param 30 ReLU", "transform_param 36 Transform",
    ),
    "Net": ("name 1 string", "input 3 string*", "input_dim 4 int32*", "input_shape 8 Shape*", "layer 100 Layer*"),
}  # fmt: skip

#: The layout of 2014's layer types, by today's names.
_OLD_TYPES = {
    1: "Accuracy", 2: "BNLL", 3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 7: "EuclideanLoss", 8: "Flatten",
    9: "HDF5Data", 10: "HDF5Output", 11: "Im2col", 12: "ImageData", 13: "InfogainLoss", 14: "InnerProduct", 15: "LRN",
    16: "MultinomialLogisticLoss", 17: "Pooling", 18: "ReLU", 19: "Sigmoid", 20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split",
    23: "TanH", 24: "WindowData", 25: "Eltwise", 26: "Power", 27: "SigmoidCrossEntropyLoss", 28: "HingeLoss", 29: "MemoryData",
    30: "ArgMax", 31: "Threshold", 32: "DummyData", 33: "Slice", 34: "MVN", 35: "AbsVal", 36: "Silence", 37: "ContrastiveLoss",
    38: "Exp", 39: "Deconvolution",
}  # fmt: skip

_WEIGHTED = ("Convolution", "InnerProduct")
_COMPUTING = ("Convolution", "ReLU", "LRN", "Pooling", "InnerProduct")
_PASSING = ("Dropout", "Split", "Flatten")  # the identity at test
_SOURCES = ("Data", "Input", "ImageData", "MemoryData", "HDF5Data", "DummyData", "WindowData")
_SINKS = (
    "Softmax", "SoftmaxWithLoss", "Accuracy", "ArgMax", "Silence", "EuclideanLoss", "HingeLoss", "InfogainLoss",
    "MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "HDF5Output",
)  # fmt: skip

_NEW, _OLD = 100, 2  # where NetParameter keeps its layers
_BLOBS = {_NEW: 7, _OLD: 6}  # where a layer keeps its parameters
_DATA, _DIFF, _DOUBLES, _DOUBLE_DIFF = 5, 6, 8, 9  # where a blob keeps its numbers
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
#: NetParameter's fields and how each is encoded; what begins otherwise is no caffemodel.
_NET_WIRE = {1: _BYTES, 2: _BYTES, 3: _BYTES, 4: _VARINT, 5: _VARINT, 6: _BYTES, 7: _VARINT, 8: _BYTES, 100: _BYTES}

#: The published AlexNet has 24 layers of at most 20 fields; these keep a hostile file from costing time or memory.
_MAX_FIELDS, _MAX_SETTINGS = 1024, 1 << 20
#: Caffe's data sets are squashed to 256 x 256; a caffemodel does not say.
_STORED_SIZE = 256


def _field(spec: str, package: str) -> FieldDescriptorProto:
    name, number, kind, *default = spec.split()
    field = FieldDescriptorProto(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind[-1] in "*+":
        field.label = FieldDescriptorProto.LABEL_REPEATED
        if kind[-1] == "+":
            field.options.packed = True
    kind = kind.rstrip("*+")
    if kind in _SCHEMA:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    if default:
        field.default_value = default[0]
    return field


def _messages() -> dict[str, Any]:
    """`_SCHEMA` as message classes, in a pool of their own: a `caffe_pb2` that is imported too does not collide."""
    file = FileDescriptorProto(name="alexnet/caffe.proto", package="caffe", syntax="proto2")
    for name, fields in _SCHEMA.items():
        file.message_type.add(name=name, field=[_field(spec, file.package) for spec in fields])
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}")) for name in _SCHEMA}


_MESSAGE = _messages()


# ---------------------------------------------------------------- the wire format


@dataclass(frozen=True)
class _Field:
    """Where a field lies in the file: tag at `start`, value from `value` to `end`."""

    number: int
    wire: int
    start: int
    value: int
    end: int


@dataclass(frozen=True)
class _Layer:
    """A layer in today's terms: its settings as a message, its parameters still in the file."""

    type: str
    settings: Any
    blobs: tuple[_Field, ...]

    @property
    def name(self) -> str:
        return f"layer {self.settings.name[:60]!r}"


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise CheckpointError("it ends in the middle of a field")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise CheckpointError("a number of it is longer than ten bytes")


def _next_field(file: BinaryIO, start: int) -> _Field:
    """The field whose tag is at `start`; its end is what it claims and may lie past the file's."""
    file.seek(start)
    tag = _varint(file)
    number, wire = tag >> 3, tag & 7
    if wire == _VARINT:
        value = file.tell()
        _varint(file)
        return _Field(number, wire, start, value, file.tell())
    if wire == _BYTES:
        length = _varint(file)
        return _Field(number, wire, start, file.tell(), file.tell() + length)
    if wire in (_FIXED32, _FIXED64):
        return _Field(number, wire, start, file.tell(), file.tell() + (4 if wire == _FIXED32 else 8))
    raise CheckpointError(f"byte {start:,} is no field of a protocol buffer")


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[_Field]:
    """The fields of a message that lies from `start` to `end`, each read when asked for."""
    for _ in range(_MAX_FIELDS):
        if start == end:
            return
        field = _next_field(file, start)
        if field.end > end:
            raise CheckpointError(
                f"it is cut short or damaged: field {field.number} at byte {field.start:,} would end at byte {field.end:,}, "
                f"past the {end:,} there are"
            )
        yield field
        start = field.end
    raise CheckpointError(f"a part of it has more than {_MAX_FIELDS:,} fields, where an AlexNet has dozens")


def _parse(file: BinaryIO, kind: str, fields: Sequence[_Field]) -> Any:
    """A message of those of its fields that are no numbers."""
    size = sum(field.end - field.start for field in fields)
    if size > _MAX_SETTINGS:
        raise CheckpointError(f"the settings of one part of it take {size:,} bytes, where an AlexNet's take hundreds")
    raw = bytearray()
    for field in fields:
        file.seek(field.start)
        raw += file.read(field.end - field.start)
    return _MESSAGE[kind].FromString(bytes(raw))


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


# ---------------------------------------------------------------- reading


def looks_like(path: Path) -> bool:
    """Whether a file begins as a caffemodel does; at most `_MAX_FIELDS` tags are read, and no parameter.

    A file that is cut short looks like one all the same, so that `read` can say what is wrong with it.
    """
    try:
        with open(path, "rb") as file:
            size, start = _size(file), 0
            for _ in range(_MAX_FIELDS):
                field = _next_field(file, start)
                if _NET_WIRE.get(field.number) != field.wire:
                    return False
                if field.number in _BLOBS:
                    # A layer begins with its name or, in the layout of 2014, with the blob it reads: words.
                    return _next_field(file, field.value).wire == _BYTES
                if field.end >= size:
                    return False
                start = field.end
    except (OSError, CheckpointError):
        pass
    return False


@contextmanager
def _reading(path: Path, what: str) -> Iterator[BinaryIO]:
    """The open file; whatever is wrong with it ends in one error that begins with its path."""
    try:
        with open(path, "rb") as file:
            yield file
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be read as {what}: {error}.") from error
    except (DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as {what}: it is damaged ({error}).") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def read(path: Path) -> Foreign:
    """A caffemodel of either layout.

    Returns:
        operations named by place (conv1 ... fc8), float32 tensors in memory of their own, the input's size if the file tells.

    Raises:
        CheckpointError: missing, damaged, no caffemodel, or a network that is no AlexNet.
    """
    with _reading(path, "a caffemodel") as file:
        _refuse_text(file)
        net, layers, old = _layers(file)
        main, notes = _follow(layers, tuple(net.input))
        ops, weighted = _translate(main)
        input_size = _input_size(net, layers)
        tensors = _tensors(file, ops, weighted, last_side(ops, input_size))
        preprocessing, more = _preprocessing(layers, input_size)
    return Foreign(
        format="Caffe, layout of 2014" if old else "Caffe",
        tensors=tensors,
        ops=ops,
        settled={"channel_order": "BGR", "dropout_scaling": "train"},
        input_size=input_size,
        preprocessing=preprocessing,
        notes=(*notes, *_renamed(weighted), *more),
    )


def _refuse_text(file: BinaryIO) -> None:
    head = file.read(4096)
    file.seek(0)
    if head and b"\0" not in head and any(word in head for word in (b"layer {", b"layers {", b"layer{", b"layers{")):
        raise CheckpointError("it is a prototxt, the description of a network without its weights: name the .caffemodel")


def _layers(file: BinaryIO) -> tuple[Any, list[_Layer], bool]:
    """The net's own fields, its layers in order, and whether they are in the layout of 2014."""
    own: list[_Field] = []
    layers: dict[int, list[_Layer]] = {_NEW: [], _OLD: []}
    for field in _fields(file, 0, _size(file)):
        if _NET_WIRE.get(field.number) != field.wire:
            raise CheckpointError(f"byte {field.start:,} is no field of Caffe's NetParameter; it is another kind of file")
        if field.number in layers:
            layers[field.number].append(_layer(file, field))
        else:
            own.append(field)
    if bool(layers[_NEW]) == bool(layers[_OLD]):
        raise CheckpointError("it holds no layers" if not layers[_NEW] else "it mixes Caffe's two layouts")
    return _parse(file, "Net", own), layers[_NEW] or layers[_OLD], bool(layers[_OLD])


def _layer(file: BinaryIO, field: _Field) -> _Layer:
    parts = list(_fields(file, field.value, field.end))
    blobs = tuple(part for part in parts if part.number == _BLOBS[field.number] and part.wire == _BYTES)
    settings = [part for part in parts if part.number != _BLOBS[field.number]]
    if field.number == _NEW:
        message = _parse(file, "Layer", settings)
        return _Layer(message.type, message, blobs)
    if any(part.number == 1 for part in parts):
        raise CheckpointError("it is in Caffe's layout of 2013: convert it with Caffe's upgrade_net_proto_binary")
    message = _parse(file, "OldLayer", settings)
    return _Layer(_OLD_TYPES.get(message.type, f"type {message.type}"), message, blobs)


def _follow(layers: Sequence[_Layer], inputs: tuple[str, ...]) -> tuple[list[_Layer], tuple[str, ...]]:
    """The layers that compute, in order, and notes on the others.

    The blobs that hold the latest result are followed from the picture on: a network is a chain if every computing layer reads
    one of them. Layers in place write the name they read; `Split` gives a blob further names; what a loss or a softmax writes
    is not for a computing layer. Without an input the first layer's is taken on trust.
    """
    newest = set(inputs[:1]) or None
    main, notes = [], []
    for layer in layers:
        bottoms, tops = layer.settings.bottom, layer.settings.top
        if layer.type in _SOURCES:
            newest = newest or set(tops[:1])
        elif layer.type in _COMPUTING or layer.type in _PASSING:
            if layer.type == "Split" and newest is not None and not newest & set(bottoms):
                continue  # of the labels
            _check_link(layer, newest)
            newest = set(tops) | ((newest or set()) if layer.type == "Split" else set())
            if layer.type in _COMPUTING:
                main.append(layer)
            elif layer.type == "Dropout" and layer.settings.dropout_param.dropout_ratio != 0.5:
                notes.append(f"{layer.name} drops {_decimal(layer.settings.dropout_param.dropout_ratio):g} of the units")
        elif layer.type in _SINKS:
            newest = newest and newest - set(tops)
        else:
            known = ", ".join((*_COMPUTING, *_PASSING))
            raise CheckpointError(f"{layer.name} is of type {layer.type[:60]!r}, which no AlexNet has; known: {known}")
    return main, tuple(notes)


def _check_link(layer: _Layer, newest: set[str] | None) -> None:
    bottoms, tops = layer.settings.bottom, layer.settings.top
    if len(bottoms) != 1 or not tops or (len(tops) > 1 and layer.type != "Split"):
        raise CheckpointError(f"{layer.name} reads {len(bottoms)} blobs and writes {len(tops)}: an AlexNet is a chain")
    if newest is not None and bottoms[0] not in newest:
        raise CheckpointError(
            f"{layer.name} reads {bottoms[0][:60]!r} instead of the result of the layer before it: the network branches, and "
            "an AlexNet is a chain"
        )


def _translate(main: Sequence[_Layer]) -> tuple[tuple[Op, ...], list[_Layer]]:
    """Operations under our names, and the layers with parameters, conv1 to fc8."""
    weighted = [layer for layer in main if layer.type in _WEIGHTED]
    if [layer.type for layer in weighted] != ["Convolution"] * 5 + ["InnerProduct"] * 3:
        found = ", ".join(f"{layer.settings.name[:30]} ({layer.type})" for layer in weighted[:12]) or "none"
        raise CheckpointError(f"AlexNet has five convolutions, then three inner products, and this network has: {found}")
    ops: list[Op] = []
    number = 0
    for layer in main:
        number += layer.type in _WEIGHTED
        if not number:
            raise CheckpointError(f"{layer.name} ({layer.type}) stands before the first convolution")
        ops.append(_TRANSLATE[layer.type](layer, number))
    return tuple(ops), weighted


def _square(layer: _Layer, settings: Any, what: str, default: int) -> int:
    """A size that Caffe lets one give once, once a side, or as `_h` and `_w`: one number or a refusal."""
    height, width = (f"{what.removesuffix('_size')}_{side}" for side in "hw")
    listed = getattr(settings, what)
    if settings.HasField(height) or settings.HasField(width):
        sides = [getattr(settings, height), getattr(settings, width)]  # Caffe takes 0 for the one that is missing
    elif isinstance(listed, int):
        sides = [listed] if settings.HasField(what) else []
    else:
        sides = list(listed)
    if len(set(sides)) > 1:
        raise CheckpointError(f"{layer.name} has a {what} of {' x '.join(map(str, sides[:3]))}: AlexNet's windows are square")
    return sides[0] if sides else default


def _demand(layer: _Layer, **found: tuple[Any, Any]) -> None:
    """Settings that AlexNet has only one value for: name = (found, wanted)."""
    for name, (value, wanted) in found.items():
        if value != wanted:
            raise CheckpointError(f"{layer.name} has {name} = {value}, where an AlexNet has {wanted}")


def _convolution(layer: _Layer, number: int) -> Op:
    settings = layer.settings.convolution_param
    dilated = max(settings.dilation, default=1)
    _demand(layer, bias_term=(settings.bias_term, True), axis=(settings.axis, 1), dilation=(dilated, 1))
    padding = _square(layer, settings, "pad", 0)
    size, stride = _square(layer, settings, "kernel_size", 0), _square(layer, settings, "stride", 1)
    if min(size, stride, settings.group, settings.num_output) < 1:
        raise CheckpointError(
            f"{layer.name} has num_output {settings.num_output}, kernel_size {size}, stride {stride}, group {settings.group}: "
            "each must be at least 1"
        )
    return Conv(
        name=LAYER_NAMES[number - 1], kernels=settings.num_output, size=size, stride=stride, padding=(padding, padding),
        groups=settings.group,
    )  # fmt: skip


def _inner_product(layer: _Layer, number: int) -> Op:
    settings = layer.settings.inner_product_param
    _demand(layer, bias_term=(settings.bias_term, True), axis=(settings.axis, 1), transpose=(settings.transpose, False))
    if settings.num_output < 1:
        raise CheckpointError(f"{layer.name} has num_output {settings.num_output}: it must be at least 1")
    return Linear(name=LAYER_NAMES[number - 1], units=settings.num_output)


def _relu(layer: _Layer, number: int) -> Op:
    _demand(layer, negative_slope=(layer.settings.relu_param.negative_slope, 0))
    return ReLU(name=f"relu{number}")


def _lrn(layer: _Layer, number: int) -> Op:
    settings = layer.settings.lrn_param
    region = {0: "ACROSS_CHANNELS", 1: "WITHIN_CHANNEL"}.get(settings.norm_region, settings.norm_region)
    _demand(layer, norm_region=(region, "ACROSS_CHANNELS"))
    size = settings.local_size
    if size % 2 == 0:
        raise CheckpointError(f"{layer.name} has local_size {size}: Caffe itself takes odd sizes only")
    coefficient, beta, k = _decimal(settings.alpha) / size, _decimal(settings.beta), _decimal(settings.k)
    return LRN(name=f"norm{number}", size=size, coefficient=coefficient, beta=beta, k=k)


def _pooling(layer: _Layer, number: int) -> Op:
    settings = layer.settings.pooling_param
    method = {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}.get(settings.pool, settings.pool)
    _demand(layer, pool=(method, "MAX"), global_pooling=(settings.global_pooling, False))
    _demand(layer, pad=(_square(layer, settings, "pad", 0), 0))
    size, stride = _square(layer, settings, "kernel_size", 0), _square(layer, settings, "stride", 1)
    if min(size, stride) < 1:
        raise CheckpointError(f"{layer.name} has kernel_size {size} and stride {stride}: both must be at least 1")
    return MaxPool(name=POOL_NAMES.get(number, f"pool{number}"), size=size, stride=stride)


_TRANSLATE = {
    "Convolution": _convolution, "InnerProduct": _inner_product, "ReLU": _relu, "LRN": _lrn, "Pooling": _pooling,
}  # fmt: skip


def _decimal(value: float) -> float:
    """A float32 as the decimal that somebody wrote: 9.9999997e-05 is 0.0001."""
    return float(str(np.float32(value)))


def _input_size(net: Any, layers: Sequence[_Layer]) -> int | None:
    """Side of the picture, from the net's own input, an Input layer or the crop of a data layer."""
    shapes = [list(shape.dim) for shape in net.input_shape[:1]] or ([list(net.input_dim[:4])] if net.input_dim else [])
    for layer in layers:
        if layer.type == "Input":
            shapes += [list(shape.dim) for shape in layer.settings.input_param.shape[:1]]
    if shapes:
        shape = shapes[0]
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise CheckpointError(f"its input is {' x '.join(map(str, shape[:8]))}: AlexNet takes N x 3 x size x size")
        return shape[2]
    for layer in layers:
        if layer.type in _SOURCES:
            crop = layer.settings.transform_param.crop_size or layer.settings.data_param.crop_size
            if crop:
                return crop
    return None


def last_side(ops: Sequence[Op], input_size: int | None) -> int | None:
    """Side of the maps that fc6 sees, if the input's is known.

    Raises:
        CheckpointError: the input is too small, or Caffe's rounding up after a pooling gives another size than ours.
    """
    side = input_size
    for op in ops:
        if side is None or not isinstance(op, Conv | MaxPool):
            continue
        before = side
        try:
            side = output_size(before, op.size, op.stride, op.padding if isinstance(op, Conv) else 0)
        except VariantError as error:
            raise CheckpointError(f"an input of {input_size} pixels is too small for {op.name}: {error}") from error
        if isinstance(op, MaxPool) and (before - op.size) % op.stride:
            raise CheckpointError(
                f"an input of {input_size} pixels gives {op.name} {before}, of which Caffe's rounding up makes {side + 1} and "
                f"ours, down, {side}"
            )
    return side


def _renamed(weighted: Sequence[_Layer]) -> tuple[str, ...]:
    pairs = [(layer.settings.name[:60], name) for layer, name in zip(weighted, LAYER_NAMES, strict=True)]
    return tuple(f"layer {theirs!r} is {ours} here" for theirs, ours in pairs if theirs != ours)


def _preprocessing(layers: Sequence[_Layer], input_size: int | None) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """What the first data layer does to pixels: complete if it subtracts a colour; a mean image is another file."""
    transforms = [layer.settings.transform_param for layer in layers if layer.type in _SOURCES]
    transform = next((one for one in transforms if one.ByteSize()), _MESSAGE["Transform"]())
    if len(transform.mean_value) in (1, 3) and input_size:
        bgr = torch.tensor([_decimal(value) for value in transform.mean_value]).expand(3)
        mean, scale = bgr.flip(0).reshape(3, 1, 1).clone(), torch.full((3,), _decimal(transform.scale))
        return Preprocessing(max(_STORED_SIZE, input_size), input_size, "squash", True, mean, scale), ()
    notes = []
    if transform.mean_file:
        notes.append(f"it was trained with the mean image {transform.mean_file[:200]}, a file beside it")
    if transform.scale != 1:
        notes.append(f"pixels minus their mean are multiplied by {_decimal(transform.scale):g}")
    return None, tuple(notes)


def _tensors(file: BinaryIO, ops: Sequence[Op], weighted: Sequence[_Layer], side: int | None) -> dict[str, Tensor]:
    """Parameters by our names; `side` is the last maps', if the input's is known."""
    tensors: dict[str, Tensor] = {}
    channels = 3
    for op, layer in zip((op for op in ops if isinstance(op, Conv | Linear)), weighted, strict=True):
        if len(layer.blobs) != 2:
            raise CheckpointError(f"{layer.name} holds {len(layer.blobs)} blobs instead of two, weights and biases")
        weight, bias = (_blob(file, blob, layer.name) for blob in layer.blobs)
        shape = _weight_shape(op, layer, channels, side, weight[0].size)
        tensors[f"{op.name}.weight"] = _shaped(layer, "weights", *weight, shape)
        tensors[f"{op.name}.bias"] = _shaped(layer, "biases", *bias, shape[:1])
        channels = shape[0]
    return tensors


def _shaped(layer: _Layer, what: str, numbers: NDArray[np.float32], dims: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """As the layer's settings say. The layout of 2014 pads shapes with ones in front: (1, 1, out, in), (1, 1, 1, out)."""
    if _without_ones(dims) != _without_ones(shape):
        found, wanted = (" x ".join(map(str, sizes)) for sizes in (dims, shape))
        raise CheckpointError(f"{layer.name} holds {found} {what}, where the network needs {wanted}")
    return torch.from_numpy(numbers.reshape(shape))


def _without_ones(dims: Sequence[int]) -> list[int]:
    return list(dropwhile(lambda size: size == 1, dims))


def _weight_shape(op: Conv | Linear, layer: _Layer, channels: int, side: int | None, count: int) -> tuple[int, ...]:
    """Shape of a layer's weights. `channels` of `side` x `side` come in; `count` decides fc6 if the side is unknown."""
    if isinstance(op, Conv):
        if channels % op.groups or op.kernels % op.groups:
            raise CheckpointError(
                f"{layer.name} has group {op.groups}, which must divide its {channels} inputs and {op.kernels} outputs"
            )
        return op.kernels, channels // op.groups, op.size, op.size
    if op.name != "fc6":
        return op.units, channels
    area = side**2 if side else max(count // (op.units * channels), 1)
    if isqrt(area) ** 2 != area:
        raise CheckpointError(
            f"{layer.name} has {count:,} weights, which is no square map of {channels} channels for each unit"
        )
    return op.units, channels * area


def _blob(file: BinaryIO, field: _Field, name: str) -> tuple[NDArray[np.float32], list[int]]:
    """A blob's numbers, flat, and the shape that it claims, which they back."""
    parts = list(_fields(file, field.value, field.end))
    settings = _parse(file, "Blob", [part for part in parts if part.number not in (_DATA, _DIFF, _DOUBLES, _DOUBLE_DIFF)])
    dims = list(settings.shape.dim) if settings.HasField("shape") else _old_shape(settings)
    doubles = any(part.number == _DOUBLES for part in parts)
    chunks = [part for part in parts if part.number == (_DOUBLES if doubles else _DATA)]
    dtype = np.dtype("<f8" if doubles else "<f4")
    count, rest = divmod(sum(part.end - part.value for part in chunks), dtype.itemsize)
    if not count or rest or any(part.wire != _BYTES for part in chunks):
        raise CheckpointError(f"{name} holds a blob without numbers" if not count else f"the numbers of {name} are damaged")
    if len(dims) > 8 or min(dims, default=1) < 1 or prod(dims) != count:
        claimed = " x ".join(map(str, dims[:8]))
        raise CheckpointError(f"{name} claims a blob of {claimed} numbers and holds {count:,}")
    return _numbers(file, chunks, np.empty(count, dtype)).astype(np.float32, copy=False), dims


def _old_shape(settings: Any) -> list[int]:
    return [settings.num, settings.channels, settings.height, settings.width]


def _numbers(file: BinaryIO, chunks: Sequence[_Field], array: NDArray[Any]) -> NDArray[Any]:
    """Fill an array from the file, without a copy between."""
    view, position = array.data.cast("B"), 0
    for chunk in chunks:
        file.seek(chunk.value)
        length = chunk.end - chunk.value
        if file.readinto(view[position : position + length]) != length:  # type: ignore[attr-defined]
            raise CheckpointError("it became shorter while it was read")
        position += length
    return array


def read_mean(path: Path) -> Tensor:
    """Caffe's mean image, `mean.binaryproto`.

    Returns:
        (3, S, S) float32 in [0, 255], RGB; the file is BGR.

    Raises:
        CheckpointError: missing, damaged, or no square picture of three channels.
    """
    with _reading(path, "a mean image") as file:
        numbers, dims = _blob(file, _Field(0, _BYTES, 0, 0, _size(file)), "the file")
        sizes = _without_ones(dims)
        if len(sizes) != 3 or sizes[0] != 3 or sizes[1] != sizes[2]:
            raise CheckpointError(f"it is {' x '.join(map(str, dims))}: a mean image is 1 x 3 x size x size")
    return torch.from_numpy(numbers.reshape(sizes)).flip(0)


# ---------------------------------------------------------------- writing


def write(path: Path, variant: Variant, tensors: Mapping[str, Tensor], mean: Tensor) -> None:
    """Write a caffemodel in today's layout and, beside it, `<stem>.prototxt` (the network, to deploy) and
    `<stem>.mean.binaryproto` if the mean is an image. Each is written under another name and renamed, the caffemodel last.

    Args:
        path: the `.caffemodel`.
        tensors: the parameters, conv1.weight ... fc8.bias; written as float32.
        mean: (3, S, S) or (3, 1, 1) in [0, 255], RGB.

    Raises:
        CheckpointError: a network that Caffe cannot hold, tensors of another network, or a file that cannot be written.
    """
    if path.suffix != ".caffemodel":
        raise CheckpointError(f"{path} must end in .caffemodel: a .prototxt and a mean image are written beside it.")
    _refuse_uncaffe(variant)
    numbers = plain_tensors(variant, tensors)
    image = mean.shape[1:] != (1, 1)
    beside = path.with_name(f"{path.stem}.mean.binaryproto")
    layers = _deploy(variant, mean, beside.name if image else "")
    text = _MESSAGE["Net"](name=f"AlexNet-{variant.name}", layer=layers)
    parts: dict[Path, Iterable[bytes | memoryview]] = {path.with_name(f"{path.stem}.prototxt"): _prototxt(variant, text, path)}
    if image:
        parts[beside] = _mean_parts(mean)
    parts[path] = _model_parts(text.name, layers, numbers)
    write_parts(parts)


def _refuse_uncaffe(variant: Variant) -> None:
    """Name the first field that Caffe has no layer for."""
    ops = variant.ops()
    before, after = variant.conv1_padding
    norms = [op for op in ops if isinstance(op, LRN)]
    reasons = {
        "removed": bool(variant.removed) and "an AlexNet read back has all its layers",
        "activation": variant.activation != "relu" and "an AlexNet read back has ReLUs",
        "channel_order": variant.channel_order == "RGB" and "Caffe's pictures are BGR",
        "pixels": variant.pixels == "unit" and "Caffe multiplies all channels by one number",
        "conv1_padding": before != after and "Caffe pads both sides alike",
        "lrn_window": any(op.towers > 1 for op in norms) and "Caffe's LRN runs across all channels",
        **{
            name: "spatial" in getattr(variant, name) and "Caffe has no such spatial norm"
            for name in ("block1", "block2", "block5")
        },
        "dropout_scaling": variant.dropout > 0
        and variant.dropout_scaling == "test"
        and "Caffe scales in training and cannot halve at test; with 'train', and the weights of fc7 and fc8 times "
        f"{1 - variant.dropout:g}, the outputs are the same",
    }
    for name, reason in reasons.items():
        if reason:
            raise CheckpointError(f"Caffe cannot hold this network: {name} is {getattr(variant, name)!r}, but {reason}.")
    try:
        last_side(ops, variant.input_size)
    except CheckpointError as error:
        raise CheckpointError(f"Caffe cannot hold this network: {error}.") from error


def _deploy(variant: Variant, mean: Tensor, mean_file: str) -> list[Any]:
    """The layers without parameters, from the input to the softmax."""
    transform: dict[str, Any] = {"crop_size": variant.input_size}
    if mean_file:
        transform["mean_file"] = mean_file
    else:
        transform["mean_value"] = mean.flatten().flip(0).tolist()  # BGR
    side = variant.input_size
    shape = {"shape": [{"dim": [1, 3, side, side]}]}
    layers = [_MESSAGE["Layer"](name="data", type="Input", top=["data"], transform_param=transform, input_param=shape)]
    blob = "data"
    for op in (op for op in variant.ops() if not (isinstance(op, Dropout) and op.rate == 0)):
        kind, settings = _settings(op)
        top = blob if isinstance(op, ReLU | Dropout) else op.name  # in place
        layers.append(_MESSAGE["Layer"](name=op.name, type=kind, bottom=[blob], top=[top], **settings))
        blob = top
    return [*layers, _MESSAGE["Layer"](name="prob", type="Softmax", bottom=[blob], top=["prob"])]


def _settings(op: Op) -> tuple[str, dict[str, Any]]:
    """Caffe's type of an operation, and its settings; what is Caffe's default is left out."""
    settings: dict[str, Any]
    match op:
        case Conv():
            settings = {"num_output": op.kernels, "kernel_size": [op.size]}
            settings |= {"pad": [op.padding[0]]} if op.padding[0] else {}
            settings |= {"stride": [op.stride]} if op.stride != 1 else {}
            settings |= {"group": op.groups} if op.groups != 1 else {}
            return "Convolution", {"convolution_param": settings}
        case Linear():
            return "InnerProduct", {"inner_product_param": {"num_output": op.units}}
        case LRN():
            settings = {"local_size": op.size, "alpha": op.coefficient * op.size, "beta": op.beta, "k": op.k}
            return "LRN", {"lrn_param": settings}
        case MaxPool():
            return "Pooling", {"pooling_param": {"kernel_size": op.size, "stride": op.stride}}
        case Dropout():
            return "Dropout", {"dropout_param": {"dropout_ratio": op.rate}}
    assert isinstance(op, ReLU), op
    return "ReLU", {}


def _prototxt(variant: Variant, net: Any, path: Path) -> Iterator[bytes]:
    transform = net.layer[0].transform_param
    mean = f"the mean image in {transform.mean_file}" if transform.mean_file else "mean_value"
    yield (
        f"# AlexNet, variant {variant.name!r}; its weights are in {path.name}.\n"
        f"# The input is BGR, 0-255, minus {mean}. An Input layer does none of that: it is for the caller to do.\n"
        f"{text_format.MessageToString(net, as_utf8=True)}"
    ).encode()


def _tag(number: int, length: int) -> bytes:
    """What stands before `length` bytes of a field."""
    out = bytearray()
    for value in (number << 3 | _BYTES, length):
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def _model_parts(name: str, layers: Sequence[Any], tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The caffemodel, piece by piece: no copy of the parameters is made."""
    yield _MESSAGE["Net"](name=name).SerializeToString()
    for layer in layers:
        blobs = []
        for key in (f"{layer.name}.weight", f"{layer.name}.bias"):
            if key in tensors:
                settings = _MESSAGE["Blob"](shape={"dim": list(tensors[key].shape)})
                blobs.append((_tag(_BLOBS[_NEW], _blob_size(settings, tensors[key])), settings, tensors[key]))
        head = layer.SerializeToString()
        yield _tag(_NEW, len(head) + sum(len(tag) + _blob_size(*blob) for tag, *blob in blobs)) + head
        for tag, settings, tensor in blobs:
            yield tag
            yield from _blob_parts(settings, tensor)


def _blob_parts(settings: Any, tensor: Tensor) -> Iterator[bytes | memoryview]:
    yield settings.SerializeToString() + _tag(_DATA, tensor.numel() * 4)
    yield tensor.numpy().astype("<f4", copy=False).reshape(-1).data


def _blob_size(settings: Any, tensor: Tensor) -> int:
    size = tensor.numel() * 4
    return settings.ByteSize() + len(_tag(_DATA, size)) + size


def _mean_parts(mean: Tensor) -> Iterator[bytes | memoryview]:
    """As Caffe's compute_image_mean writes it: the four numbers of 2014, BGR."""
    settings = _MESSAGE["Blob"](num=1, channels=3, height=mean.shape[1], width=mean.shape[2])
    return _blob_parts(settings, mean.detach().to("cpu", torch.float32).flip(0).contiguous())
