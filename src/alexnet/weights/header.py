"""Check what accompanies the parameters in our own files, before it is used.

Our safetensors and our ONNX files both say, as JSON, which variant they hold, its classes and how
its pictures are prepared. The text may come from anybody: a type that is not the field's would fail
far from here with a traceback, and a picture of ten million pixels a side would need 300 TB. So
both readers parse it by the schemas below, then call `check_description`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import torch

from alexnet import schema
from alexnet.data.image import Resize
from alexnet.data.preprocessing import Preprocessing
from alexnet.errors import CheckpointError, VariantError
from alexnet.schema import Range
from alexnet.variants import Variant, get_variant

T = TypeVar("T")
FORMAT = "alexnet 1"
MAX_SIDE = 2**16  # of a stored picture; float32 counts to 2^24
REMEDY = "Export or download the file again."


@dataclass(frozen=True)
class PreprocessingEntry:
    """How pictures are prepared, but for the mean and the scale, which are tensors."""

    stored_size: Annotated[int, Range(2, MAX_SIDE)]
    input_size: Annotated[int, Range(1, MAX_SIDE)]
    resize: Resize
    bgr: bool


def read_entry(texts: Mapping[str, str], name: str, kind: type[T], path: object) -> T:
    """One entry of a safetensors header, a JSON text, as `kind`.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    what = f"the entry {name!r} of {path}'s header"
    if name not in texts:
        raise CheckpointError(f"{path} is damaged: its header has no entry {name!r}. {REMEDY}")
    return schema.parse_json(texts[name], kind, what, CheckpointError, REMEDY)


def read_variant(fields: Mapping[str, Any], what: str) -> Variant:
    """The variant whose fields were read from JSON; `what` names their place. Fields that an older
    file lacks are those of the variant of its name.

    Raises:
        CheckpointError: they are not those of a variant.
    """
    name = schema.parse(fields.get("name"), str, f"{what}, name,", CheckpointError, REMEDY)
    try:
        return schema.parse({**_plain(get_variant(name)), **fields}, Variant, what, CheckpointError, REMEDY)
    except VariantError as error:
        raise CheckpointError(f"{what} is damaged: {error} {REMEDY}") from error


def _plain(variant: Variant) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(variant).items()}


def check_description(variant: Variant, classes: tuple[str, ...], preprocessing: Preprocessing, what: str) -> None:
    """Refuse classes and preprocessing that do not belong to the variant.

    Raises:
        CheckpointError: naming what does not fit.
    """
    stored, size = preprocessing.stored_size, preprocessing.input_size
    numbers = (preprocessing.mean, preprocessing.scale)
    shapes = tuple(tuple(tensor.shape) for tensor in numbers)
    rules = {
        f"{len(classes)} classes for {variant.num_classes} outputs": len(classes) == variant.num_classes,
        f"crops of {size} pixels for an input of {variant.input_size}": size == variant.input_size,
        f"crops of {size} from pictures of {stored}, which must be even": size <= stored and stored % 2 == 0,
        f"a mean and a scale of {shapes}": shapes in [((3, 1, 1), (3,)), ((3, stored, stored), (3,))],
        "a mean or scale that is not of floats": all(tensor.is_floating_point() for tensor in numbers),
        "a mean or scale that is NaN or infinite": all(bool(torch.isfinite(tensor).all()) for tensor in numbers),
    }
    for problem, holds in rules.items():
        if not holds:
            raise CheckpointError(f"{what} is damaged: it has {problem}. {REMEDY}")
