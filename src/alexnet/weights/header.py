"""What stands beside the parameters in a file of ours, checked before anything is made of it.

Our safetensors and our ONNX files both say, as JSON, which variant they hold, its classes and how its pictures are prepared.
The text may come from anybody: a type that is not the field's would fail far from here with a traceback, and a picture of ten
million pixels a side would ask for 300 TB. So both readers pass through `variant` and `check`.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from alexnet.data.augment import Preprocessing
from alexnet.variants import Variant, get

FORMAT = "alexnet 1"
MAX_SIDE = 2**16  # of a stored picture; float32 counts to 2^24


def variant(fields: Mapping[str, Any]) -> Variant:
    """The variant whose fields were read from JSON, in which tuples are lists.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: no fields of a variant; `VariantError` is a ValueError.
    """
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    _check_types(values, get_type_hints(Variant))
    return get(values["name"], **values)


def check(variant: Variant, classes: tuple[str, ...], preprocessing: Preprocessing) -> None:
    """Refuse classes and preprocessing that do not belong to the variant.

    Raises:
        ValueError: naming what does not fit.
    """
    _check_types(vars(preprocessing), get_type_hints(Preprocessing))
    stored, size = preprocessing.stored_size, preprocessing.input_size
    numbers = (preprocessing.mean, preprocessing.scale)
    shapes = tuple(tuple(tensor.shape) for tensor in numbers)
    rules = {
        f"{len(classes)} classes for {variant.num_classes} outputs": len(classes) == variant.num_classes,
        "classes that are no texts": all(isinstance(name, str) for name in classes),
        f"crops of {size} for an input of {variant.input_size}": size == variant.input_size,
        f"crops of {size} from pictures of {stored}, which must be even": size <= stored < MAX_SIDE and stored % 2 == 0,
        f"mean and scale of {shapes}": shapes in [((3, 1, 1), (3,)), ((3, stored, stored), (3,))],
        "a mean or scale that is NaN or infinite": all(bool(torch.isfinite(tensor).all()) for tensor in numbers),
    }
    for what, holds in rules.items():
        if not holds:
            raise ValueError(what)


def _check_types(values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in hints and not _is(value, hints[name]):
            raise ValueError(f"{name} = {value!r}")


def _is(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of a field's type; whole numbers are floats too."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        kinds = kinds[:1] * len(value) if kinds[-1] is ... else kinds
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is, value, kinds))
    return type(value) is hint or (hint is float and type(value) is int)
