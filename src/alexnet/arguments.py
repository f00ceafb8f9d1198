"""Checks of the arguments that several public functions share."""

import os
from pathlib import Path
from types import NoneType

from alexnet.address import DOWNLOAD, not_here, was_address
from alexnet.errors import AlexNetError, CheckpointError, UsageError


def check_count(name: str, value: object) -> None:
    """Refuse anything but a whole number of at least 1.

    Raises:
        UsageError: naming the argument, its value and the rule.
    """
    if type(value) is not int or value < 1:
        raise UsageError(f"{name} (={value!r}) must be a whole number of at least 1.")


def check_views(views: object) -> None:
    """Refuse anything but 1 (the centre crop) and 10 (the paper's crops and mirrors).

    Raises:
        UsageError: naming the value and the rule.
    """
    if type(views) is not int or views not in (1, 10):
        raise UsageError(f"views (={views!r}) must be 1 or 10.")


def as_path(value: object, name: str) -> Path:
    """A path that a caller names as text or as a path.

    Raises:
        CheckpointError: it is neither.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise CheckpointError(f"{name} (={_shown(value)}) must be a path, as a str or a pathlib.Path, not {_kind(value)}.")
    return Path(value)


def expect_kind(value: object, name: str, *kinds: type) -> None:
    """Refuse an argument of another type than these.

    Raises:
        CheckpointError: naming it.
    """
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
        raise CheckpointError(f"{name} (={_shown(value)}) must be {wanted}, not {_kind(value)}.")


def _shown(value: object) -> str:
    return " ".join(repr(value).split())[:60]


def _kind(value: object) -> str:
    return type(value).__name__


def check_here(path: str | os.PathLike[str], what: str, error: type[AlexNetError]) -> None:
    """Refuse an address where something on this machine was expected.

    Args:
        what: what was expected, in the plural.

    Raises:
        error: it is an address.
    """
    if was_address(Path(path)):
        raise error(not_here(path, what, DOWNLOAD))
