"""Check the options on a command line before tyro does: a misspelled one is refused in one line
that suggests the nearest option.

tyro itself says nothing about a misspelled option if a required one is missing, and too much if
other verbs have an option of that name.
"""

import difflib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from itertools import takewhile
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tyro.conf import Positional

from alexnet.errors import UsageError

HELP = ("-h", "--help")
_POSITIONAL = Positional[int].__metadata__[0]  # type: ignore[attr-defined]


def check_options(target: Any, words: Iterable[str], prog: str) -> None:
    """Refuse the first option that `target` does not have, and suggest the nearest one.

    Args:
        target: a verb's function, or the dataclass that it takes.
        words: what follows `prog` on the command line.
        prog: such as "alexnet train laptop".

    Raises:
        UsageError: an unknown option, or a value that is not one of its choices.
    """
    words, hints = list(words), dict(_hinted(target))
    known = {*options(target), "--help"}
    for place, word in enumerate(words):
        if word == "--":
            return
        name = word.partition("=")[0].replace("_", "-")
        if word.startswith("--") and name not in known and not name.startswith("--tyro-"):
            close = difflib.get_close_matches(name[2:], [one[2:] for one in known], n=1, cutoff=0.6)
            hint = f" Did you mean --{close[0]}?" if close else ""
            raise UsageError(f"`{prog}` has no option {name}.{hint} `{prog} --help` lists its options.")
        if name in hints:
            given = [word.partition("=")[2]] if "=" in word else []
            following = takewhile(lambda one: not one.startswith("--"), words[place + 1 :])
            _check_value(name, hints[name], given or list(following))


def _check_value(name: str, hint: Any, given: list[str]) -> None:
    """Refuse a value that is none of an option's choices, or numbers that are too few or too many.
    Everything else is for tyro.
    """
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] if NoneType in get_args(hint) else [hint]
    parts, rule = get_args(kinds[0]), None
    if len(kinds) > 1 or not given or given[0] == "None":
        return
    if get_origin(kinds[0]) is Literal and given[0] not in map(str, parts):
        given, rule = given[:1], f"must be one of {', '.join(map(str, parts))}"
    elif get_origin(kinds[0]) is tuple and parts[-1] is not Ellipsis and len(given) < len(parts):
        rule = f"needs {len(parts)} values with spaces between them, as in --{name[2:]} {' '.join('1' for _ in parts)}"
    if rule:
        raise UsageError(f"{name[2:].replace('-', '_')} (={' '.join(given)}) {rule}.")


def _hinted(target: Any) -> Iterator[tuple[str, Any]]:
    """The long options with the types of their values."""
    plain = get_type_hints(target)
    for name, hint in get_type_hints(target, include_extras=True).items():
        if is_dataclass(plain[name]):
            yield from _hinted(plain[name])
            continue
        given = next((note.name for note in getattr(hint, "__metadata__", ()) if getattr(note, "name", None)), name)
        yield f"--{given.replace('_', '-')}", plain[name]


def options(target: Any) -> Iterator[str]:
    """The long options of a verb's function or of a dataclass, those of
    nested dataclasses included."""
    hints = get_type_hints(target, include_extras=True)
    names = [field.name for field in fields(target)] if is_dataclass(target) else list(inspect.signature(target).parameters)
    for name in names:
        hint = hints[name]
        if is_dataclass(hint):
            yield from options(hint)
            continue
        notes = getattr(hint, "__metadata__", ())
        if _POSITIONAL in notes:
            continue
        given = next((note.name for note in notes if getattr(note, "name", None)), name).replace("_", "-")
        yield f"--{given}"
        if hint is bool:
            yield f"--no-{given}"
