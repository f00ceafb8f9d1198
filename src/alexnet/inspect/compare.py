"""Compare two variants with one set of weights on one picture: how far they differ, from which
stage on, and because of which field.

The distance at a stage is ||b - a|| / ||a||. To find the cause, each field in which the variants
differ is changed alone, from the first variant's value to the second's: the stage at which that
first shows, and what it does to the logits. Fields that matter in training only (initialisation,
dropout's rate, the biases' learning rate) change nothing here, and are said to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.image import encode
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError, VariantError
from alexnet.model import AlexNet
from alexnet.trained import Trained
from alexnet.variants import Variant, get_variant
from alexnet.weights import importer
from alexnet.weights.match import check_shapes

INPUT = "input"
#: Fields that describe the file or its classes, not what is computed.
LABELS = ("name", "class_order", "num_classes", "width", "kernels", "units", "towers")
#: The side of the input and the padding that goes with it: either alone gives fc6 other inputs.
GEOMETRY = ("input_size", "conv1_padding")


@dataclass(frozen=True)
class StageDistance:
    """The distance of both networks at one stage, or why it has none."""

    name: str
    distance: float | None
    remark: str = ""


@dataclass(frozen=True)
class FieldEffect:
    """The effect of changing one field alone.

    Attributes:
        fields: one, or the side of the input together with conv1's padding.
        values: theirs in the first variant, and in the second.
        stage: the first stage that changes, or None.
        distance: there; None where its shape changes.
        at_logits: the distance of fc8.
    """

    fields: tuple[str, ...]
    values: tuple[tuple[Any, ...], tuple[Any, ...]]
    stage: str | None
    distance: float | None
    at_logits: float


def compare(trained: Trained, first: str, second: str, picture: bytes) -> tuple[list[StageDistance], list[FieldEffect]]:
    """Run one picture through two variants with the same weights.

    Args:
        trained: the weights, and the preprocessing whose mean is used for both.
        first, second: names of variants.
        picture: bytes of a file with a picture.

    Raises:
        CheckpointError: the weights do not fit one of the variants.
        Unreadable: no picture.
    """
    a, b = (_adapted(trained, name) for name in (first, second))
    before = _run(trained, a, picture)
    return list(_stages(before, _run(trained, b, picture))), list(_effects(trained, a, b, picture, before))


def load(path: Path, variant: str) -> Trained:
    """Weights of any format for a comparison; where the file does not tell its variant, it is
    taken for the one named.
    """
    return importer.import_weights(path, otherwise=variant)[0]


def explain(effects: Sequence[FieldEffect], first: str, second: str) -> Iterator[str]:
    """The effects in words, the one that shows first at the top."""
    effective = [effect for effect in effects if effect.stage]
    if not effective:
        yield f"{first} and {second} compute the same on this picture."
    for number, effect in enumerate(effective):
        changes = ", ".join(f"{name} {a} -> {b}" for name, a, b in zip(effect.fields, *effect.values, strict=True))
        lead = "The first difference comes from" if number == 0 else "Then"
        yield (
            f"{lead} {changes}: changed alone, it first shows at "
            f"{effect.stage}{f' ({effect.distance:.3g})' if effect.distance is not None else ''} and "
            f"moves the logits by {effect.at_logits:.3g}."
        )
    idle = [name for effect in effects if not effect.stage for name in effect.fields]
    if idle:
        yield f"No effect on the result: {', '.join(idle)}."


def _adapted(trained: Trained, name: str) -> Variant:
    """The variant with the weights' widths and classes."""
    own, variant = trained.model.variant, get_variant(name)
    sizes: dict[str, Any] = {field: getattr(own, field) for field in ("width", "num_classes")}
    standard = get_variant(own.name)
    if (own.kernels, own.units) != (standard.kernels, standard.units):  # the file has widths of its own
        sizes |= {"kernels": own.kernels, "units": own.units}
    if own.input_size != standard.input_size:  # the side that gives conv1's map the same size
        sizes["input_size"] = own.input_size + sum(own.conv1_padding) - sum(variant.conv1_padding)
    try:
        adapted = replace(variant, **sizes)
        check_shapes(trained.model.state_dict(), adapted)
    except (VariantError, CheckpointError) as error:
        raise CheckpointError(
            f"the weights do not fit {name!r}: {error} Compare variants of the same widths, such as caffe, caffenet, paper, "
            "code-2012."
        ) from error
    return adapted


@torch.inference_mode()
def _run(trained: Trained, variant: Variant, picture: bytes) -> dict[str, Tensor]:
    """Every stage of one picture, the network's input first."""
    own = trained.preprocessing
    stored = max(own.stored_size, 2 * round(variant.input_size / 2))
    record: NDArray[np.uint8] = encode(picture, stored, variant.resize)
    mean, scale = own.mean, own.scale
    if mean.shape[1] > 1 and mean.shape[1] != stored:
        mean = mean.mean((1, 2), keepdim=True)
    preprocessing = Preprocessing(stored, variant.input_size, variant.resize, variant.channel_order == "BGR", mean, scale)
    x = preprocessing.view(torch.from_numpy(record)[None], *preprocessing.views(1)[0])
    return {INPUT: x, **AlexNet.holding(variant, trained.model.state_dict()).eval().stages(x)}


def _stages(a: dict[str, Tensor], b: dict[str, Tensor]) -> Iterator[StageDistance]:
    for name in [*a, *(name for name in b if name not in a)]:
        if name not in a or name not in b:
            yield StageDistance(name, None, f"only in the {'first' if name in a else 'second'}")
        elif a[name].shape != b[name].shape:
            shapes = (" x ".join(map(str, stage[name].shape[1:])) for stage in (a, b))
            yield StageDistance(name, None, " against ".join(shapes))
        else:
            yield StageDistance(name, _distance(a[name], b[name]))


def _distance(a: Tensor, b: Tensor) -> float:
    """Relative L2."""
    return float((b - a).double().norm() / a.double().norm().clamp_min(1e-30))


def _effects(trained: Trained, a: Variant, b: Variant, picture: bytes, before: dict[str, Tensor]) -> Iterator[FieldEffect]:
    differing = [name for name in (field.name for field in fields(a)) if getattr(a, name) != getattr(b, name)]
    geometry = tuple(name for name in differing if name in GEOMETRY)
    single = [(name,) for name in differing if name not in (*GEOMETRY, *LABELS)]
    effects = [_effect(trained, a, b, picture, before, names) for names in [geometry] * bool(geometry) + single]
    order = [*before, None]
    yield from sorted(effects, key=lambda effect: order.index(effect.stage))


def _effect(
    trained: Trained, a: Variant, b: Variant, picture: bytes, before: dict[str, Tensor], names: tuple[str, ...]
) -> FieldEffect:
    """The effect of changing these fields alone."""
    values = tuple(getattr(a, name) for name in names), tuple(getattr(b, name) for name in names)
    after = _run(trained, replace(a, **dict(zip(names, values[1], strict=True))), picture)
    changed = next((stage for stage in _stages(before, after) if stage.distance != 0 and stage.name in before), None)
    at_logits = _distance(before["fc8"], after["fc8"])
    return FieldEffect(names, values, changed.name if changed else None, changed.distance if changed else None, at_logits)
