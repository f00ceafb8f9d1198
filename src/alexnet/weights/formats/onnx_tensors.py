"""What an ONNX graph stores: tensors by name, each checked before anything is made of it,
and attributes of nodes.

A declared shape costs a file nothing, so it is compared with the bytes that are there before memory
is asked for. Tensors in other files are read from the model's own folder only: a model that names
`../../etc/passwd` is refused.
"""

from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

#: Values that ConstantOfShape may make in one file. The largest AlexNet here, torchvision's, has
#: 61,100,840 parameters.
MAX_MADE = 2**26
MAX_DIMENSIONS = 4
FLOATS = (1, 10, 11)  # ONNX's numbers for float32, float16 and float64
WHOLE = (6, 7)  # int32 and int64
QUANTISED = ("uantize", "QLinear", "Integer")  # in the names of operations
#: What exporters compute the shape for a Reshape with, where the batch's size is left open.
OF_SIZES = (
    "Gather",
    "Squeeze",
    "Unsqueeze",
    "Concat",
    "Reshape",
    "Cast",
    "Slice",
    "Transpose",
    "Equal",
    "Mul",
    "Sub",
    "ConstantOfShape",
)
#: Entries of a list of whole numbers, such as a Pad's, which has two a dimension.
MOST_ENTRIES = 10


class Unlike(Exception):
    """Why a graph cannot be read as an AlexNet."""


class Constants:
    """Tensors that a graph holds, by name: initialisers, and what nodes make of
    nothing or of initialisers.

    Attributes:
        sizes: names of values that follow from shapes alone; they are not computed.
        rest: the graph's other nodes, in its order.
    """

    def __init__(self, graph: "GraphProto", folder: Path) -> None:
        self.folder = folder
        self.stored: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.alias: dict[str, str] = {}
        self.turned: dict[str, str] = {}
        self.made: dict[str, Tensor] = {}
        self.budget = MAX_MADE
        self.sizes: set[str] = set()
        self.rest: list[NodeProto] = [node for node in graph.node if not (self._fold(node) or self._sizes(node))]
        self.makers = {name: node for node in graph.node for name in node.output}

    def __contains__(self, name: str) -> bool:
        name = self.alias.get(name, name)
        return name in self.stored or name in self.made or name in self.turned

    def __getitem__(self, name: str) -> Tensor:
        """A tensor, read once.

        Raises:
            Unlike: no tensor has that name, or it is damaged.
        """
        name = self.alias.get(name, name)
        if name in self.turned:
            return self._matrix(self.turned[name]).t()
        if name not in self.made:
            if name not in self.stored:
                raise Unlike(f"{name!r} {self._origin(name)}; expected a stored tensor")
            self.made[name] = _tensor(self.stored[name], self.folder)
        return self.made[name]

    def shape(self, name: str) -> list[int]:
        """A short list of whole numbers, such as a Reshape's target."""
        proto = self.stored.get(self.alias.get(name, name))
        if proto is not None and (len(proto.dims) > 1 or prod(proto.dims) > MOST_ENTRIES):
            raise Unlike(f"{name!r} has the dimensions {list(proto.dims)[:5]}; expected a list of at most {MOST_ENTRIES}")
        values = self[name].flatten()
        if values.is_floating_point():
            raise Unlike(f"{name!r} holds fractions; expected a shape")
        return [int(value) for value in values.tolist()]

    def parts(self, name: str) -> list[int | None]:
        """As `shape`, with None for what is computed from the sizes of other values.

        Raises:
            Unlike: it is neither stored nor computed from sizes.
        """
        if name in self:
            return [*self.shape(name)]
        node = self.makers.get(name)
        if node is not None and node.op_type == "Concat" and name in self.sizes:
            return [number for source in node.input[:MOST_ENTRIES] for number in self._known(source)]
        raise Unlike(f"{name!r} {self._origin(name)}; expected a shape")

    def _known(self, name: str) -> list[int] | list[None]:
        """One entry of a shape: its numbers if they are stored, under nodes that do not
        change them; else one None."""
        for _ in range(MAX_DIMENSIONS):
            if name in self:
                return self.shape(name)
            node = self.makers.get(name)
            if node is None or node.op_type not in ("Unsqueeze", "Squeeze", "Cast"):
                break
            name = node.input[0]
        return [None]

    def _origin(self, name: str) -> str:
        node = self.makers.get(name)
        if node is None:
            return "is missing from the graph"
        return f"comes from {called(node)}, {node.op_type}{advice(node)}"

    def _matrix(self, name: str) -> Tensor:
        matrix = self[name]
        if matrix.dim() != 2:
            raise Unlike(f"{name!r} has shape {tuple(matrix.shape)} and is transposed; expected 2 dimensions")
        return matrix

    def _fold(self, node: "NodeProto") -> bool:
        """Keep the node's output if it is a constant. ONNX orders nodes, so its inputs were
        seen."""
        if len(node.output) != 1 or len(node.input) > 1 or not all(name in self for name in node.input):
            return False
        name, sources = node.output[0], [self.alias.get(source, source) for source in node.input]
        match node.op_type, sources:
            case "Constant", [] if len(node.attribute) == 1:
                self._keep(name, node.attribute[0])
            case "ConstantOfShape", [_]:
                self.made[name] = self._filled(node)
            case "Identity", [source]:
                self.alias[name] = source
            case "Cast", [source] if source in self.stored and _same_kind(self.stored[source], integer(node, "to", 0)):
                self.alias[name] = source  # every float becomes a float32 in the end
            case "Transpose", [source] if source in self.stored and ints(node, "perm", [1, 0]) == [1, 0]:
                self.turned[name] = source
            case _:
                return False
        return True

    def _sizes(self, node: "NodeProto") -> bool:
        """Note the node's outputs if they follow from shapes and constants alone."""
        is_size = node.op_type == "Shape" or (
            node.op_type in OF_SIZES and all(name in self.sizes or name in self for name in node.input)
        )
        self.sizes.update(node.output if is_size else ())
        return is_size

    def _keep(self, name: str, value: "AttributeProto") -> None:
        """Constant: a tensor, or a plain number or list such as dropout's ratio."""
        if value.HasField("t"):
            self.stored[name] = value.t
        else:
            numbers = list(value.ints) or list(value.floats)
            self.made[name] = torch.tensor(numbers or (value.i if value.type == value.INT else value.f))

    def _filled(self, node: "NodeProto") -> Tensor:
        """ConstantOfShape: one value everywhere, held once whatever the shape."""
        shape = self.shape(node.input[0])
        value = _tensor(node.attribute[0].t, self.folder) if node.attribute else torch.zeros(1)
        fits = min(shape, default=1) > 0 and value.numel() == 1
        self.budget -= prod(shape) if fits else 0
        if not fits or self.budget < 0:
            raise Unlike(
                f"{called(node)} fills the shape {shape}; expected positive numbers and at most {MAX_MADE:,} values in all"
            )
        return value.reshape(()).expand(shape)


def _same_kind(proto: "TensorProto", kind: int) -> bool:
    """Whether a tensor's numbers and those of another of ONNX's types are
    both floats, or both whole."""
    return any(proto.data_type in kinds and kind in kinds for kinds in (FLOATS, WHOLE))


def _tensor(proto: "TensorProto", folder: Path) -> Tensor:
    """A stored tensor, after a check that it has as many bytes as its shape needs."""
    kinds: dict[int, tuple[str, str | None]] = {
        proto.FLOAT: ("<f4", "float_data"),
        proto.DOUBLE: ("<f8", "double_data"),
        proto.FLOAT16: ("<f2", None),
        proto.INT64: ("<i8", "int64_data"),
        proto.INT32: ("<i4", "int32_data"),
    }
    if proto.data_type not in kinds:
        raise Unlike(f"{proto.name!r} holds {_type_name(proto)}, a quantised or unusual type; export the network in float32")
    form, field = kinds[proto.data_type]
    dtype, shape = np.dtype(form), list(proto.dims)
    if len(shape) > MAX_DIMENSIONS or min(shape, default=1) < 0:
        raise Unlike(f"{proto.name!r} declares the shape {shape[:5]}")
    count = prod(shape)
    if proto.data_location == proto.EXTERNAL:
        array = np.frombuffer(_external(proto, folder, count * dtype.itemsize), dtype)
    elif proto.data_type == proto.FLOAT16 and proto.int32_data:  # the halves' bits
        array = np.asarray(proto.int32_data).astype("<u2").view(dtype)
    elif field is not None and (values := getattr(proto, field)):
        array = np.asarray(values, dtype)
    else:
        raw = proto.raw_data
        array = np.frombuffer(raw, dtype, len(raw) // dtype.itemsize)
    if len(array) != count:
        raise Unlike(f"{proto.name!r} declares the shape {shape} ({count:,} values) but holds {len(array):,}")
    return torch.from_numpy(array.astype(dtype.newbyteorder("=")).reshape(shape))


def _type_name(proto: "TensorProto") -> str:
    known = type(proto).DataType.items()
    return next((name.lower() for name, value in known if value == proto.data_type), f"type {proto.data_type}")


def _external(proto: "TensorProto", folder: Path, length: int) -> bytes:
    """Bytes from a file beside the model, as PyTorch's exporter leaves them;
    nowhere else may a model point."""
    entries = {entry.key: entry.value for entry in proto.external_data}
    location, offset = str(entries.get("location", "")), str(entries.get("offset", "0"))
    path = folder / Path(location).name
    if location != path.name or path.is_symlink() or not path.is_file():
        raise Unlike(
            f"{proto.name!r} is stored in {location!r}, but there is no such regular file in the "
            "model's folder, and only that folder is read"
        )
    start = int(offset) if offset.isascii() and offset.isdecimal() and len(offset) < 20 else -1
    if start < 0 or start + length > path.stat().st_size:
        raise Unlike(f"{proto.name!r} asks for {length:,} bytes at {offset[:20]} of {location!r}, which is too short")
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(length)


def called(node: "NodeProto") -> str:
    """A node's name for people; exporters may leave it empty, outputs have one."""
    return f"node {(node.name or next(iter(node.output), ''))!r}"


def advice(node: "NodeProto") -> str:
    """What to do about a quantised network."""
    kind = str(node.op_type)  # protobuf gives bytes where a text is not UTF-8
    return " (quantised: export the network in float32)" if any(part in kind for part in QUANTISED) else ""


def integer(node: "NodeProto", name: str, default: int) -> int:
    """An attribute as a whole number."""
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def ints(node: "NodeProto", name: str, default: list[int]) -> list[int]:
    """An attribute as whole numbers; one number is a list of one."""
    attribute = next((one for one in node.attribute if one.name == name), None)
    if attribute is None:
        return default
    return list(attribute.ints) if attribute.type == attribute.INTS else [attribute.i]


def number(node: "NodeProto", name: str, default: float) -> float:
    """An attribute as the decimal that was meant: 1e-4, of which float32 makes 9.9999997e-05."""
    value = next((attribute.f for attribute in node.attribute if attribute.name == name), default)
    if not isfinite(value):
        raise Unlike(f"{called(node)} has {name} = {value}")
    return float(str(np.float32(value)))


def expect(node: "NodeProto", **expected: list[int]) -> None:
    """Refuse attributes with other values than an AlexNet's."""
    for name, value in expected.items():
        actual = ints(node, name, value)
        if actual != value:
            raise Unlike(f"{called(node)}, {node.op_type}, has {name} = {actual}; expected {value}")
