"""JSON that we read back, checked once where it is read: every field's type and range.

A dataclass is the schema. `parse` turns plain data into it and names the first thing that does not
fit, so that the code behind it can trust what it has.

>>> @dataclass(frozen=True)
... class Progress:
...     epoch: Annotated[int, Range(0)]
...     losses: tuple[float, ...] = ()
>>> read_json(folder / "progress.json", Progress, TrainingError, "Begin a new run.")

Understood are dataclasses, `tuple[X, ...]`, `tuple[X, Y]`, `list[X]`, `dict[str, X]`,
`Literal`, unions, `None`, `bool`, `int` (64 bits), `float` (finite), `str`, `Any`, and
`Annotated` with a `Range`. A field with a default may be missing, so files of older versions
stay readable; an unknown key is refused.
"""

import json
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from math import inf, isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from alexnet.errors import AlexNetError

T = TypeVar("T")
INT64 = 2**63
NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}


@dataclass(frozen=True)
class Range:
    """Bounds of a number, or of the length of a text, list or object; both ends are included."""

    low: float = -inf
    high: float = inf


class _Misfit(Exception):
    """What does not fit, and where."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place or 'the content'} {problem}")


def read_json(path: Path, kind: type[T], error: type[AlexNetError], remedy: str) -> T:
    """Read a JSON file into `kind`.

    Args:
        path: the file.
        kind: what it must hold.
        error: what to raise.
        remedy: the sentence that ends the message: what to do now.

    Raises:
        error: it is missing or damaged.
    """
    try:
        text = path.read_bytes()
    except OSError as cause:
        raise error(f"{path} cannot be read: {cause.strerror or cause}. {remedy}") from cause
    return parse_json(text, kind, str(path), error, remedy)


def parse_json(text: str | bytes, kind: type[T], what: str, error: type[AlexNetError], remedy: str) -> T:
    """`parse` of JSON text; `what` names it in the message.

    Raises:
        error: the text is not JSON, or does not fit `kind`.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as cause:  # ValueError: broken JSON or UTF-8, a number of too many digits
        raise error(f"{what} is damaged: it is not valid JSON ({cause}). {remedy}") from cause
    return parse(value, kind, what, error, remedy)


def parse(value: object, kind: type[T], what: str, error: type[AlexNetError], remedy: str) -> T:
    """Turn plain data, as JSON gives it, into `kind`.

    Raises:
        error: "WHAT is damaged: splits.train.count is -3, but must be at least 0. REMEDY"
    """
    try:
        result: T = _convert(value, kind, "")
    except _Misfit as misfit:
        raise error(f"{what} is damaged: {misfit}. {remedy}") from None
    return result


def _convert(value: Any, kind: Any, place: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        converted = _convert(value, arguments[0], place)
        for bounds in arguments[1:]:
            _check_range(converted, bounds, place)
        return converted
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            raise _Misfit(place, f"is {_shown(value)}, but must be {' or '.join(map(repr, arguments))}")
        return value
    if origin in (Union, UnionType):
        return _union(value, arguments, place)
    if origin in (tuple, list):
        return _sequence(value, origin, arguments, place)
    if origin is dict:
        _expect(value, dict, "an object", place)
        return {key: _convert(item, arguments[1], _inside(place, key)) for key, item in value.items()}
    if is_dataclass(kind):
        return _record(value, kind, place)
    return _number_or_text(value, kind, place)


def _number_or_text(value: Any, kind: Any, place: str) -> Any:
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted:  # `isinstance` would take true for 1
        raise _Misfit(place, f"is {_shown(value)}, but must be {NAMES[kind]}")
    if kind is int and not -INT64 <= value < INT64:
        raise _Misfit(place, f"is {_shown(value)}, but must fit into 64 bits")
    if kind is float and (abs(value) >= 2**1023 or not isfinite(value)):
        raise _Misfit(place, f"is {_shown(value)}, but must be finite")
    return float(value) if kind is float else value


def _union(value: Any, kinds: tuple[Any, ...], place: str) -> Any:
    misfits = []
    for kind in kinds:
        try:
            return _convert(value, kind, place)
        except _Misfit as misfit:
            misfits.append(misfit)
    raise misfits[0]


def _sequence(value: Any, origin: Any, kinds: tuple[Any, ...], place: str) -> Any:
    _expect(value, list, "a list", place)
    if origin is tuple and kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            raise _Misfit(place, f"has {len(value)} entries, but must have {len(kinds)}")
        return tuple(_convert(item, kind, f"{place}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))
    return origin(_convert(item, kinds[0], f"{place}[{i}]") for i, item in enumerate(value))


def _record(value: Any, kind: Any, place: str) -> Any:
    _expect(value, dict, "an object", place)
    hints = _hints(kind)
    if unknown := [key for key in value if key not in hints]:
        raise _Misfit(_inside(place, unknown[0]), "is not a known field")
    for field in fields(kind):
        if field.name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise _Misfit(_inside(place, field.name), "is missing")
    given = {key: _convert(item, hints[key], _inside(place, key)) for key, item in value.items()}
    try:
        return kind(**given)
    except (AlexNetError, ValueError) as error:  # a dataclass may check itself
        raise _Misfit(place, f"does not hold together: {str(error).rstrip('.')}") from error


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind) if field.init}


def _check_range(value: Any, bounds: Any, place: str) -> None:
    if not isinstance(bounds, Range) or value is None:
        return
    measured, noun = (len(value), " long") if isinstance(value, str | tuple | list | dict) else (value, "")
    if not bounds.low <= measured <= bounds.high:
        if bounds.low == bounds.high:
            rule = f"exactly {bounds.low:g}"
        else:
            rule = f"at least {bounds.low:g}" if bounds.high == inf else f"from {bounds.low:g} to {bounds.high:g}"
        raise _Misfit(place, f"is {measured}{noun}, but must be {rule}")


def _expect(value: Any, kind: type, name: str, place: str) -> None:
    if type(value) is not kind:
        raise _Misfit(place, f"is {_shown(value)}, but must be {name}")


def _inside(place: str, key: str) -> str:
    shown = key if len(key) <= 40 else f"{key[:37]}..."
    return f"{place}.{shown}" if place else shown


def _shown(value: Any) -> str:
    if type(value) in (list, dict):
        return f"{'a list' if type(value) is list else 'an object'} of {len(value)}"
    if type(value) is int and abs(value) >= 10**30:
        return "a whole number of more than 30 digits"
    text = {True: "true", False: "false", None: "null"}[value] if value is None or type(value) is bool else ascii(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
