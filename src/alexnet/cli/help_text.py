"""The help of options: without the line breaks of the source, which tyro would print as
they are, and without None, neither as a value nor as a default.
"""

from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from inspect import getdoc
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from tyro.conf import arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    UnsupportedTypeAnnotationError,
)

#: Says an option's default, unless that is to leave it out.
DEFAULT = arg(help_behavior_hint=lambda label: "" if label in ("None", "") else f"(default: {label})")
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
        for name, hint in get_type_hints(one, include_extras=True).items():
            if name in one.__annotations__ and _may_be_left_out(hint):
                one.__annotations__[name] = Annotated[hint, DEFAULT]


def _may_be_left_out(hint: Any) -> bool:
    """Whether an option's default may be None or an empty tuple, and has no words of its own."""
    plain = hint.__origin__ if get_origin(hint) is Annotated else hint
    chosen = any(getattr(note, "help_behavior_hint", None) is not None for note in getattr(hint, "__metadata__", ()))
    return not chosen and (type(None) in get_args(plain) or get_origin(plain) is tuple)


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
