"""Write our networks as ONNX, for every program that runs ONNX.

The graph is the variant's sequence of operations, node for node: a node's name and its output's are
the stage's name in `alexnet summary` (conv1, relu1, norm1 ... fc8), the parameters are initialisers
under their names (conv1.weight ... fc8.bias). No tracing exporter comes between, so what runs
elsewhere is what `model.py` runs, and any stage can be taken out by name.

The file's metadata has one entry, `alexnet`, a JSON text with the variant, the classes and the
preprocessing: the file alone is enough to predict, and `onnx_read.py` makes the same `Trained` of
it to the last bit. `header` and `from_header` are that text, for other formats that can carry one.

Opset 17 of 2022, in IR version 8: later ones add nothing that these networks need, and engines
years old run it (tested with ONNX Runtime 1.32 and OpenVINO 2026.4). OpenVINO computes in bfloat16
on processors that have it unless it is given INFERENCE_PRECISION_HINT = f32.

With the preprocessing in the graph, the input is a photo's pixels and the output probabilities.
ONNX's Resize knows antialiasing from opset 18 on only, and not in every engine; so the picture is
shrunk by two matrix products. Entry (i, j) of each matrix is the triangle filter's weight of pixel
j in output i, computed in whole numbers from the photo's size: max(0, 2 max(L, S) - |(2j + 1) S -
(2i + 1) L|), each row then divided by its sum, for L pixels that become S. It is the filter of
`data/image.py`. What that does besides is left out: rounding to whole grey levels, the JPEG
decoder's shrinking, colour at half the resolution, and turning by the EXIF tag, which is the
caller's to do. On the 200 test photos of Imagenette's miniature (paper at half width, 128 pixels,
trained on the other 400) the largest difference of a photo's ten probabilities from `predict`'s
was 0.005 in the median and 0.04 at most; 197 top classes were the same, 98 of `predict`'s and 100
of the graph's were right.
"""

import base64
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet import __version__, schema
from alexnet.arithmetic import LRN, Conv, Dropout, Layer, Linear, MaxPool, ReLU, SpatialNorm, Tanh
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError
from alexnet.schema import Range
from alexnet.trained import Trained
from alexnet.variants import Variant
from alexnet.weights.header import FORMAT, MAX_SIDE, REMEDY, PreprocessingEntry, check_description, read_variant

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8
KEY = "alexnet"
#: How the picture is shrunk, for programs that prepare it outside the graph: a box filter in its
#: place costs half a point of top-1.
FILTER: Final = "bilinear, antialiased"
#: Names of the graph's ends: without preprocessing x -> fc8, with it image -> probabilities.
X, IMAGE, PROBABILITIES = "x", "image", "probabilities"
MAX_BYTES = 2**31 - 1  # protobuf's limit for one message


def library() -> Any:
    """The `onnx` package.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise CheckpointError("ONNX files need the package onnx: pip install 'alexnet[serve]'.") from error
    return onnx


def to_onnx(trained: Trained, with_preprocessing: bool = False) -> "onnx.ModelProto":
    """A trained network as an ONNX model; full size is 244 MB.

    Args:
        with_preprocessing: input `image` (N, H, W, 3) uint8 RGB, one size a batch, and output
            `probabilities` (N, classes) float32; else input `x` (N, 3, K, K) float32,
            normalised and in the variant's channel order, and output `fc8` (N, classes), the
            logits. N, H and W are free.

    Raises:
        CheckpointError: `onnx` is not installed, or the network is larger than 2 GB.
    """
    variant = trained.model.variant
    if 4 * variant.parameters > MAX_BYTES:
        raise CheckpointError(
            f"{variant.name!r} has {variant.parameters:,} parameters, too many for an ONNX "
            "file (at most 2 GB): export to safetensors."
        )
    graph = structure(variant, trained.preprocessing if with_preprocessing else None)
    for name, parameter in trained.model.state_dict().items():
        graph.constant(name, parameter.float().cpu().numpy())
    graph.model.metadata_props.add(key=KEY, value=header(trained))
    return graph.model


def up_to(trained: Trained, layer: str) -> "onnx.ModelProto":
    """The network as far as what a fully connected layer reads, (N, D), as an ONNX model.

    Raises:
        CheckpointError: as `to_onnx`.
    """
    model = to_onnx(trained)
    graph = model.graph
    place = [node.name for node in graph.node].index(layer)
    source = graph.node[place].input[0]
    del graph.node[place:]
    used = {name for node in graph.node for name in node.input}
    for constant in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(constant)
    del graph.output[:]
    graph.output.append(library().helper.make_tensor_value_info(source, library().TensorProto.FLOAT, ["N", "D"]))
    return model


def entry(model: "onnx.ModelProto") -> str | None:
    """The text that `header` wrote, if the model has it. The quantiser puts an
    entry of its own before it."""
    return next((one.value for one in model.metadata_props if one.key == KEY), None)


class Graph:
    """Builds a model. A node has one output, which has the node's name."""

    def __init__(self) -> None:
        self.onnx = library()
        self.model = self.onnx.ModelProto(
            ir_version=IR_VERSION,
            producer_name="alexnet",
            producer_version=__version__,
            opset_import=[self.onnx.helper.make_opsetid("", OPSET)],
        )

    def node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Append a node and return its name."""
        self.model.graph.node.append(self.onnx.helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, name: str, values: Any) -> str:
        """Append an initialiser: float32, or int64 where the values are whole
        numbers. Returns its name."""
        array = np.asarray(values)
        whole = array.dtype.kind == "i"
        # In place: helper.make_graph would copy all weights once more.
        self.model.graph.initializer.add(
            name=name,
            dims=array.shape,
            data_type=self.onnx.TensorProto.INT64 if whole else self.onnx.TensorProto.FLOAT,
            raw_data=array.astype("<i8" if whole else "<f4", copy=False).tobytes(),
        )
        return name

    def ends(self, source: Any, target: Any) -> None:
        """Declare the graph's input and output: (name, element type, shape)."""
        self.model.graph.input.append(self.onnx.helper.make_tensor_value_info(*source))
        self.model.graph.output.append(self.onnx.helper.make_tensor_value_info(*target))


def structure(variant: Variant, preprocessing: Preprocessing | None, pads: bool = True) -> Graph:
    """The model of a variant but for its parameters and metadata.

    Args:
        pads: whether the zeros around a spatial norm's maps are a node; our first files
            left them to the average.
    """
    graph = Graph()
    graph.model.graph.name = variant.name
    graph.model.doc_string = graph.model.graph.doc_string = (
        f"AlexNet {variant.name} x {variant.width:g}, input {variant.input_size} x {variant.input_size} "
        f"{variant.channel_order}, {variant.num_classes} classes. Stages are named as by `alexnet summary`."
    )
    _network(graph, variant, pads)
    side, float32 = variant.input_size, graph.onnx.TensorProto.FLOAT
    graph.ends((X, float32, ["N", 3, side, side]), ("fc8", float32, ["N", variant.num_classes]))
    return graph if preprocessing is None else with_both_ends(graph.model, preprocessing)


def with_both_ends(network: "onnx.ModelProto", preprocessing: Preprocessing) -> Graph:
    """Wrap a model from `x` to `fc8`, in float32 or int8, with preprocessing before it and a
    softmax after it.
    """
    graph = Graph()
    _preprocess(graph, preprocessing)
    model, inner = graph.model, network.graph
    model.graph.node.extend(inner.node)
    model.graph.initializer.extend(inner.initializer)
    graph.node("Softmax", PROBABILITIES, "fc8", axis=1)
    classes = inner.output[0].type.tensor_type.shape.dim[1].dim_value
    types = graph.onnx.TensorProto
    graph.ends((IMAGE, types.UINT8, ["N", "H", "W", 3]), (PROBABILITIES, types.FLOAT, ["N", classes]))
    model.graph.name, model.graph.doc_string, model.doc_string = inner.name, inner.doc_string, network.doc_string
    model.metadata_props.extend(network.metadata_props)
    del model.opset_import[:]
    model.opset_import.extend(network.opset_import)
    return graph


def _network(graph: Graph, variant: Variant, pads: bool) -> None:
    x = X
    for layer in variant.layers():
        x = _stage(graph, layer, x, pads)


def _stage(graph: Graph, layer: Layer, x: str, pads: bool) -> str:
    """Append one operation of the network. Returns the name of its output."""
    op, name = layer.op, layer.name
    parameters = f"{name}.weight", f"{name}.bias"
    match op:
        case Conv(padding=(before, after)):
            return graph.node(
                "Conv",
                name,
                x,
                *parameters,
                kernel_shape=[op.size] * 2,
                strides=[op.stride] * 2,
                group=op.groups,
                pads=[before, before, after, after],
            )
        case Linear():
            if len(layer.input) > 1:
                x = graph.node("Flatten", f"{name}.input", x, axis=1)
            return graph.node("Gemm", name, x, *parameters, transB=1)
        case ReLU():
            return graph.node("Relu", name, x)
        case Tanh():
            return graph.node("Tanh", name, x)
        case MaxPool():
            return graph.node("MaxPool", name, x, kernel_shape=[op.size] * 2, strides=[op.stride] * 2)
        case LRN():
            return _lrn(graph, op, layer.input, x)
        case SpatialNorm():
            return _spatial_norm(graph, op, x, pads)
        case Dropout(inverted=True):
            return x
        case Dropout(rate=rate):
            return graph.node("Mul", name, x, graph.constant(f"{name}.keep", 1 - rate))
    raise AssertionError(op)


def _lrn(graph: Graph, op: LRN, shape: tuple[int, ...], x: str) -> str:
    """ONNX divides alpha by the window's size. Towers become pictures of their own for the
    while: (N t, C / t, H, W)."""
    constants: dict[str, Any] = {"size": op.size, "alpha": op.coefficient * op.size, "beta": op.beta, "bias": op.k}
    if op.towers == 1:
        return graph.node("LRN", op.name, x, **constants)
    channels, *sides = shape
    apart = graph.constant(f"{op.name}.apart", [-1, channels // op.towers, *sides])
    x = graph.node("LRN", f"{op.name}.normed", graph.node("Reshape", f"{op.name}.towers", x, apart), **constants)
    return graph.node("Reshape", op.name, x, graph.constant(f"{op.name}.together", [-1, *shape]))


def _spatial_norm(graph: Graph, op: SpatialNorm, x: str, pads: bool) -> str:
    """x (k + coefficient sum)^-beta, the sum as size^2 times a mean that counts the border's zeros.

    The zeros are a node of their own, because OpenCV 4 ignores
    `count_include_pad`: 2 to 3 % of the logits.
    """
    name, reach = op.name, op.size // 2
    squares = graph.node("Mul", f"{name}.squares", x, x)
    window: dict[str, Any] = {"kernel_shape": [op.size] * 2, "strides": [1, 1]}
    if pads:
        around = graph.constant(f"{name}.around", [0, 0, reach, reach, 0, 0, reach, reach])
        squares = graph.node("Pad", f"{name}.padded", squares, around)
    else:
        window |= {"pads": [reach] * 4, "count_include_pad": 1}
    mean = graph.node("AveragePool", f"{name}.mean", squares, **window)
    scaled = graph.node("Mul", f"{name}.scaled", mean, graph.constant(f"{name}.coefficient", op.coefficient * op.size**2))
    shifted = graph.node("Add", f"{name}.shifted", scaled, graph.constant(f"{name}.k", op.k))
    power = graph.node("Pow", f"{name}.power", shifted, graph.constant(f"{name}.exponent", -op.beta))
    return graph.node("Mul", name, x, power)


def _preprocess(graph: Graph, preprocessing: Preprocessing) -> None:
    """From `image` (N, H, W, 3) uint8 to `x` (N, 3, K, K): crop or squash, shrink,
    take the centre, normalise."""
    bgr, size = preprocessing.bgr, preprocessing.input_size
    sides = graph.node("Slice", "image.sides", graph.node("Shape", "image.shape", IMAGE), *_ints(graph, "sides", 1, 3))
    image = IMAGE
    if preprocessing.resize == "short-side":
        side = graph.node("ReduceMin", "square.side", sides, axes=[0], keepdims=1)
        room = graph.node("Sub", "square.room", sides, side)
        start = graph.node("Div", "square.start", room, graph.constant("square.halves", 2))
        end = graph.node("Add", "square.end", start, side)
        image = graph.node("Slice", "square", IMAGE, start, end, graph.constant("square.axes", [1, 2]))
        rows = columns = _filter(graph, "square", side, preprocessing)
    else:
        rows, columns = (
            _filter(graph, name, graph.node("Slice", f"{name}.side", sides, *_ints(graph, name, at, at + 1)), preprocessing)
            for at, name in enumerate(("rows", "columns"))
        )
    pixels = graph.node("Cast", "pixels", image, to=graph.onnx.TensorProto.FLOAT)
    planes = graph.node("Transpose", "planes", pixels, perm=[0, 3, 1, 2])  # (N, 3, H, W)
    narrow = graph.node("MatMul", "narrow", planes, graph.node("Transpose", "columns.transposed", columns, perm=[1, 0]))
    x = graph.node("MatMul", "crop", rows, narrow)  # (N, 3, K, K)
    mean, scale = preprocessing.mean.cpu().numpy(), preprocessing.scale.cpu().numpy()
    if bgr:
        x = graph.node("Gather", "bgr", x, graph.constant("bgr.order", [2, 1, 0]), axis=1)
        mean, scale = mean[::-1], scale[::-1]
    if mean.shape[1] > 1:
        top, left, _ = preprocessing.views(1)[0]
        mean = mean[:, top : top + size, left : left + size]
    x = graph.node("Sub", "centred", x, graph.constant("mean", mean))
    graph.node("Mul", X, x, graph.constant("scale", scale.reshape(3, 1, 1)))


def _ints(graph: Graph, name: str, start: int, end: int) -> tuple[str, str]:
    """The inputs of a Slice that hold its bounds."""
    return graph.constant(f"{name}.from", [start]), graph.constant(f"{name}.to", [end])


def _filter(graph: Graph, name: str, length: str, preprocessing: Preprocessing) -> str:
    """The rows of the S x L shrinking matrix that the centre crop needs: (K, L) float32.

    Args:
        length: (1,) int64, L.
    """
    size, stored = preprocessing.input_size, preprocessing.stored_size
    first = preprocessing.views(1)[0][0]
    odd = 2 * np.arange(first, first + size) + 1
    zero, one = graph.constant(f"{name}.zero", 0), graph.constant(f"{name}.one", 1)
    scalar = graph.node("Squeeze", f"{name}.length", length)
    pixels = graph.node("Range", f"{name}.range", zero, scalar, one)
    twice = graph.node("Mul", f"{name}.places", pixels, graph.constant(f"{name}.step", 2 * stored))
    places = graph.node("Add", f"{name}.middles", twice, graph.constant(f"{name}.half", stored))  # (2j + 1) S
    centres = graph.node("Mul", f"{name}.centres", graph.constant(f"{name}.outputs", odd[:, None]), scalar)  # (2i + 1) L
    distance = graph.node("Abs", f"{name}.distance", graph.node("Sub", f"{name}.difference", places, centres))
    longer = graph.node("Max", f"{name}.longer", scalar, graph.constant(f"{name}.stored", stored))
    reach = graph.node("Mul", f"{name}.reach", longer, graph.constant(f"{name}.two", 2))
    weights = graph.node("Max", f"{name}.triangle", graph.node("Sub", f"{name}.left", reach, distance), zero)
    weights = graph.node("Cast", f"{name}.weights", weights, to=graph.onnx.TensorProto.FLOAT)
    total = graph.node("ReduceSum", f"{name}.total", weights, graph.constant(f"{name}.axis", [1]), keepdims=1)
    return graph.node("Div", f"{name}.filter", weights, total)


def header(trained: Trained) -> str:
    """Everything but the parameters, as JSON. Its floats are float32's bytes in base64,
    little-endian, so nothing is rounded.
    """
    preprocessing = trained.preprocessing
    plain = {name: getattr(preprocessing, name) for name in ("stored_size", "input_size", "resize", "bgr")}
    return json.dumps(
        {
            "format": FORMAT,
            "variant": asdict(trained.model.variant),
            "classes": trained.classes,
            "preprocessing": {
                **plain,
                "filter": FILTER,
                "mean": _packed(preprocessing.mean),
                "scale": _packed(preprocessing.scale),
            },
        }
    )


@dataclass(frozen=True)
class _Packed:
    """A float32 array: its bytes in base64."""

    shape: Annotated[tuple[Annotated[int, Range(1, MAX_SIDE)], ...], Range(1, 3)]
    data: str


@dataclass(frozen=True)
class _PreprocessingEntry(PreprocessingEntry):
    """With the mean and the scale. The first files did not name the filter, which
    has always been the same."""

    mean: _Packed
    scale: _Packed
    filter: Literal["bilinear, antialiased"] = FILTER


@dataclass(frozen=True)
class _Header:
    """What `header` writes."""

    format: Literal["alexnet 1"]
    variant: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: _PreprocessingEntry


def from_header(text: str) -> tuple[Variant, tuple[str, ...], Preprocessing]:
    """Read what `header` wrote.

    Raises:
        CheckpointError: it is damaged, or does not describe a network.
    """
    what = f"the entry {KEY!r} of its metadata"
    read = schema.parse_json(text, _Header, what, CheckpointError, REMEDY)
    variant = read_variant(read.variant, f"the variant in {what}")
    pictures = read.preprocessing
    preprocessing = Preprocessing(
        pictures.stored_size,
        pictures.input_size,
        pictures.resize,
        pictures.bgr,
        _unpacked(pictures.mean, what),
        _unpacked(pictures.scale, what),
    )
    check_description(variant, read.classes, preprocessing, what)
    return variant, read.classes, preprocessing


def _packed(tensor: Tensor) -> dict[str, Any]:
    array: NDArray[np.float32] = tensor.cpu().numpy().astype("<f4")
    return {"shape": array.shape, "data": base64.b64encode(array.tobytes()).decode("ascii")}


def _unpacked(packed: _Packed, what: str) -> Tensor:
    try:
        data = base64.b64decode(packed.data, validate=True)
    except ValueError as error:
        raise CheckpointError(f"{what} is damaged: its numbers are not base64 ({error}). {REMEDY}") from error
    if 4 * math.prod(packed.shape) != len(data):
        raise CheckpointError(f"{what} is damaged: it has {len(data)} bytes for an array of {packed.shape}. {REMEDY}")
    return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32).reshape(packed.shape))
