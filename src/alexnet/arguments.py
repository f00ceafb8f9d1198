"""Checks of the arguments that several public functions share."""

from alexnet.errors import UsageError


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
