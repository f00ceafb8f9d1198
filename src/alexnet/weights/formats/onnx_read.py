"""ONNX files whose graph is an AlexNet: ours, PyTorch's exports, the model zoo's `bvlcalexnet`.

A file of ours says in its metadata what it is, and its graph must be the one that `onnx_graph.py`
writes for that, node for node. Any other graph is walked from its input along the only path there
is: names mean nothing, the order of layers everything. Exporters write the same network in
different ways (Flatten or Reshape, Gemm or MatMul and Add, weights as initialisers or as constants,
an average over 1 x 1, dropout as nothing or as a node, LRN in parts, halves with casts around
them), and those are all that is understood: a branch or another operation is refused by the node's
name. Dropout multiplies in training in ONNX, so here it is nothing.

A file may come from anywhere. Nothing in it is executed, and `onnx_tensors.py` believes no
shape that bytes do not back.
"""

from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from alexnet import paper
from alexnet.arithmetic import LRN, Conv, Dropout, Layer, Linear, MaxPool, Op, ReLU, output_size, parameter_shapes, trace
from alexnet.errors import CheckpointError, VariantError
from alexnet.variants import LAYER_NAMES, POOL_NAMES, named
from alexnet.weights import onnx_lrn
from alexnet.weights.formats import wire
from alexnet.weights.formats.onnx_graph import IMAGE, MAX_BYTES, entry, from_header, library, structure
from alexnet.weights.formats.onnx_tensors import FLOATS, Constants, Unlike, advice, called, expect, integer, ints, number
from alexnet.weights.match import Foreign

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

CONVOLUTIONS = len(paper.KERNELS)
ON_MAPS = ("Conv", "LRN", "MaxPool", "AveragePool")
UNDERSTOOD = "Conv, Relu, LRN, MaxPool, Flatten, Gemm, Dropout or Softmax"
#: Field numbers of ONNX's ModelProto: the version that a file begins with, the graph, and what may
#: come before it, by wire type.
VERSION, GRAPH = 1, 7
BEFORE_GRAPH = {wire.VARINT: (1, 5), wire.BYTES: (2, 3, 4, 6, 8, 14, 20, 25, 26)}
MOST_BEFORE_GRAPH = 32
#: ONNX Runtime's own operations, and why they are refused.
RUNTIME = "com.microsoft"
OPTIMISED = (
    "ONNX Runtime saved this graph in a form of its own; use the original file, or save it with "
    "graph_optimization_level = ORT_DISABLE_ALL"
)
#: What exporters write for an adaptive pooling that has something to do.
RESAMPLING = ("GlobalAveragePool", "Transpose", "GatherND", "ReduceMean", "Resize", "AdaptiveAvgPool2d", "Pad")
ADAPTIVE = (
    "resamples pool5's maps, as the network was exported at an input size that its fully "
    "connected layers are not made for; export it at its own size, 224 for torchvision's"
)


def looks_like(path: Path) -> bool:
    """Whether a file begins as an ONNX model: a version, then known fields up to the
    graph. Reads a few bytes."""
    start = 0
    try:
        with open(path, "rb") as file:
            for place in range(MOST_BEFORE_GRAPH):
                field = wire.next_field(file, start)
                if (field.number, field.wire) == (GRAPH, wire.BYTES):
                    return place > 0
                if field.number not in BEFORE_GRAPH.get(field.wire, ()) or (place == 0 and field.number != VERSION):
                    return False
                start = field.end
    except CheckpointError:  # another kind of file, or one that ends before its graph
        pass
    return False


def read(path: Path) -> Foreign:
    """Translate an ONNX file.

    Raises:
        CheckpointError: `onnx` is not installed, the file is damaged, or its graph is of another
            network.
    """
    try:
        model = _parse(path)
        text = entry(model)
        if text is not None:
            return _ours(model, text, path.parent)
        return _Walk(model.graph, path.parent).foreign(f"ONNX, {model.producer_name or 'unnamed producer'}")
    except Unlike as reason:
        raise CheckpointError(f"{path} cannot be read as an AlexNet: {str(reason).rstrip('.')}.") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}).") from error


def beginning(path: Path) -> Foreign:
    """The first five convolutions of an ONNX file of any network, in the order of its nodes.

    Raises:
        CheckpointError: `onnx` is not installed, the file is damaged, or its graph has no
            convolution with stored weights.
    """
    try:
        model = _parse(path)
        constants = Constants(model.graph, path.parent)
        first = [node for node in constants.rest if node.op_type == "Conv" and len(node.input) > 1][: len(paper.KERNELS)]
        if not first:
            raise Unlike("it has no convolution")
        tensors = {
            f"conv{place}.{kind}": constants[name]
            for place, node in enumerate(first, 1)
            for kind, name in zip(("weight", "bias"), node.input[1:3], strict=False)
        }
    except (CheckpointError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    producer = model.producer_name or "unnamed producer"
    return Foreign(f"ONNX, {producer}", tensors, notes=(f"its first layer is {called(first[0])}",))


def _parse(path: Path) -> "ModelProto":
    onnx = library()
    from google.protobuf.message import DecodeError

    if path.stat().st_size > MAX_BYTES:
        raise Unlike(f"it has {path.stat().st_size:,} bytes, but an ONNX file has at most 2 GB")
    model: ModelProto = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise Unlike(f"it is damaged or not an ONNX file ({error})") from error
    return model


def _ours(model: "ModelProto", text: str, folder: Path) -> Foreign:
    """A file that `onnx_graph.py` wrote."""
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise Unlike("its weights are rounded to whole numbers (int8); import the float32 network that it was made from")
    if any(opset.domain.startswith(RUNTIME) for opset in model.opset_import):
        raise Unlike(OPTIMISED)
    if any(tensor.data_type == tensor.FLOAT16 for tensor in model.graph.initializer):
        raise Unlike("another program rounded it to float16; import the float32 network that it was made from")
    variant, classes, preprocessing = from_header(text)
    graph, layers = model.graph, variant.layers()
    stored = Constants(graph, folder)
    tensors = {name: stored[name] for layer in layers if layer.parameters for name in _names(layer)}
    _check_shapes(layers, tensors)  # first: after this the file is known to hold what its metadata declares
    inside = [value.name for value in graph.input] == [IMAGE]
    pads = any(node.op_type == "Pad" for node in graph.node)
    expected = structure(variant, preprocessing if inside else None, pads).model
    _compare(graph.node, expected.graph.node, "node")
    _compare(graph.input, expected.graph.input, "input")
    _compare(graph.output, expected.graph.output, "output")
    _compare(model.opset_import, expected.opset_import, "opset")
    constants = {tensor.name for tensor in expected.graph.initializer}
    _compare((t for t in graph.initializer if t.name in constants), expected.graph.initializer, "constant")
    return Foreign(
        "ONNX, written by alexnet",
        tensors,
        tuple(op for op in variant.ops() if not isinstance(op, Dropout)),
        variant=variant,
        input_size=variant.input_size,
        preprocessing=preprocessing,
        classes=classes,
    )


def _compare(actual: Iterable[Any], expected: Iterable[Any], what: str) -> None:
    """Refuse a graph that differs from the one its metadata describes."""
    actual, expected = list(actual), list(expected)
    for place, (theirs, ours) in enumerate(zip(actual, expected, strict=False)):
        if theirs != ours:
            raise Unlike(
                f"{what} {place} is {_brief(theirs)} but its metadata describes {_brief(ours)}: "
                "another program changed the file, so import the original"
            )
    if len(actual) != len(expected):
        raise Unlike(
            f"it has {len(actual)} {what}s but its metadata describes {len(expected)}: another "
            "program changed the file, so import the original"
        )


def _brief(message: Any) -> str:
    """A node, value or tensor in a few words."""
    name, kind = getattr(message, "name", ""), getattr(message, "op_type", "")
    return f"{kind} {name!r}".strip() if name or kind else " ".join(str(message).split())[:80]


def _names(layer: Layer) -> tuple[str, str]:
    return f"{layer.name}.weight", f"{layer.name}.bias"


def _check_shapes(layers: Iterable[Layer], tensors: dict[str, Tensor]) -> None:
    """Refuse parameters whose shapes do not fit the neighbouring layers."""
    for name, shape in parameter_shapes(layers).items():
        if tensors[name].shape != shape:
            raise Unlike(f"{name} has shape {tuple(tensors[name].shape)}; its other layers need {shape}")


class _Walk:
    """Walks from the graph's input to its output and notes operations and parameters."""

    def __init__(self, graph: "GraphProto", folder: Path) -> None:
        self.graph = graph
        self.constants = Constants(graph, folder)
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in self.constants.rest:
            inside = [onnx_lrn.squeezed(node)] if node.op_type == "If" else []
            for name in {*node.input, *filter(None, inside)}:
                self.consumers.setdefault(name, []).append(node)
        self.ops: list[Op] = []
        self.tensors: dict[str, Tensor] = {}
        self.layers = 0  # convolutions and fully connected layers so far
        self.flat = self.ended = self.awaits_bias = False
        self.padded: dict[str, int] = {}  # pixels by which a pool's input is longer than it is, by the pool's name
        self.notes: list[str] = []

    def foreign(self, format: str) -> Foreign:
        """The whole file."""
        declared = self._walk()
        size, layers = self._size(declared)
        _check_shapes(layers, self.tensors)
        self._check_pools(layers)
        # A graph that halves outputs at test would have a Mul, which is refused.
        settled = {"dropout_scaling": "train"}
        return Foreign(format, self.tensors, tuple(self.ops), settled=settled, input_size=size, notes=tuple(self.notes))

    def _walk(self) -> int:
        """Visit every node. Returns the side of the input in pixels, 0 if the file leaves it
        open."""
        name, declared = self._input()
        left = len(self.constants.rest)
        node = None
        while nodes := self.consumers.get(name):
            if onnx_lrn.begins(nodes):
                name, used = self._norm(name)
                left -= used
                continue
            node = self.consumers.pop(name)[0]
            if len(nodes) > 1:
                raise Unlike(f"{name!r} branches to {called(node)} and {called(nodes[1])}; an AlexNet has no branches")
            self._visit(node, name)
            name, left = node.output[0], left - 1
        last = called(node) if node is not None else "the input"
        if self.layers != len(LAYER_NAMES) or self.awaits_bias:
            fully = max(self.layers - CONVOLUTIONS, 0)
            raise Unlike(
                f"it ends at {last} after {self.layers - fully} convolutions and {fully} fully "
                "connected layers; expected 5 and 3"
            )
        if name not in {value.name for value in self.graph.output} or left:
            raise Unlike(f"the chain of layers from its input ends at {last}, before its output, or skips {left} nodes")
        return declared

    def _norm(self, name: str) -> tuple[str, int]:
        """A local response normalisation in parts. Returns the name of its output, and
        how many nodes it takes."""
        maps = next((op for op in reversed(self.ops) if isinstance(op, Conv)), None)
        if maps is None or self.flat:
            raise Unlike(f"{name!r} is squared and divided, but is not the output of a convolution")
        chain = onnx_lrn.Chain(self.constants, self.consumers)
        norm, output = chain.read(name, maps.kernels, f"norm{self.layers}")
        self.ops.append(norm)
        return output, chain.taken

    def _input(self) -> tuple[str, int]:
        inputs = [value for value in self.graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            raise Unlike(f"it has {len(inputs)} inputs; expected one, the picture")
        kind = inputs[0].type.tensor_type
        shape = [side.dim_value for side in kind.shape.dim]  # 0 where it is left open
        if kind.elem_type not in FLOATS or len(shape) != 4 or shape[1] not in (0, 3) or shape[2] != shape[3]:
            raise Unlike(
                f"its input {inputs[0].name!r} has type {kind.elem_type} and shape {shape}; "
                "expected floats of shape (N, 3, side, side)"
            )
        return inputs[0].name, shape[2]

    def _visit(self, node: "NodeProto", name: str) -> None:
        handler = HANDLERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if node.domain.startswith(RUNTIME) and not advice(node):
            raise Unlike(f"{called(node)} is {node.op_type!r} of {node.domain}: {OPTIMISED}")
        if handler is None and self.layers == CONVOLUTIONS and node.op_type in RESAMPLING:
            raise Unlike(f"{called(node)}, {node.op_type}, {ADAPTIVE}")
        if handler is None:
            raise Unlike(f"{called(node)} is {node.op_type!r}; expected {UNDERSTOOD}{advice(node)}")
        if self.ended or self.awaits_bias != (node.op_type == "Add") or (self.flat and node.op_type in ON_MAPS):
            raise Unlike(f"{called(node)}, {node.op_type}, occurs at a place where an AlexNet has none")
        if node.op_type != "Add" and node.input[0] != name:
            raise Unlike(f"{called(node)}, {node.op_type}, takes {name!r}, but not as its first input")
        if not any(node.output[:1]) or any(extra in self.consumers for extra in node.output[1:]):
            raise Unlike(f"{called(node)}, {node.op_type}, must have exactly one output that is used")
        handler(self, node)

    def _constant(self, node: "NodeProto", place: int, dimensions: int) -> Tensor:
        """An input that must be a stored tensor."""
        if place >= len(node.input):
            raise Unlike(f"{called(node)}, {node.op_type}, lacks its input {place}")
        constant = self.constants[node.input[place]]
        if constant.dim() != dimensions or not constant.is_floating_point():
            raise Unlike(
                f"{node.input[place]!r} at {called(node)} has shape {tuple(constant.shape)} and type "
                f"{constant.dtype}; expected floating-point numbers in {dimensions} dimensions"
            )
        return constant

    def _layer(self, node: "NodeProto", kind: str) -> str:
        """The name of the next layer with parameters."""
        rest = LAYER_NAMES[self.layers :]
        if not rest or not rest[0].startswith(kind):
            raise Unlike(
                f"{called(node)}, {node.op_type}, comes after {self.layers} layers; expected "
                f"{rest[0] if rest else 'no more layers'}: an AlexNet has 5 convolutions, then 3 "
                "fully connected layers"
            )
        self.layers += 1
        return rest[0]

    def _parameters(self, name: str, weight: Tensor, bias: Tensor | None) -> None:
        self.tensors[f"{name}.weight"] = weight
        self.tensors[f"{name}.bias"] = weight.new_zeros(len(weight)) if bias is None else bias

    def _conv(self, node: "NodeProto") -> None:
        name, weight = self._layer(node, "conv"), self._constant(node, 1, 4)
        bias = self._constant(node, 2, 1) if len(node.input) > 2 and node.input[2] else None
        self._parameters(name, weight, bias)
        size = weight.shape[3]
        expect(node, kernel_shape=[size, size], dilations=[1, 1])
        top, _, bottom, _ = self._pads(node)
        stride, groups = self._stride(node), integer(node, "group", 1)
        if groups < 1:
            raise Unlike(f"{called(node)}, Conv, has {groups} groups")
        self.ops.append(Conv(name=name, kernels=len(weight), size=size, stride=stride, padding=(top, bottom), groups=groups))

    def _pads(self, node: "NodeProto") -> list[int]:
        automatic = next((attribute.s for attribute in node.attribute if attribute.name == "auto_pad"), b"NOTSET")
        pads = ints(node, "pads", [0, 0, 0, 0])
        if automatic not in (b"NOTSET", b"") and not (automatic == b"VALID" and not any(pads)):
            raise Unlike(f"{called(node)}, {node.op_type}, has auto_pad {automatic!r}; expected padding in numbers")
        if len(pads) != 4 or pads[0] != pads[1] or pads[2] != pads[3] or min(pads) < 0:
            raise Unlike(
                f"{called(node)}, {node.op_type}, has pads {pads}; expected the same above as left, and the same below as right"
            )
        return pads

    def _stride(self, node: "NodeProto") -> int:
        strides = ints(node, "strides", [1, 1])
        if len(strides) != 2 or strides[0] != strides[1]:
            raise Unlike(f"{called(node)}, {node.op_type}, has strides {strides}; expected two equal ones")
        return strides[0]

    def _relu(self, _: "NodeProto") -> None:
        self.ops.append(ReLU(name=f"relu{self.layers}"))

    def _lrn(self, node: "NodeProto") -> None:
        size = integer(node, "size", 0)
        if size < 1:
            raise Unlike(f"{called(node)}, LRN, has size = {size}")
        alpha, beta, k = number(node, "alpha", 1e-4), number(node, "beta", 0.75), number(node, "bias", 1.0)
        self.ops.append(LRN(name=f"norm{self.layers}", size=size, coefficient=alpha / size, beta=beta, k=k))

    def _max_pool(self, node: "NodeProto") -> None:
        sides = ints(node, "kernel_shape", [])
        expect(node, dilations=[1, 1], storage_order=[0])
        top, _, bottom, _ = self._pads(node)
        if len(sides) != 2 or sides[0] != sides[1] or top:
            raise Unlike(
                f"{called(node)}, MaxPool, has windows {sides} and {top} pixels of padding "
                "above; expected a square window and no padding"
            )
        size, stride = sides[0], self._stride(node)
        name = POOL_NAMES.get(self.layers, f"pool{self.layers}")
        self.padded[name] = bottom + (stride - 1) * (integer(node, "ceil_mode", 0) == 1)
        self.ops.append(MaxPool(name=name, size=size, stride=stride))

    def _average_pool(self, node: "NodeProto") -> None:
        """AdaptiveAvgPool2d, where nothing is left to do."""
        if self.layers == CONVOLUTIONS and ints(node, "kernel_shape", [1, 1]) != [1, 1]:
            raise Unlike(f"{called(node)}, AveragePool over {ints(node, 'kernel_shape', [])}, {ADAPTIVE}")
        expect(node, kernel_shape=[1, 1], pads=[0, 0, 0, 0], strides=[1, 1])

    def _cast(self, node: "NodeProto") -> None:
        """Between floats, as around a part in float16."""
        if integer(node, "to", 0) not in FLOATS:
            raise Unlike(f"{called(node)}, Cast, turns the network's values into whole numbers")

    def _flatten(self, node: "NodeProto") -> None:
        expect(node, axis=[1])
        self.flat = True

    def _reshape(self, node: "NodeProto") -> None:
        """To (N, inputs of fc6). A computed shape must be that: with fc6's
        width known, no other fits."""
        computed = len(node.input) > 1 and node.input[1] in self.constants.sizes
        shape = self.constants.shape(node.input[1]) if len(node.input) > 1 and not computed else []
        if len(shape) != 2 and not computed:
            raise Unlike(f"{called(node)}, Reshape, makes shape {shape}; expected (N, inputs of fc6)")
        self.flat = True

    def _gemm(self, node: "NodeProto") -> None:
        expect(node, transA=[0])
        if (number(node, "alpha", 1.0), number(node, "beta", 1.0)) != (1.0, 1.0):
            raise Unlike(f"{called(node)}, Gemm, has an alpha or beta other than 1")
        bias = self.constants[node.input[2]].flatten() if len(node.input) > 2 and node.input[2] else None
        self._fully_connected(node, integer(node, "transB", 0) == 1, bias)

    def _mat_mul(self, node: "NodeProto") -> None:
        self._fully_connected(node, False, None)
        self.awaits_bias = True

    def _add(self, node: "NodeProto") -> None:
        stored = [place for place, name in enumerate(node.input) if name in self.constants]
        if len(stored) != 1:
            raise Unlike(f"{called(node)}, Add, adds something other than a stored bias")
        self.tensors[f"{LAYER_NAMES[self.layers - 1]}.bias"] = self._constant(node, stored[0], 1)
        self.awaits_bias = False

    def _fully_connected(self, node: "NodeProto", rows_are_units: bool, bias: Tensor | None) -> None:
        name, weight = self._layer(node, "fc"), self._constant(node, 1, 2)
        if not self.flat:
            raise Unlike(f"{called(node)}, {node.op_type}, reads maps directly; expected a Flatten or Reshape before it")
        weight = weight if rows_are_units else weight.t()
        self._parameters(name, weight, bias)
        self.ops.append(Linear(name=name, units=len(weight)))

    def _softmax(self, node: "NodeProto") -> None:
        if self.layers < len(LAYER_NAMES) or integer(node, "axis", -1) not in (1, -1):
            raise Unlike(f"{called(node)}, Softmax, is not applied to fc8's outputs")
        self.ended = True

    def _nothing(self, _: "NodeProto") -> None:
        """Dropout and Identity."""

    def _size(self, declared: int) -> tuple[int, tuple[Layer, ...]]:
        """The input's side at which fc6 has the inputs that it has, and the layers
        with their shapes there.

        The model zoo's bvlcalexnet declares 224 for weights trained at 227, and
        pads pool5 so that it runs.
        """
        first = self.ops[0]
        bare = isinstance(first, Conv) and first.padding == (0, 0)
        usual = named()["caffe"].input_size if bare else paper.INPUT_SIZE
        fan_in = self.tensors["fc6.weight"].shape[1]
        reasons = []
        for size in dict.fromkeys((declared or usual, usual)):
            try:
                layers = trace(self.ops, (paper.INPUT_CHANNELS, size, size))
            except VariantError as error:
                reasons.append(str(error))
                continue
            inputs = next(prod(layer.input) for layer in layers if isinstance(layer.op, Linear))
            if inputs == fan_in:
                if declared not in (0, size):
                    self.notes.append(
                        f"declares an input of {declared} pixels, but its layers fit together at {size}: using {size}"
                    )
                return size, layers
            reasons.append(f"fc6 has {fan_in} inputs, but an input of {size} pixels gives {inputs}")
        raise Unlike("; ".join(reasons))

    def _check_pools(self, layers: Iterable[Layer]) -> None:
        """Padding at a pool's end, or rounding up, is accepted if it adds no window."""
        for layer in layers:
            extra = self.padded.get(layer.name, 0)
            if not extra or not isinstance(layer.op, MaxPool):
                continue
            if output_size(layer.input[1] + extra, layer.op.size, layer.op.stride) != layer.output[1]:
                raise Unlike(f"{layer.name} has padding or rounds up, which adds a window; expected {layer.output[1]} windows")
            self.notes.append(f"{layer.name} has padding or rounds up, which changes nothing at this size")


HANDLERS: dict[str, Callable[[_Walk, Any], None]] = {
    "Conv": _Walk._conv,
    "Relu": _Walk._relu,
    "LRN": _Walk._lrn,
    "MaxPool": _Walk._max_pool,
    "Flatten": _Walk._flatten,
    "Reshape": _Walk._reshape,
    "Gemm": _Walk._gemm,
    "MatMul": _Walk._mat_mul,
    "Add": _Walk._add,
    "Dropout": _Walk._nothing,
    "Identity": _Walk._nothing,
    "Softmax": _Walk._softmax,
    "AveragePool": _Walk._average_pool,
    "Cast": _Walk._cast,
}
