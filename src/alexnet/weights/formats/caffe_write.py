"""Writing Caffe's files: a `.caffemodel` in today's layout, its `.prototxt`, and
`mean.binaryproto`.

The network goes out layer by layer as `variant.ops()` has it; what Caffe has no layer for is
refused. The parameters go from their tensors straight into the file: no copy is made of 244 MB.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from google.protobuf import text_format
from torch import Tensor

from alexnet.arithmetic import LRN, Conv, Dropout, Linear, MaxPool, Op, ReLU
from alexnet.errors import CheckpointError
from alexnet.files import write_parts
from alexnet.variants import Variant
from alexnet.weights.formats import wire
from alexnet.weights.formats.caffe_read import last_side
from alexnet.weights.formats.caffe_schema import BLOBS, DATA, MESSAGE, NEW, decimal
from alexnet.weights.match import plain_tensors


def write(path: Path, variant: Variant, tensors: Mapping[str, Tensor], mean: Tensor, scale: Tensor | None = None) -> None:
    """Write a caffemodel in today's layout and, beside it, `<stem>.prototxt`
    (the network, to deploy) and `<stem>.mean.binaryproto` if the mean is an image. Each is written
    under another name and renamed, the caffemodel last.

    Args:
        path: the `.caffemodel`.
        tensors: the parameters, conv1.weight ... fc8.bias; written as float32. Of an RGB network,
            conv1's input channels are turned round, which computes the same of a BGR picture.
        mean: (3, S, S) or (3, 1, 1) in [0, 255], RGB.
        scale: (3,), what pixels minus their mean are multiplied by; 1 if None.

    Raises:
        CheckpointError: a network that Caffe cannot hold, tensors of another network, or a
            file that cannot be written.
    """
    if path.suffix != ".caffemodel":
        raise CheckpointError(f"{path} must end in .caffemodel: a .prototxt and a mean image are written next to it.")
    _refuse_uncaffe(variant)
    numbers = plain_tensors(variant, tensors)
    if variant.channel_order == "RGB":  # Caffe's pictures are BGR
        numbers["conv1.weight"] = numbers["conv1.weight"].flip(1)
    image = mean.shape[1:] != (1, 1)
    beside = path.with_name(f"{path.stem}.mean.binaryproto")
    layers = _deploy(variant, mean, beside.name if image else "", _factor(scale))
    text = MESSAGE["Net"](name=f"AlexNet-{variant.name}", layer=layers)
    parts: dict[Path, Iterable[bytes | memoryview]] = {path.with_name(f"{path.stem}.prototxt"): _prototxt(variant, text, path)}
    if image:
        parts[beside] = _mean_parts(mean)
    parts[path] = _model_parts(text.name, layers, numbers)
    write_parts(parts)


def _refuse_uncaffe(variant: Variant) -> None:
    """Refuse a variant that Caffe has no layers for, naming the first such field."""
    ops = variant.ops()
    before, after = variant.conv1_padding
    norms = [op for op in ops if isinstance(op, LRN)]
    reasons = {
        "removed": bool(variant.removed) and "`weights import` reads Caffe files with all layers only",
        "activation": variant.activation != "relu" and "`weights import` reads Caffe files with ReLUs only",
        "conv1_padding": before != after and "Caffe pads both sides equally",
        "lrn_window": any(op.towers > 1 for op in norms) and "Caffe's LRN runs across all channels",
        **{
            name: "spatial" in getattr(variant, name) and "Caffe has no such spatial norm"
            for name in ("block1", "block2", "block5")
        },
        "dropout_scaling": variant.dropout > 0
        and variant.dropout_scaling == "test"
        and "Caffe scales dropout in training, not at test; with 'train', and the weights of fc7 "
        f"and fc8 times {1 - variant.dropout:g}, the outputs are the same",
    }
    for name, reason in reasons.items():
        if reason:
            raise CheckpointError(f"Caffe cannot hold this network: {name} is {getattr(variant, name)!r}, but {reason}.")
    try:
        last_side(ops, variant.input_size)
    except CheckpointError as error:
        raise CheckpointError(f"Caffe cannot hold this network: {error}.") from error


def _factor(scale: Tensor | None) -> float:
    """The single scale that Caffe multiplies all channels by. A grey data set's three may differ in
    their last bit.
    """
    if scale is None:
        return 1.0
    if not torch.allclose(scale, scale[0], rtol=1e-6, atol=0):
        raise CheckpointError(
            f"Caffe cannot hold this network: its scale is {sorted(set(scale.tolist()))}, and Caffe multiplies all channels by "
            "one number. Export it to onnx or safetensors, which hold three."
        )
    return float(scale[0])


def _deploy(variant: Variant, mean: Tensor, mean_file: str, scale: float) -> list[Any]:
    """The layers without parameters, from the input to the softmax."""
    transform: dict[str, Any] = {"crop_size": variant.input_size, **({"scale": scale} if scale != 1 else {})}
    if mean_file:
        transform["mean_file"] = mean_file
    else:
        transform["mean_value"] = mean.flatten().flip(0).tolist()  # BGR
    side = variant.input_size
    shape = {"shape": [{"dim": [1, 3, side, side]}]}
    layers = [MESSAGE["Layer"](name="data", type="Input", top=["data"], transform_param=transform, input_param=shape)]
    blob = "data"
    for op in (op for op in variant.ops() if not (isinstance(op, Dropout) and op.rate == 0)):
        kind, settings = _settings(op)
        top = blob if isinstance(op, ReLU | Dropout) else op.name  # in place
        layers.append(MESSAGE["Layer"](name=op.name, type=kind, bottom=[blob], top=[top], **settings))
        blob = top
    return [*layers, MESSAGE["Layer"](name="prob", type="Softmax", bottom=[blob], top=["prob"])]


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
    mean += f", times {decimal(transform.scale):g}" if transform.scale != 1 else ""
    yield (
        f"# AlexNet, variant {variant.name!r}; its weights are in {path.name}.\n"
        f"# The input is BGR, 0-255, minus {mean}. An Input layer does none of that: it is for the caller to do.\n"
        f"{text_format.MessageToString(net, as_utf8=True)}"
    ).encode()


def _model_parts(name: str, layers: Sequence[Any], tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The caffemodel, piece by piece: no copy of the parameters is made."""
    yield MESSAGE["Net"](name=name).SerializeToString()
    for layer in layers:
        blobs = []
        for key in (f"{layer.name}.weight", f"{layer.name}.bias"):
            if key in tensors:
                settings = MESSAGE["Blob"](shape={"dim": list(tensors[key].shape)})
                blobs.append((wire.tag(BLOBS[NEW], _blob_size(settings, tensors[key])), settings, tensors[key]))
        head = layer.SerializeToString()
        yield wire.tag(NEW, len(head) + sum(len(tag) + _blob_size(*blob) for tag, *blob in blobs)) + head
        for tag, settings, tensor in blobs:
            yield tag
            yield from _blob_parts(settings, tensor)


def _blob_parts(settings: Any, tensor: Tensor) -> Iterator[bytes | memoryview]:
    yield settings.SerializeToString() + wire.tag(DATA, tensor.numel() * 4)
    yield tensor.numpy().astype("<f4", copy=False).reshape(-1).data


def _blob_size(settings: Any, tensor: Tensor) -> int:
    size = tensor.numel() * 4
    return settings.ByteSize() + len(wire.tag(DATA, size)) + size


def _mean_parts(mean: Tensor) -> Iterator[bytes | memoryview]:
    """As Caffe's compute_image_mean writes it: the four numbers of 2014, BGR."""
    settings = MESSAGE["Blob"](num=1, channels=3, height=mean.shape[1], width=mean.shape[2])
    return _blob_parts(settings, mean.detach().to("cpu", torch.float32).flip(0).contiguous())
