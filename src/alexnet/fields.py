"""Check the types of a dataclass's fields when it is made, since a wrong one would fail much later
or be recorded wrongly.
"""

from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from alexnet.errors import AlexNetError


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def check_types(instance: Any, error: type[AlexNetError]) -> None:
    """Refuse a value of another type than its field's.

    Raises:
        error: naming the field, its value and its type.
    """
    for name, kind in _hints(type(instance)).items():  # type: ignore[arg-type]
        value = getattr(instance, name)
        if not _is(value, kind):
            raise error(f"{name} (={value!r}) must be {_words(kind)}.")


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type; whole numbers are floats too,
    truth values are not numbers.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in parts)
    if origin in (Union, UnionType):
        return any(_is(value, part) for part in parts)
    if origin is tuple:
        parts = parts[:1] * len(value) if parts[-1] is Ellipsis and isinstance(value, tuple) else parts
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_is, value, parts))
    if kind is float and type(value) is int:
        return abs(value) < 2**1023
    return type(value) is kind


def _words(kind: Any) -> str:
    """A field's type for a message."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (Union, UnionType):
        return " or ".join(map(_words, parts))
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"a tuple of {len(parts)}, each {_words(parts[0])}"
    if origin is tuple:
        return f"a tuple, each entry {_words(parts[0])}"
    return {int: "a whole number", float: "a number", bool: "True or False", str: "a text", NoneType: "None"}[kind]
