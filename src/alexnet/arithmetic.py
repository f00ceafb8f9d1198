"""Compute shapes, parameters, multiply-adds and memory from N = (W - F + 2P) / S + 1.

A network is a sequence of operations (`Conv`, `LRN`, `MaxPool`, ...). `trace` walks a picture's
shape through them and derives for each layer its output, parameters, multiply-adds, activation
memory and receptive field. The same sequence builds the PyTorch module in `model.py`, so the table
that `alexnet summary` prints and the network that runs cannot differ.

Only the standard library is used: `alexnet summary` answers at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from alexnet.errors import VariantError

FLOAT_BYTES = 4


def output_size(size: int, kernel: int, stride: int, padding: int | tuple[int, int] = 0) -> int:
    """How many positions a window finds along one side: (size - kernel +
    before + after) // stride + 1.

    Args:
        size: pixels along the side.
        kernel: pixels of the window.
        stride: pixels between two positions.
        padding: zeros on each side, or (before, after) where the two differ, as
            in the study notes' [1, 2].

    Raises:
        VariantError: an argument is out of range, or the window does not fit once.
    """
    before, after = (padding, padding) if isinstance(padding, int) else padding
    if size < 1 or kernel < 1 or stride < 1 or before < 0 or after < 0:
        raise VariantError(
            f"size (={size}), kernel (={kernel}) and stride (={stride}) must be at least 1, padding (={padding}) at least 0."
        )
    if size + before + after < kernel:
        raise VariantError(f"a window of {kernel} does not fit into {size} pixels with padding {before} + {after}.")
    return (size - kernel + before + after) // stride + 1


@dataclass(frozen=True, kw_only=True)
class Op:
    """One step of a network. `name` is its name everywhere: in tables,
    activations, `state_dict` and ONNX.
    """

    name: str


@dataclass(frozen=True, kw_only=True)
class Conv(Op):
    """Convolution with `kernels` square filters; with groups = 2 each tower sees only
    its own half of the input.
    """

    kernels: int
    size: int
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 1


@dataclass(frozen=True, kw_only=True)
class Linear(Op):
    """Fully connected layer; maps are read in C, H, W order."""

    units: int


@dataclass(frozen=True, kw_only=True)
class ReLU(Op):
    """max(0, x)."""


@dataclass(frozen=True, kw_only=True)
class Tanh(Op):
    """tanh(x), what the field used before ReLU (section 3.1)."""


@dataclass(frozen=True, kw_only=True)
class LRN(Op):
    """Local response normalisation across `size` neighbouring channels of the
    same tower, out of `towers`.

    `coefficient` multiplies the plain sum of squares. Programs that divide alpha by the window
    size hold alpha / size here.
    """

    size: int
    coefficient: float
    beta: float
    k: float
    towers: int = 1


@dataclass(frozen=True, kw_only=True)
class SpatialNorm(Op):
    """The 2012 code's `rnorm`: as LRN, but over a size x size square within one map."""

    size: int
    coefficient: float
    beta: float
    k: float


@dataclass(frozen=True, kw_only=True)
class MaxPool(Op):
    """Largest value of each window; windows overlap where stride < size."""

    size: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Dropout(Op):
    """Zero each unit with `rate` in training; scale by 1 - rate at test, or, `inverted`,
    divide by it in training.
    """

    rate: float
    inverted: bool


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What `trace` derives for one operation. Shapes are (C, H, W), or (units,)
    after the first `Linear`.
    """

    op: Op
    input: tuple[int, ...]
    output: tuple[int, ...]
    parameters: int = 0
    multiply_adds: int = 0
    receptive_field: int  # side of the square of input pixels that one output value can see, at most the picture's
    jump: int  # input pixels between two neighbouring output values

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.op.name

    @property
    def kind(self) -> str:
        """The operation's kind in lower case, such as conv or maxpool."""
        return type(self.op).__name__.lower()

    @property
    def activation_bytes(self) -> int:
        """Bytes of one picture's output in float32."""
        return FLOAT_BYTES * prod(self.output)


def trace(ops: Sequence[Op], picture: tuple[int, int, int]) -> tuple[Layer, ...]:
    """Walk a (C, H, W) picture through `ops`, one `Layer` for each.

    Raises:
        VariantError: a window does not fit, or groups do not divide the channels on either side.
    """
    layers: list[Layer] = []
    shape: tuple[int, ...] = picture
    field, jump = 1, 1
    for op in ops:
        match op:
            case Conv():
                layer, field, jump = _convolve(op, shape, field, jump)
            case MaxPool():
                side = output_size(shape[1], op.size, op.stride)
                field, jump = field + (op.size - 1) * jump, jump * op.stride
                layer = Layer(op=op, input=shape, output=(shape[0], side, side), receptive_field=field, jump=jump)
            case SpatialNorm():
                field += (op.size - 1) * jump
                layer = Layer(op=op, input=shape, output=shape, receptive_field=field, jump=jump)
            case Linear():
                field, jump, fan_in = picture[1], picture[1], prod(shape)
                layer = Layer(
                    op=op,
                    input=shape,
                    output=(op.units,),
                    parameters=op.units * fan_in + op.units,
                    multiply_adds=op.units * fan_in,
                    receptive_field=field,
                    jump=jump,
                )
            case _:
                layer = Layer(op=op, input=shape, output=shape, receptive_field=field, jump=jump)
        layers.append(replace(layer, receptive_field=min(field, picture[1])))
        shape = layer.output
    return tuple(layers)


def _convolve(op: Conv, shape: tuple[int, ...], field: int, jump: int) -> tuple[Layer, int, int]:
    channels, side = shape[0], output_size(shape[1], op.size, op.stride, op.padding)
    for what, count in (("input channels", channels), ("kernels", op.kernels)):
        if count % op.groups:
            raise VariantError(f"{op.name}: {what} (={count}) must be divisible by groups (={op.groups}).")
    weights = op.kernels * (channels // op.groups) * op.size**2
    field, jump = field + (op.size - 1) * jump, jump * op.stride
    layer = Layer(
        op=op,
        input=shape,
        output=(op.kernels, side, side),
        parameters=weights + op.kernels,
        multiply_adds=weights * side * side,
        receptive_field=field,
        jump=jump,
    )
    return layer, field, jump


def parameter_shapes(layers: Iterable[Layer]) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by name: conv1.weight, conv1.bias, ..., fc8.bias."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        match layer.op:
            case Conv(kernels=outputs, size=size, groups=groups):
                shapes[f"{layer.name}.weight"] = (outputs, layer.input[0] // groups, size, size)
            case Linear(units=outputs):
                shapes[f"{layer.name}.weight"] = (outputs, prod(layer.input))
            case _:
                continue
        shapes[f"{layer.name}.bias"] = (outputs,)
    return shapes


def training_flop(layers: Sequence[Layer]) -> int:
    """Floating-point operations to train on one picture: forward, gradient of the
    weights, gradient of the input.

    A multiply-add counts as two. The first layer needs no gradient at its input, the picture.
    """
    weighted = [layer.multiply_adds for layer in layers if layer.multiply_adds]
    return 2 * (3 * sum(weighted) - weighted[0])


def units(layers: Sequence[Layer]) -> int:
    """Neurons as the paper counts them (section 3.5): the outputs of every convolution
    and fully connected layer.
    """
    return sum(prod(layer.output) for layer in layers if layer.parameters)
