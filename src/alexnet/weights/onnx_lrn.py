"""Recognise local response normalisation as PyTorch's exporters write it, in parts.

`F.local_response_norm` has no operation of its own in PyTorch, and its exporters write what
it computes: x / (k + alpha * mean over the window of x^2)^beta, the mean by a pool of `size`
x 1 x 1 over maps that were given a dimension more, (N, 1, C, H, W), and padded along the
channels. In the graph that is

    Mul(x, x) - Reshape - Pad - AveragePool - Squeeze - [Reshape]
        - Mul(alpha) - Add(k) - Pow(beta) - Div(x, .)

with an `If` in the place of Squeeze from the older exporter. Each node is checked, as one number
more or less would be another norm.
"""

from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from alexnet.arithmetic import LRN
from alexnet.weights.formats.onnx_tensors import Constants, Unlike, called, expect, ints

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

WINDOW_AXIS = 2  # of (N, 1, C, H, W)
#: Steps in the constants from which the older exporter computes a Pad's numbers.
MOST_STEPS = 8


def begins(nodes: "list[NodeProto]") -> bool:
    """Whether what reads a value is a norm taken apart: its square, and a quotient."""
    return {node.op_type for node in nodes} == {"Mul", "Div"} and len(nodes) == 2


class Chain:
    """The nodes between a norm's input and its output, taken one after the other."""

    def __init__(self, constants: Constants, consumers: "dict[str, list[NodeProto]]") -> None:
        self.constants, self.consumers = constants, consumers
        self.value = ""
        self.taken = 0

    def read(self, value: str, channels: int, name: str) -> tuple[LRN, str]:
        """The norm of `value`, which has so many channels, and the name of its output.

        Raises:
            Unlike: the nodes are not a local response normalisation.
        """
        squares, quotient = sorted(self.consumers.pop(value), key=lambda node: node.op_type == "Div")
        if list(squares.input) != [value, value]:
            raise Unlike(f"{called(squares)}, Mul, is not the square of {value!r}")
        self.value, self.taken = squares.output[0], 2
        self._raise(channels)
        padded = self._padding()
        size, reach = self._mean(padded)
        if reach != (size // 2, (size - 1) // 2):
            raise Unlike(f"the norm before {called(quotient)} pads {reach} channels for a window of {size}")
        self._lower(channels)
        alpha, k, beta = (self._number(kind) for kind in ("Mul", "Add", "Pow"))
        if list(quotient.input) != [value, self.value] or self.consumers.pop(self.value, []) != [quotient]:
            raise Unlike(f"{called(quotient)}, Div, does not divide {value!r} by its norm")
        return LRN(name=name, size=size, coefficient=alpha / size, beta=beta, k=k), quotient.output[0]

    def _next(self, *kinds: str) -> "NodeProto":
        """The only node that reads the value, which must be of one of these kinds."""
        nodes = self.consumers.pop(self.value, [])
        if len(nodes) != 1 or nodes[0].op_type not in kinds or nodes[0].domain not in ("", "ai.onnx"):
            readers = ", ".join(f"{called(node)}, {node.op_type}" for node in nodes) or "nothing"
            raise Unlike(
                f"{self.value!r} in a local response normalisation is read by {readers}; expected {' or '.join(kinds)}"
            )
        self.value, self.taken = nodes[0].output[0], self.taken + 1
        return nodes[0]

    def _peek(self) -> str:
        nodes = self.consumers.get(self.value, [])
        return nodes[0].op_type if nodes else ""

    def _raise(self, channels: int) -> None:
        """(N, C, H, W) to (N, 1, C, H, W)."""
        node = self._next("Reshape", "Unsqueeze")
        if node.op_type == "Unsqueeze":
            axes = ints(node, "axes", []) or self.constants.shape(node.input[1])
            right = axes == [1]
        else:
            shape = self.constants.parts(node.input[1])
            right = len(shape) == 5 and shape[1] == 1 and shape[2] in (None, channels)
        if not right:
            raise Unlike(f"{called(node)}, {node.op_type}, does not make (N, 1, {channels}, H, W) of a norm's squares")

    def _padding(self) -> tuple[int, int]:
        """Channels of zeros before and behind."""
        if self._peek() != "Pad":
            return 0, 0
        node = self._next("Pad")
        pads = ints(node, "pads", []) or self._pads(node.input[1])
        mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"constant")
        others = [pad for axis, pad in enumerate(pads) if axis % 5 != WINDOW_AXIS]
        if len(pads) != 10 or any(others) or mode != b"constant" or not self._is_zero(node):
            raise Unlike(f"{called(node)}, Pad, has pads {pads[:10]}; expected zeros around the channels only")
        return pads[WINDOW_AXIS], pads[WINDOW_AXIS + 5]

    def _is_zero(self, node: "NodeProto") -> bool:
        """The value that is padded with."""
        return len(node.input) < 3 or not node.input[2] or not self.constants[node.input[2]].any()

    def _pads(self, name: str) -> list[int]:
        """A Pad's numbers, in ONNX's order: all beginnings, then all ends.

        The older exporter has them in PyTorch's order, the last dimension first, beginning and end
        together, and turns them round by Concat, Reshape, Slice, Transpose, Reshape and Cast.
        """
        if name in self.constants:
            return self.constants.shape(name)
        for _ in range(MOST_STEPS):
            node = self.constants.makers.get(name)
            if node is None or not node.input:
                break
            name = node.input[0]
            if node.op_type == "Concat":
                given = [pad for pad in self.constants.parts(name) if pad is not None][:10]
                pairs = np.zeros(10, np.int64)
                pairs[: len(given)] = given
                return [int(pad) for pad in pairs.reshape(5, 2)[::-1].T.reshape(-1)]
        raise Unlike(f"the pads {name!r} of a norm are not stored")

    def _mean(self, padded: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """The window's size, and the channels of zeros around: of the node before, or the pool's
        own where it counts them."""
        node = self._next("AveragePool")
        expect(node, strides=[1, 1, 1], dilations=[1, 1, 1], ceil_mode=[0])
        sides, pads = ints(node, "kernel_shape", []), ints(node, "pads", [0] * 6)
        if padded == (0, 0) and len(pads) == 6 and ints(node, "count_include_pad", [0]) == [1]:
            padded, pads = (pads[0], pads[3]), [0, *pads[1:3], 0, *pads[4:]]
        if any(pads):
            raise Unlike(f"{called(node)}, AveragePool, has pads {pads[:6]} in a norm; expected zeros around the channels")
        if len(sides) != 3 or sides[1:] != [1, 1] or sides[0] < 1:
            raise Unlike(f"{called(node)}, AveragePool, has windows {sides} in a norm; expected [size, 1, 1]")
        return sides[0], padded

    def _lower(self, channels: int) -> None:
        """Back to (N, C, H, W): a Squeeze, or an If around one, and a Reshape that
        may follow or come alone."""
        if self._peek() in ("Squeeze", "If"):
            node = self._next("Squeeze", "If")
            axes = [1] if node.op_type == "If" else ints(node, "axes", []) or self.constants.shape(node.input[1])
            if axes != [1]:
                raise Unlike(f"{called(node)}, {node.op_type}, takes out the dimensions {axes} of a norm; expected [1]")
        if self._peek() == "Reshape":
            node = self._next("Reshape")
            shape = self.constants.parts(node.input[1])
            if len(shape) != 4 or shape[1] not in (None, channels):
                raise Unlike(f"{called(node)}, Reshape, does not make (N, {channels}, H, W) of a norm")

    def _number(self, kind: str) -> float:
        """The number that a node multiplies by, adds, or raises to, as the decimal that was
        meant."""
        value = self.value
        node = self._next(kind)
        other = [name for name in node.input if name != value]
        if (
            len(node.input) != 2
            or len(other) != 1
            or (kind == "Pow" and node.input[0] != value)
            or other[0] not in self.constants
        ):
            raise Unlike(f"{called(node)}, {kind}, in a norm has no stored number beside its input")
        number = self.constants[other[0]]
        if number.numel() != 1 or not isfinite(float(number)):
            raise Unlike(f"{called(node)}, {kind}, in a norm has {number.numel()} numbers; expected one finite number")
        return float(str(number.reshape(()).numpy()[()]))


def squeezed(node: "NodeProto") -> str | None:
    """What an `If` gives whichever way it goes: a value of the graph around it, at most squeezed;
    None for any other `If`."""
    names: set[str] = set()
    for attribute in node.attribute:
        names |= {_squeezed_in(attribute.g)}
    return names.pop() if len(names) == 1 and len(node.attribute) == 2 and len(node.output) == 1 else None


def _squeezed_in(branch: "GraphProto") -> str:
    """The value from outside that a branch gives, or an empty text."""
    made = {name: one for one in branch.node for name in one.output}
    name = branch.output[0].name if branch.output else ""
    for _ in range(MOST_STEPS):
        node = made.get(name)
        if node is None:
            return name
        if node.op_type not in ("Squeeze", "Identity"):
            break
        name = node.input[0]
    return ""
