"""Each layer written out with its numbers, as the study notes do: kernels, padding, sizes, and
N = (W - F + 2P) / S + 1 with the numbers in it.

Plain data in English or Chinese; `summary.py` prints it and drawings carry it.
"""

from math import prod
from typing import NamedTuple

from alexnet.arithmetic import LRN, Conv, Dropout, Layer, Linear, MaxPool, ReLU, SpatialNorm, Tanh
from alexnet.variants import Variant
from alexnet.words import word


class Line(NamedTuple):
    """What is said of a layer in one line; a formula has no label."""

    label: str
    value: str


class Part(NamedTuple):
    """A layer's name, such as conv1, and its lines."""

    name: str
    lines: tuple[Line, ...]


def title(variant: Variant, language: str = "en") -> str:
    """The variant, its input, its number of classes and what it lacks."""
    changed = f" x {variant.width:g}" if variant.width != 1 else ""
    parts = [word("title", language, name=variant.name, changed=changed, side=variant.input_size, classes=variant.num_classes)]
    if variant.removed:
        parts.append(word("without", language, names=", ".join(variant.removed)))
    return word("comma", language).join(parts)


def learned(variant: Variant, language: str = "en") -> str:
    """How many layers learn: "8 learned layers: 5 convolutional + 3 fully connected"."""
    ops = variant.ops()
    convolutional, connected = (sum(isinstance(op, kind) for op in ops) for kind in (Conv, Linear))
    total = convolutional + connected
    return word("learned", language, total=total, convolutional=convolutional, connected=connected)


def parts(variant: Variant, language: str = "en") -> list[Part]:
    """Every layer of a network in order, and softmax at the end.

    Raises:
        UsageError: an unknown language.
    """
    written = [Part(layer.name, lines(layer, variant, language)) for layer in variant.layers()]
    rule = word("softmax_rule", language, count=variant.num_classes)
    return [*written, Part("softmax", (Line("", rule),))]


def lines(layer: Layer, variant: Variant, language: str = "en") -> tuple[Line, ...]:
    """One layer of a variant."""
    op = layer.op
    match op:
        case Conv():
            return _convolution(layer, op, variant, language)
        case MaxPool():
            return _pooling(layer, op, variant, language)
        case Linear():
            return _connected(layer, op, variant, language)
        case LRN() | SpatialNorm():
            return (_normalisation(op, language),)
        case ReLU() | Tanh():
            rule = "relu_rule" if isinstance(op, ReLU) else "tanh_rule"
            return (Line("", word(rule, language, values=_product(layer.output))),)
        case Dropout():
            return _dropout(op, language)
    raise AssertionError(op)


def split(op: Conv | Linear, variant: Variant) -> tuple[int, int]:
    """How many kernels or units each tower has, and how many towers: (48, 2). fc8 belongs to no
    tower.
    """
    count = op.kernels if isinstance(op, Conv) else op.units
    towers = 1 if op.name == "fc8" else variant.towers
    return count // towers, towers


def size_formula(layer: Layer, language: str = "en") -> str:
    """The size of a convolution's or a pooling's output, worked out."""
    op = layer.op
    assert isinstance(op, Conv | MaxPool)
    before, after = op.padding if isinstance(op, Conv) else (0, 0)
    padding = f"({before} + {after})" if isinstance(op, Conv) else "0"
    exact = (layer.input[1] - op.size + before + after) / op.stride + 1
    size = str(layer.output[1])
    if exact != layer.output[1]:
        size = word("rounded", language, exact=f"{exact:.4g}", size=size)
    return f"N = (W - F + 2P) / S + 1 = ({layer.input[1]} - {op.size} + {padding}) / {op.stride} + 1 = {size}"


def _convolution(layer: Layer, op: Conv, variant: Variant, language: str) -> tuple[Line, ...]:
    before, after = op.padding
    fan_in = layer.input[0] // op.groups
    weights = f"{op.kernels} * ({op.size}*{op.size}*{fan_in})"
    parameters = f"{weights} + {op.kernels} = {layer.parameters:,}"
    multiply_adds = f"{layer.output[1]}*{layer.output[2]} * {weights} = {layer.multiply_adds:,}"
    return (
        Line(word("kernels", language), _towers(op, variant)),
        Line(word("kernel_size", language), f"{op.size}"),
        Line(word("padding", language), f"[{before},{after}]"),
        Line(word("stride", language), f"{op.stride}"),
        *_sizes(layer, language),
        Line("", size_formula(layer, language)),
        Line(word("reads", language), _reads(layer, op, variant, language)),
        Line(word("parameters", language), parameters),
        Line(word("multiply_adds", language), multiply_adds),
        _field(layer, variant, language),
    )


def _pooling(layer: Layer, op: MaxPool, variant: Variant, language: str) -> tuple[Line, ...]:
    return (
        Line(word("window_size", language), f"{op.size}"),
        Line(word("padding", language), "0"),
        Line(word("stride", language), f"{op.stride}"),
        *_sizes(layer, language),
        Line("", size_formula(layer, language)),
        *_overlap(op, language),
        _field(layer, variant, language),
    )


def _overlap(op: MaxPool, language: str) -> tuple[Line, ...]:
    """What neighbouring windows share, if anything."""
    if op.stride >= op.size:
        return ()
    numbers = {"size": op.size, "stride": op.stride, "both": op.size - op.stride}
    return (Line(word("overlap", language), word("shared", language, **numbers)),)


def _connected(layer: Layer, op: Linear, variant: Variant, language: str) -> tuple[Line, ...]:
    inputs = "*".join(map(str, layer.input))
    return (
        Line(word("units", language), _towers(op, variant)),
        Line(word("parameters", language), f"{op.units} * {inputs} + {op.units} = {layer.parameters:,}"),
        Line(word("multiply_adds", language), f"{op.units} * {inputs} = {layer.multiply_adds:,}"),
    )


def _normalisation(op: LRN | SpatialNorm, language: str) -> Line:
    rule = "spatial_rule" if isinstance(op, SpatialNorm) else "lrn_tower_rule" if op.towers > 1 else "lrn_rule"
    numbers = {"k": f"{op.k:g}", "coefficient": f"{op.coefficient:g}", "size": op.size, "beta": f"{op.beta:g}"}
    return Line("", word(rule, language, **numbers))


def _dropout(op: Dropout, language: str) -> tuple[Line, ...]:
    training, test = ("grown", "nothing") if op.inverted else ("zero", "shrunk")
    numbers = {"rate": f"{op.rate:g}", "kept": f"{1 - op.rate:g}"}
    return (
        Line(word("in_training", language), word(f"dropout_{training}", language, **numbers)),
        Line(word("at_test", language), word(f"dropout_{test}", language, **numbers)),
    )


def _towers(op: Conv | Linear, variant: Variant) -> str:
    """As in 48*2=96, or 64."""
    each, towers = split(op, variant)
    return f"{each}*{towers}={each * towers}" if towers > 1 else f"{each}"


def _sizes(layer: Layer, language: str) -> tuple[Line, Line]:
    size = "[{1},{2},{0}]".format
    return (
        Line(word("input_size", language), size(*layer.input)),
        Line(word("output_size", language), size(*layer.output)),
    )


def _reads(layer: Layer, op: Conv, variant: Variant, language: str) -> str:
    everything, own = layer.input[0], layer.input[0] // op.groups
    if op == variant.ops()[0]:
        return word("reads_picture", language, all=everything)
    if op.groups > 1:
        return word("reads_own", language, all=everything, own=own)
    return word("reads_both" if variant.towers == 2 else "reads_all", language, all=everything)


def _field(layer: Layer, variant: Variant, language: str) -> Line:
    side, jump = layer.receptive_field, layer.jump
    key = "field" if side < variant.input_size else "field_whole"
    return Line(word("receptive_field", language), word(key, language, side=side, jump=jump))


def _product(shape: tuple[int, ...]) -> str:
    """As in 55*55*96 = 290,400, or 4,096."""
    if len(shape) == 1:
        return f"{shape[0]:,}"
    channels, height, width = shape
    return f"{height}*{width}*{channels} = {prod(shape):,}"
