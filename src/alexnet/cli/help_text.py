"""The help of options: without the line breaks of the source, which tyro would print as
they are, and without None.
"""

from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from inspect import getdoc
from typing import Any, get_args, get_type_hints

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    UnsupportedTypeAnnotationError,
)

SECTIONS = ("\n\nArgs:", "\n\nAttributes:")


def unwrap(target: Any) -> None:
    """Give a verb's function, or the dataclass that it takes, a docstring with one line an option.

    The docstring is what tyro reads; that of a dataclass comes before those of its fields.
    """
    from docstring_parser import parse_from_object  # tyro's; not for commands that print no help

    for one in (target, *_parts(target)):
        head = getdoc(one) or ""
        for section in SECTIONS:
            head = head.partition(section)[0]
        lines = [f"    {each.arg_name}: {' '.join((each.description or '').split())}" for each in parse_from_object(one).params]
        one.__doc__ = "\n".join([f"{head}{SECTIONS[0]}", *lines])


def _parts(target: Any) -> Iterator[Any]:
    """The dataclasses that are fields of a dataclass."""
    for kind in get_type_hints(target).values() if isinstance(target, type) else ():
        if isinstance(kind, type) and is_dataclass(kind):
            yield kind
            yield from _parts(kind)


def registry() -> ConstructorRegistry:
    """Rules for tyro that name what an option takes, and not that it may be left out:
    INT instead of {None}|INT.
    """
    rules, nested = ConstructorRegistry(), False

    @rules.primitive_rule
    def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | UnsupportedTypeAnnotationError | None:
        nonlocal nested
        if nested or type(None) not in get_args(info.type):
            return None  # tyro's own rule
        nested = True
        try:
            spec = ConstructorRegistry.get_primitive_spec(info)
        finally:
            nested = False
        if isinstance(spec, PrimitiveConstructorSpec):
            return replace(spec, metavar=_without_none(spec.metavar))
        return spec

    return rules


def _without_none(metavar: str) -> str:
    """As in `INT`, `{short-side,squash}`, `FLOAT FLOAT`."""
    kept = metavar.removeprefix("{None}|").replace("{None,", "{", 1)
    several = " " in kept and kept.startswith("{") and kept.endswith("}")
    return kept[1:-1] if several else kept
