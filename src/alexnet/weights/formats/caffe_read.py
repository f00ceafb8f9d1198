"""Reading Caffe's files: `.caffemodel` in both of its layouts, and `mean.binaryproto`.

Two halves do the work. `wire.fields` finds the parameters without reading them; each blob then
goes from the file straight into its tensor, and 244 MB cost 244 MB. What is left of a layer, a
few dozen bytes, is parsed by the `protobuf` library with the descriptors in `caffe_schema.py`.
Lengths and shapes are claims: a shape must have as many numbers as the data, and memory is
taken for data that is there.

Caffe's pictures are BGR, 0-255. It rounds the size after pooling up where we round down, and its
dropout is inverted; a network in which that would show is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile
from math import isqrt, prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from torch import Tensor

from alexnet import paper
from alexnet.arithmetic import LRN, Conv, Linear, MaxPool, Op, ReLU, output_size
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError, VariantError
from alexnet.variants import LAYER_NAMES, POOL_NAMES
from alexnet.weights.formats import wire
from alexnet.weights.formats.caffe_schema import (
    BLOBS,
    DATA,
    DIFF,
    DOUBLE_DIFF,
    DOUBLES,
    MESSAGE,
    NET_WIRE,
    NEW,
    OLD,
    OLD_TYPES,
    decimal,
)
from alexnet.weights.match import Foreign, reading

_WEIGHTED = ("Convolution", "InnerProduct")
_COMPUTING = ("Convolution", "ReLU", "LRN", "Pooling", "InnerProduct")
_PASSING = ("Dropout", "Split", "Flatten")  # the identity at test
_SOURCES = ("Data", "Input", "ImageData", "MemoryData", "HDF5Data", "DummyData", "WindowData")
_SINKS = (
    "Softmax",
    "SoftmaxWithLoss",
    "Accuracy",
    "ArgMax",
    "Silence",
    "EuclideanLoss",
    "HingeLoss",
    "InfogainLoss",
    "MultinomialLogisticLoss",
    "SigmoidCrossEntropyLoss",
    "HDF5Output",
)

#: Most bytes of a layer's settings. An AlexNet's take hundreds; this keeps a hostile file from
#: taking memory.
_MAX_SETTINGS = 1 << 20
#: Caffe's data sets are squashed to 256 x 256; a caffemodel does not say.
_STORED_SIZE = 256


@dataclass(frozen=True)
class _CaffeLayer:
    """A layer in today's terms: its settings as a message, its parameters still in the file."""

    type: str
    settings: Any
    blobs: tuple[wire.Field, ...]

    @property
    def name(self) -> str:
        return f"layer {self.settings.name[:60]!r}"


def _parse(file: BinaryIO, kind: str, fields: Sequence[wire.Field]) -> Any:
    """Parse a message without its parameters."""
    size = sum(field.end - field.start for field in fields)
    if size > _MAX_SETTINGS:
        raise CheckpointError(f"the settings of one layer take {size:,} bytes, but an AlexNet's take hundreds")
    raw = bytearray()
    for field in fields:
        file.seek(field.start)
        raw += file.read(field.end - field.start)
    try:
        return MESSAGE[kind].FromString(bytes(raw))
    except DecodeError as error:
        raise CheckpointError(f"it is damaged ({error})") from error


def looks_like(path: Path) -> bool:
    """Whether a file begins like a caffemodel; at most `wire.MAX_FIELDS` tags are read, and no
    parameter.

    A file that is cut short looks like one all the same, so that `read` can
    say what is wrong with it.
    """
    try:
        with open(path, "rb") as file:
            size, start = wire.size(file), 0
            for _ in range(wire.MAX_FIELDS):
                field = wire.next_field(file, start)
                if NET_WIRE.get(field.number) != field.wire:
                    return False
                if field.number in BLOBS:
                    # A layer begins with its name or, in the layout of 2014, with
                    # the blob it reads: words.
                    return wire.next_field(file, field.value).wire == wire.BYTES
                if field.end >= size:
                    return False
                start = field.end
    except (OSError, CheckpointError):
        pass
    return False


def read(path: Path) -> Foreign:
    """A caffemodel of either layout.

    Returns:
        operations named by place (conv1 ... fc8), float32 tensors in memory of their own, the
        input's size if the file says it.

    Raises:
        CheckpointError: missing, damaged, not a caffemodel, or a network that is not an AlexNet.
    """
    with reading(path, "a caffemodel") as file:
        _refuse_text(file)
        net, layers, old = _layers(file)
        main, notes = _follow(layers, tuple(net.input))
        ops, weighted = _translate(main)
        input_size = _input_size(net, layers)
        tensors = _tensors(file, ops, weighted, last_side(ops, input_size))
        preprocessing, scale, more = _preprocessing(layers, input_size)
    return Foreign(
        format="Caffe, layout of 2014" if old else "Caffe",
        tensors=tensors,
        ops=ops,
        settled={"channel_order": "BGR", "dropout_scaling": "train"},
        input_size=input_size,
        preprocessing=preprocessing,
        scale=scale,
        notes=(*notes, *_renamed(weighted), *more),
    )


def beginning(path: Path) -> Foreign:
    """The first five convolutions of a caffemodel of any network.

    Raises:
        CheckpointError: missing, damaged, no caffemodel, or a network without a convolution.
    """
    with reading(path, "a caffemodel") as file:
        _refuse_text(file)
        _, layers, old = _layers(file)
        first = [layer for layer in layers if layer.type == "Convolution" and layer.blobs][: len(paper.KERNELS)]
        if not first:
            raise CheckpointError("it holds no convolution with weights")
        tensors = {}
        for place, layer in enumerate(first, 1):
            numbers, dims = _blob(file, layer.blobs[0], layer.name)
            tensors[f"conv{place}.weight"] = torch.from_numpy(numbers.reshape(dims))
            for bias in layer.blobs[1:2]:
                tensors[f"conv{place}.bias"] = torch.from_numpy(_blob(file, bias, layer.name)[0].reshape(-1))
    format = "Caffe, layout of 2014" if old else "Caffe"
    return Foreign(format, tensors, settled={"channel_order": "BGR"}, notes=(f"its first layer is {first[0].name}",))


def _refuse_text(file: BinaryIO) -> None:
    head = file.read(4096)
    file.seek(0)
    if head and b"\0" not in head and any(word in head for word in (b"layer {", b"layers {", b"layer{", b"layers{")):
        raise CheckpointError("it is a prototxt, the description of a network without weights: name the .caffemodel")


def _layers(file: BinaryIO) -> tuple[Any, list[_CaffeLayer], bool]:
    """The net's own fields, its layers in order, and whether they are in the layout of 2014."""
    own: list[wire.Field] = []
    layers: dict[int, list[_CaffeLayer]] = {NEW: [], OLD: []}
    for field in wire.fields(file, 0, wire.size(file)):
        if NET_WIRE.get(field.number) != field.wire:
            raise CheckpointError(
                f"it is another kind of file: byte {field.start:,} does not begin a field of Caffe's NetParameter"
            )
        if field.number in layers:
            layers[field.number].append(_layer(file, field))
        else:
            own.append(field)
    if bool(layers[NEW]) == bool(layers[OLD]):
        raise CheckpointError("it holds no layers" if not layers[NEW] else "it mixes Caffe's two layouts")
    return _parse(file, "Net", own), layers[NEW] or layers[OLD], bool(layers[OLD])


def _layer(file: BinaryIO, field: wire.Field) -> _CaffeLayer:
    parts = list(wire.fields(file, field.value, field.end))
    blobs = tuple(part for part in parts if part.number == BLOBS[field.number] and part.wire == wire.BYTES)
    settings = [part for part in parts if part.number != BLOBS[field.number]]
    if field.number == NEW:
        message = _parse(file, "Layer", settings)
        return _CaffeLayer(message.type, message, blobs)
    if any(part.number == 1 for part in parts):
        raise CheckpointError("it is in Caffe's layout of 2013: convert it with Caffe's upgrade_net_proto_binary")
    message = _parse(file, "OldLayer", settings)
    return _CaffeLayer(OLD_TYPES.get(message.type, f"type {message.type}"), message, blobs)


def _follow(layers: Sequence[_CaffeLayer], inputs: tuple[str, ...]) -> tuple[list[_CaffeLayer], tuple[str, ...]]:
    """The layers that compute, in order, and notes about the others.

    The blobs that hold the latest result are followed from the picture on: a network is a chain if
    every computing layer reads one of them. Layers in place write the name they read; `Split` gives
    a blob further names; what a loss or a softmax writes is not for a computing layer. Without an
    input the first layer's is taken on trust.
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
                notes.append(f"{layer.name} drops {decimal(layer.settings.dropout_param.dropout_ratio):g} of the units")
        elif layer.type in _SINKS:
            newest = newest and newest - set(tops)
        else:
            known = ", ".join((*_COMPUTING, *_PASSING))
            raise CheckpointError(
                f"{layer.name} is of type {layer.type[:60]!r}, which an AlexNet does not have; known types: {known}"
            )
    return main, tuple(notes)


def _check_link(layer: _CaffeLayer, newest: set[str] | None) -> None:
    bottoms, tops = layer.settings.bottom, layer.settings.top
    if len(bottoms) != 1 or not tops or (len(tops) > 1 and layer.type != "Split"):
        raise CheckpointError(
            f"{layer.name} reads {len(bottoms)} blobs and writes {len(tops)}: in an AlexNet, each "
            "layer reads one and writes one"
        )
    if newest is not None and bottoms[0] not in newest:
        raise CheckpointError(
            f"{layer.name} reads {bottoms[0][:60]!r} instead of the output of the layer before it: "
            "the network branches, and an AlexNet does not"
        )


def _translate(main: Sequence[_CaffeLayer]) -> tuple[tuple[Op, ...], list[_CaffeLayer]]:
    """Operations under our names, and the layers with parameters, conv1 to fc8."""
    weighted = [layer for layer in main if layer.type in _WEIGHTED]
    if [layer.type for layer in weighted] != ["Convolution"] * 5 + ["InnerProduct"] * 3:
        listed = ", ".join(f"{layer.settings.name[:30]} ({layer.type})" for layer in weighted[:12]) or "none"
        raise CheckpointError(f"an AlexNet has five convolutions, then three inner products, but this network has {listed}")
    ops: list[Op] = []
    number = 0
    for layer in main:
        number += layer.type in _WEIGHTED
        if not number:
            raise CheckpointError(f"{layer.name} ({layer.type}) comes before the first convolution")
        ops.append(_TRANSLATE[layer.type](layer, number))
    return tuple(ops), weighted


def _square(layer: _CaffeLayer, settings: Any, what: str, default: int) -> int:
    """A size that Caffe allows once, once per side, or as `_h` and `_w`; refused unless both sides
    are equal.
    """
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


def _demand(layer: _CaffeLayer, **settings: tuple[Any, Any]) -> None:
    """Refuse settings that no AlexNet has: name = (value, expected)."""
    for name, (value, wanted) in settings.items():
        if value != wanted:
            raise CheckpointError(f"{layer.name} has {name} = {value}, but an AlexNet has {wanted}")


def _convolution(layer: _CaffeLayer, number: int) -> Op:
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
        name=LAYER_NAMES[number - 1],
        kernels=settings.num_output,
        size=size,
        stride=stride,
        padding=(padding, padding),
        groups=settings.group,
    )


def _inner_product(layer: _CaffeLayer, number: int) -> Op:
    settings = layer.settings.inner_product_param
    _demand(layer, bias_term=(settings.bias_term, True), axis=(settings.axis, 1), transpose=(settings.transpose, False))
    if settings.num_output < 1:
        raise CheckpointError(f"{layer.name} has num_output {settings.num_output}: it must be at least 1")
    return Linear(name=LAYER_NAMES[number - 1], units=settings.num_output)


def _relu(layer: _CaffeLayer, number: int) -> Op:
    _demand(layer, negative_slope=(layer.settings.relu_param.negative_slope, 0))
    return ReLU(name=f"relu{number}")


def _lrn(layer: _CaffeLayer, number: int) -> Op:
    settings = layer.settings.lrn_param
    region = {0: "ACROSS_CHANNELS", 1: "WITHIN_CHANNEL"}.get(settings.norm_region, settings.norm_region)
    _demand(layer, norm_region=(region, "ACROSS_CHANNELS"))
    size = settings.local_size
    if size % 2 == 0:
        raise CheckpointError(f"{layer.name} has local_size {size}: like Caffe, only odd sizes are accepted")
    coefficient, beta, k = decimal(settings.alpha) / size, decimal(settings.beta), decimal(settings.k)
    return LRN(name=f"norm{number}", size=size, coefficient=coefficient, beta=beta, k=k)


def _pooling(layer: _CaffeLayer, number: int) -> Op:
    settings = layer.settings.pooling_param
    method = {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}.get(settings.pool, settings.pool)
    _demand(layer, pool=(method, "MAX"), global_pooling=(settings.global_pooling, False))
    _demand(layer, pad=(_square(layer, settings, "pad", 0), 0))
    size, stride = _square(layer, settings, "kernel_size", 0), _square(layer, settings, "stride", 1)
    if min(size, stride) < 1:
        raise CheckpointError(f"{layer.name} has kernel_size {size} and stride {stride}: both must be at least 1")
    return MaxPool(name=POOL_NAMES.get(number, f"pool{number}"), size=size, stride=stride)


_TRANSLATE = {
    "Convolution": _convolution,
    "InnerProduct": _inner_product,
    "ReLU": _relu,
    "LRN": _lrn,
    "Pooling": _pooling,
}


def _input_size(net: Any, layers: Sequence[_CaffeLayer]) -> int | None:
    """Side of the picture, from the net's own input, an Input layer or the crop of a data layer."""
    shapes = [list(shape.dim) for shape in net.input_shape[:1]] or ([list(net.input_dim[:4])] if net.input_dim else [])
    for layer in layers:
        if layer.type == "Input":
            shapes += [list(shape.dim) for shape in layer.settings.input_param.shape[:1]]
    if shapes:
        shape = shapes[0]
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise CheckpointError(f"its input is {' x '.join(map(str, shape[:8]))}: an AlexNet takes N x 3 x size x size")
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
        CheckpointError: the input is too small, or Caffe's rounding up after a pooling
            gives another size than ours.
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
                f"an input of {input_size} pixels gives {op.name} maps of {before} pixels, which "
                f"Caffe rounds up to {side + 1} and alexnet down to {side}"
            )
    return side


def _renamed(weighted: Sequence[_CaffeLayer]) -> tuple[str, ...]:
    pairs = [(layer.settings.name[:60], name) for layer, name in zip(weighted, LAYER_NAMES, strict=True)]
    return tuple(f"layer {theirs!r} is {ours} here" for theirs, ours in pairs if theirs != ours)


def _preprocessing(
    layers: Sequence[_CaffeLayer], input_size: int | None
) -> tuple[Preprocessing | None, float, tuple[str, ...]]:
    """The preprocessing in the first data layer: complete if it subtracts a colour; with a mean
    image, only the scale.
    """
    transforms = [layer.settings.transform_param for layer in layers if layer.type in _SOURCES]
    transform = next((one for one in transforms if one.ByteSize()), MESSAGE["Transform"]())
    if len(transform.mean_value) in (1, 3) and input_size:
        bgr = torch.tensor([decimal(value) for value in transform.mean_value]).expand(3)
        mean, scale = bgr.flip(0).reshape(3, 1, 1).clone(), decimal(transform.scale)
        stored = max(_STORED_SIZE, input_size + input_size % 2)  # even: colour is stored at half resolution
        return Preprocessing(stored, input_size, "squash", True, mean, torch.full((3,), scale)), scale, ()
    notes = []
    if transform.mean_file:
        notes.append(f"it was trained with the mean image {transform.mean_file[:200]}, a separate file: add it with --mean")
    if transform.scale != 1:
        notes.append(f"pixels minus their mean are multiplied by {decimal(transform.scale):g}")
    return None, decimal(transform.scale), tuple(notes)


def _tensors(file: BinaryIO, ops: Sequence[Op], weighted: Sequence[_CaffeLayer], side: int | None) -> dict[str, Tensor]:
    """Parameters by our names; `side` is the last maps', if the input's is known."""
    tensors: dict[str, Tensor] = {}
    channels = 3
    for op, layer in zip((op for op in ops if isinstance(op, Conv | Linear)), weighted, strict=True):
        if len(layer.blobs) != 2:
            raise CheckpointError(f"{layer.name} holds {len(layer.blobs)} blobs instead of two (weights and biases)")
        weight, bias = (_blob(file, blob, layer.name) for blob in layer.blobs)
        shape = _weight_shape(op, layer, channels, side, weight[0].size)
        tensors[f"{op.name}.weight"] = _shaped(layer, "weights", *weight, shape)
        tensors[f"{op.name}.bias"] = _shaped(layer, "biases", *bias, shape[:1])
        channels = shape[0]
    return tensors


def _shaped(layer: _CaffeLayer, what: str, numbers: NDArray[np.float32], dims: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """As the layer's settings say. The layout of 2014 pads shapes with ones in front:
    (1, 1, out, in), (1, 1, 1, out)."""
    if _without_ones(dims) != _without_ones(shape):
        actual, wanted = (" x ".join(map(str, sizes)) for sizes in (dims, shape))
        raise CheckpointError(f"{layer.name} holds {actual} {what}, but the network needs {wanted}")
    return torch.from_numpy(numbers.reshape(shape))


def _without_ones(dims: Sequence[int]) -> list[int]:
    return list(dropwhile(lambda size: size == 1, dims))


def _weight_shape(op: Conv | Linear, layer: _CaffeLayer, channels: int, side: int | None, count: int) -> tuple[int, ...]:
    """Shape of a layer's weights. `channels` of `side` x `side` come in; `count` decides
    fc6 if the side is unknown."""
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
            f"{layer.name} has {count:,} weights, which do not form square maps of {channels} channels for each unit"
        )
    return op.units, channels * area


def _blob(file: BinaryIO, field: wire.Field, name: str) -> tuple[NDArray[np.float32], list[int]]:
    """A blob's numbers, flat, and its shape, after a check that there are enough numbers for it."""
    parts = list(wire.fields(file, field.value, field.end))
    settings = _parse(file, "Blob", [part for part in parts if part.number not in (DATA, DIFF, DOUBLES, DOUBLE_DIFF)])
    dims = list(settings.shape.dim) if settings.HasField("shape") else _old_shape(settings)
    doubles = any(part.number == DOUBLES for part in parts)
    chunks = [part for part in parts if part.number == (DOUBLES if doubles else DATA)]
    dtype = np.dtype("<f8" if doubles else "<f4")
    count, rest = divmod(sum(part.end - part.value for part in chunks), dtype.itemsize)
    if not count or rest or any(part.wire != wire.BYTES for part in chunks):
        raise CheckpointError(f"{name} holds a blob without numbers" if not count else f"the numbers of {name} are damaged")
    if len(dims) > 8 or min(dims, default=1) < 1 or prod(dims) != count:
        claimed = " x ".join(map(str, dims[:8]))
        raise CheckpointError(f"{name} claims a blob of {claimed} numbers but holds {count:,}")
    return _numbers(file, chunks, np.empty(count, dtype)).astype(np.float32, copy=False), dims


def _old_shape(settings: Any) -> list[int]:
    return [settings.num, settings.channels, settings.height, settings.width]


def _numbers(file: BinaryIO, chunks: Sequence[wire.Field], array: NDArray[Any]) -> NDArray[Any]:
    """Fill an array from the file without an intermediate copy."""
    view, position = array.data.cast("B"), 0
    for chunk in chunks:
        file.seek(chunk.value)
        length = chunk.end - chunk.value
        if file.readinto(view[position : position + length]) != length:  # type: ignore[attr-defined]
            raise CheckpointError("it shrank while it was being read: try again once it is complete")
        position += length
    return array


def read_mean(path: Path) -> Tensor:
    """Caffe's mean image, `mean.binaryproto`.

    Returns:
        (3, S, S) float32 in [0, 255], RGB; the file is BGR.

    Raises:
        CheckpointError: missing, damaged, or no square picture of three channels.
    """
    with reading(path, "a mean image") as file:
        numbers, dims = _blob(file, wire.Field(0, wire.BYTES, 0, 0, wire.size(file)), "the file")
        sizes = _without_ones(dims)
        if len(sizes) != 3 or sizes[0] != 3 or sizes[1] != sizes[2]:
            raise CheckpointError(f"it is {' x '.join(map(str, dims))}: expected 1 x 3 x size x size")
    return torch.from_numpy(numbers.reshape(sizes)).flip(0)
