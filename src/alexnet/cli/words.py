"""Check the options on a command line before tyro does: a misspelled one is refused in one line
that suggests the nearest option.

tyro itself says nothing about a misspelled option if a required one is missing, and too much if
other verbs have an option of that name.
"""

import difflib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

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
        UsageError: an unknown option.
    """
    known = {*options(target), "--help"}
    for word in words:
        if word == "--":
            return
        name = word.partition("=")[0].replace("_", "-")
        if word.startswith("--") and name not in known and not name.startswith("--tyro-"):
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise UsageError(f"`{prog}` has no option {name}.{hint} `{prog} --help` lists its options.")


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
