"""Find which variant a file of another program holds.

A translator (`caffe_read.py`, `torchvision.py`, `npy.py`, `onnx_read.py`) turns a file into a
`Foreign`: tensors under our names and in our layout, and as much as the format says about the
network. `fit` then says which `Variant` that is. A format with a graph (Caffe, ONNX) gives the
operations, from which every structural field of the variant follows; a format with tensors
alone gives widths, groups and classes, and the rest comes from the variant that it is known
for or that the user names.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from itertools import zip_longest
from math import isclose, isfinite
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from alexnet import paper
from alexnet.arithmetic import LRN, Conv, Dropout, Linear, MaxPool, Op, ReLU, SpatialNorm
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError, VariantError
from alexnet.files import open_regular
from alexnet.variants import LAYER_NAMES, OpKind, Variant, get_variant, named

#: Steps of a block by the type of their operation; dropout is not part of a block.
KINDS: dict[type[Op], OpKind] = {Conv: "conv", ReLU: "relu", LRN: "norm", SpatialNorm: "spatial", MaxPool: "pool"}
PARAMETERS = tuple(f"{layer}.{kind}" for layer in LAYER_NAMES for kind in ("weight", "bias"))
#: Fields that a graph decides, in the order in which data meets them.
STRUCTURE = ("conv1_padding", "block1", "block2", "block5", "lrn_window", "lrn_coefficient", "lrn_k")


@dataclass(frozen=True)
class Foreign:
    """A translated file.

    Attributes:
        format: what it is, for people: "Caffe, layout of 2014".
        tensors: parameters under our names: convolutions (out, in / groups, height, width), fully
            connected (out, in), the inputs of fc6 in C, H, W order.
        ops: the graph as operations without dropout, or None if the format holds tensors alone.
        variant: name of the variant that the format is known for, or the file's own variant;
            None if it does not say.
        settled: fields of the variant that the format decides, such as Caffe's BGR.
        input_size: side of the input in pixels, if the file says it.
        preprocessing, classes: if the file has them.
        scale: if the file says only this of the preprocessing: what pixels minus
            their mean are multiplied by.
        notes: what a user should know about it.
    """

    format: str
    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...] | None = None
    variant: str | Variant | None = None
    settled: Mapping[str, Any] = field(default_factory=dict)
    input_size: int | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
    scale: float = 1.0
    notes: tuple[str, ...] = field(default=())


@contextmanager
def reading(path: Path, what: str) -> Iterator[BinaryIO]:
    """The open file, for a translator; anything wrong with it raises one error that begins with its
    path.

    Raises:
        CheckpointError: what was raised inside without a path, with it; or the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            yield file
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be read as {what}: {error}.") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} cannot be read as {what}: it is damaged ({error}).") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def fit(
    foreign: Foreign, variant: str | Variant | None = None, input_size: int | None = None, partial: bool = False
) -> Variant:
    """The variant whose parameters and graph a file holds.

    Args:
        foreign: the translated file.
        variant: what the user says it is; for formats without a graph it decides all
            that tensors cannot show.
        input_size: what the user says about the input's side in pixels.
        partial: whether layers after conv1 may be missing. Their widths are the variant's own,
            scaled as the others are.

    Raises:
        CheckpointError: layers are missing or superfluous, shapes do not fit each other, the graph
            contradicts the variant named, or the file does not say what it is.
    """
    if isinstance(foreign.variant, Variant):
        return _own(foreign, foreign.variant, variant, input_size, partial)
    _check_names(foreign, partial)
    structure = _structure(foreign.ops) if foreign.ops else {}
    base = _base(foreign, variant, structure)
    widths = _widths(foreign.tensors, base)
    changed = {name: value for name, value in structure.items() if not _same(value, getattr(base, name))}
    if changed and variant is not None:
        name, value = next(iter(changed.items()))
        raise CheckpointError(
            f"the {foreign.format} file is not {base.name!r}: its graph has {name} = {value}, but "
            f"the variant has {getattr(base, name)}. Drop --variant to use the file's own."
        )
    if variant is not None and widths["towers"] != base.towers:
        raise CheckpointError(
            f"the {foreign.format} file is not {base.name!r}: its conv2 reads {widths['towers']} "
            f"towers, but the variant has {base.towers}."
        )
    size = input_size or foreign.input_size or base.input_size
    try:
        fitted = replace(base, **changed, **foreign.settled, **_scaled(base, widths), input_size=size)
        fitted = _without_hidden(fitted, foreign.tensors) if partial else fitted
    except VariantError as error:
        raise CheckpointError(f"the {foreign.format} file does not hold an AlexNet: {error}") from error
    check_shapes(foreign.tensors, fitted)
    if foreign.ops:
        _check_graph(foreign.format, foreign.ops, fitted)
    return fitted


def _without_hidden(variant: Variant, tensors: Mapping[str, Tensor]) -> Variant:
    """Without those of fc6 and fc7 that the file lacks, if what follows them reads what comes
    before them."""

    def fits(variant: Variant) -> bool:
        shapes = variant.parameter_shapes()
        return all(tuple(tensors[name].shape) == shapes[name] for name in ("fc7.weight", "fc8.weight") if name in tensors)

    hidden = tuple(name for name in ("fc6", "fc7") if f"{name}.weight" not in tensors)
    shorter = replace(variant, removed=hidden)
    return shorter if hidden and not fits(variant) and fits(shorter) else variant


def missing(variant: Variant, tensors: Collection[str]) -> tuple[str, ...]:
    """The layers of a variant of which weight or bias is not among the names of `tensors`."""
    return tuple(dict.fromkeys(name.partition(".")[0] for name in variant.parameter_shapes() if name not in tensors))


def whole_layers(foreign: Foreign) -> Foreign:
    """A file's layers that have both weight and bias; a note says what is left out."""
    whole = [name for name in LAYER_NAMES if all(f"{name}.{kind}" in foreign.tensors for kind in ("weight", "bias"))]
    taken = {name: foreign.tensors[name] for layer in whole for name in (f"{layer}.weight", f"{layer}.bias")}
    left = [name for name in foreign.tensors if name not in taken]
    note = f"left out, as they are not a layer's weight and bias: {', '.join(left)[:200]}"
    return replace(foreign, tensors=taken, notes=(*foreign.notes, *[note] * bool(left)))


def _own(
    foreign: Foreign, own: Variant, variant: str | Variant | None, input_size: int | None, partial: bool = False
) -> Variant:
    """The variant that a file of ours names; another would not fit the file's preprocessing."""
    if variant is not None and get_variant(variant).name != own.name:
        raise CheckpointError(
            f"the {foreign.format} file holds {own.name!r}, not {get_variant(variant).name!r}: drop --variant."
        )
    if input_size not in (None, own.input_size):
        raise CheckpointError(f"the {foreign.format} file has inputs of {own.input_size} pixels: drop --input-size.")
    if lacking := [] if partial else missing(own, foreign.tensors):
        raise CheckpointError(f"the {foreign.format} file holds a part of a network: {', '.join(lacking)} missing.")
    check_shapes(foreign.tensors, own)
    return own


def _check_names(foreign: Foreign, partial: bool = False) -> None:
    if other := _another_network(foreign.tensors):
        raise CheckpointError(f"the {foreign.format} file holds another network: {other}.")
    absent, strange = sorted({*PARAMETERS} - {*foreign.tensors}), sorted({*foreign.tensors} - {*PARAMETERS})
    lacking = ["conv1.weight"] * ("conv1.weight" not in foreign.tensors) if partial else absent
    if lacking or strange:
        what = [f"lacks {', '.join(lacking)}"] * bool(lacking) + [f"has {', '.join(strange)}"] * bool(strange)
        raise CheckpointError(
            f"the {foreign.format} file {' and '.join(what)}: an AlexNet has weights and biases for {', '.join(LAYER_NAMES)}."
        )
    for name, tensor in foreign.tensors.items():
        rank = 1 if name.endswith("bias") else 4 if name.startswith("conv") else 2
        if tensor.dim() != rank:
            raise CheckpointError(
                f"the {foreign.format} file has {name} of shape {tuple(tensor.shape)}: it must have {rank} dimensions."
            )


def _another_network(tensors: Mapping[str, Tensor]) -> str | None:
    """What shows at once that tensors do not belong to an AlexNet; None if nothing does."""
    statistics = next((name for name in tensors if name.endswith((".running_mean", ".num_batches_tracked"))), None)
    blocks = next((name for name in tensors if name.startswith("layer1.")), None)
    if blocks:
        return f"it has residual blocks ({blocks}), as a ResNet has"
    if statistics:
        return f"it has batch normalisation ({statistics}), which an AlexNet does not"
    weights = [tensor.dim() for name, tensor in tensors.items() if name.endswith("weight")]
    convolutions, fully = weights.count(4), weights.count(2)
    if convolutions > len(paper.KERNELS) or fully > len(LAYER_NAMES) - len(paper.KERNELS):
        return f"it has {convolutions} convolutions and {fully} fully connected layers, but an AlexNet has 5 and 3"
    return None


def _widths(tensors: Mapping[str, Tensor], base: Variant) -> dict[str, Any]:
    """Kernels, units, classes and towers, from the shapes; of layers that are missing, as many as
    `base` has, scaled as the others."""
    own = dict(zip(LAYER_NAMES, (*base.kernels, *base.units), strict=False))
    there = {name: len(tensors[f"{name}.weight"]) for name in LAYER_NAMES if f"{name}.weight" in tensors}
    factors = {Fraction(count, own[name]) for name, count in there.items() if name in own}
    factor = factors.pop() if len(factors) == 1 else Fraction(1)
    out = [there.get(name, int(count * factor)) for name, count in own.items()]
    inputs = tensors["conv2.weight"].shape[1] if "conv2" in there else out[0] // base.towers
    classes = there.get("fc8", base.num_classes)
    return {"kernels": tuple(out[:5]), "units": tuple(out[5:]), "num_classes": classes, "towers": int(out[0] / max(inputs, 1))}


def _scaled(base: Variant, widths: Mapping[str, Any]) -> dict[str, Any]:
    """The widths as a factor on the variant's own if there is one, else as they are."""
    ours, theirs = (*base.kernels, *base.units), (*widths["kernels"], *widths["units"])
    factors = {Fraction(width, known) for known, width in zip(ours, theirs, strict=True)}
    scaled = {"num_classes": widths["num_classes"], "towers": widths["towers"]}
    if len(factors) == 1:
        return {**scaled, "width": float(factors.pop())}
    return {**scaled, "width": 1.0, "kernels": widths["kernels"], "units": widths["units"]}


def _structure(ops: Sequence[Op]) -> dict[str, Any]:
    """The fields in `STRUCTURE` that a graph decides."""
    blocks: list[list[Op]] = []
    for op in ops:
        if isinstance(op, Conv | Linear):
            blocks.append([])
        if blocks and not isinstance(op, Dropout):
            blocks[-1].append(op)
    first = blocks[0][0]
    assert len(blocks) == len(LAYER_NAMES) and isinstance(first, Conv)
    structure: dict[str, Any] = {"conv1_padding": first.padding}
    for number in (1, 2, 5):
        structure[f"block{number}"] = tuple(KINDS[type(op)] for op in blocks[number - 1])
    norms = [op for op in ops if isinstance(op, LRN)]
    if norms:
        norm = norms[0]
        structure |= {"lrn_coefficient": norm.coefficient, "lrn_k": norm.k, "lrn_window": "tower" if norm.towers > 1 else "all"}
    return structure


def _same(actual: Any, known: Any) -> bool:
    """Equal, for floats as float32 files hold them."""
    return isclose(actual, known, rel_tol=1e-6) if isinstance(known, float) else actual == known


def _base(foreign: Foreign, variant: str | Variant | None, structure: Mapping[str, Any]) -> Variant:
    """The variant to start from: the user's, the file's, or the known one that agrees with the
    graph in most fields."""
    name = variant or foreign.variant
    if name is not None:
        return get_variant(name)
    if not structure:
        raise CheckpointError(
            f"the {foreign.format} file holds only tensors, which fit several variants: choose one "
            f"with --variant ({', '.join(named())})."
        )
    clues = {**structure, **foreign.settled}
    return max(named().values(), key=lambda known: sum(_same(value, getattr(known, name)) for name, value in clues.items()))


def _check_graph(format: str, ops: Sequence[Op], fitted: Variant) -> None:
    """Check that every operation of the file equals the fitted variant's, in all its numbers."""
    ours = [op for op in fitted.ops() if not isinstance(op, Dropout)]
    theirs = [op for op in ops if not isinstance(op, Dropout)]
    for known, their in zip_longest(ours, theirs):
        if known is None or their is None or type(known) is not type(their):
            raise CheckpointError(f"the {format} file's graph has {their}, but an AlexNet like it has {known}.")
        for name in (known_field.name for known_field in fields(known) if known_field.name != "name"):
            if not _same(getattr(their, name), getattr(known, name)):
                raise CheckpointError(
                    f"the {format} file's {their.name} has {name} = {getattr(their, name)}; in an AlexNet like it, "
                    f"{known.name} has {getattr(known, name)}."
                )


def check_shapes(tensors: Mapping[str, Tensor], variant: Variant) -> None:
    """Check that every tensor that is there has the variant's shape.

    Raises:
        CheckpointError: naming the first that has not.
    """
    for name, shape in variant.parameter_shapes().items():
        actual = tuple(tensors[name].shape) if name in tensors else shape
        if actual == shape:
            continue
        if name == "fc6.weight" and actual[0] == shape[0]:
            whole = named()[variant.name].input_size if variant.name in named() else variant.input_size
            if whole != variant.input_size and actual == replace(variant, input_size=whole).parameter_shapes()[name]:
                raise CheckpointError(
                    f"fc6 reads {actual[1]} inputs, which fits pictures of {whole} x {whole} "
                    f"pixels. At {variant.input_size} pixels it would need torchvision's adaptive "
                    f"pooling, which is not supported: drop --input-size to import it at {whole}."
                )
            raise CheckpointError(
                f"fc6 reads {actual[1]} inputs, but {variant.name!r} has {shape[1]} at "
                f"{variant.input_size} x {variant.input_size} pixels. If it was trained on another size, convert it "
                "with that size, and use the result: `alexnet weights import FILE --input-size SIDE -o weights.safetensors`."
            )
        raise CheckpointError(f"{name} has shape {actual}, but {variant.name!r} with these other layers has {shape}.")


def check_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Check that every value is a finite number.

    Raises:
        CheckpointError: some are NaN or infinite.
    """
    # isfinite would need four times the tensor's memory; extremes need none, and
    # a NaN is both of them.
    if tensor.numel() and not all(map(isfinite, map(float, tensor.aminmax()))):
        count = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"{path}: {count:,} of {name}'s {tensor.numel():,} values are NaN or infinite: the "
            "file is damaged or its training diverged, so use another one."
        )


def plain_tensors(variant: Variant, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The variant's parameters, conv1.weight to fc8.bias, as contiguous
    float32 tensors in main memory.

    Raises:
        CheckpointError: one is missing or has another shape.
    """
    missing = [name for name in variant.parameter_shapes() if name not in tensors]
    if missing:
        raise CheckpointError(f"{', '.join(missing)} missing: an AlexNet has weights and biases for {', '.join(LAYER_NAMES)}.")
    check_shapes(tensors, variant)
    # channels_last is contiguous in its own way, and .contiguous() alone would leave it so.
    return {
        name: tensors[name].detach().to("cpu", torch.float32).contiguous(memory_format=torch.contiguous_format)
        for name in variant.parameter_shapes()
    }


def same_structure(variant: Variant, target: str, free: Collection[str], holder: str) -> None:
    """Refuse to write a network to a format that supports one structure only.

    Args:
        target: the variant whose structure the format supports.
        free: fields in which the network may differ from it.
        holder: the format, for people.

    Raises:
        CheckpointError: naming the first field that differs.
    """
    model = named()[target]
    layers = ("removed", "activation", "pool_size", "sees_both_towers")
    forward = ("kernels", "units", "width", "towers", *layers, *STRUCTURE, "dropout_scaling", "dropout_position")
    for name in forward:
        if name not in free and not _same(getattr(variant, name), getattr(model, name)):
            raise CheckpointError(
                f"{holder} has {name} = {getattr(model, name)!r}, but this network has "
                f"{getattr(variant, name)!r}: the file would compute something else. Export to "
                "safetensors or onnx, which hold every variant."
            )
