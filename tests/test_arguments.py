"""Checks of the arguments that several public functions share."""

import pytest

from alexnet.arguments import check_count, check_views
from alexnet.errors import UsageError


@pytest.mark.parametrize("value", [1, 5, 10**9])
def test_counts(value: int) -> None:
    check_count("top", value)


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "5", None])
def test_other_counts_are_refused(value: object) -> None:
    with pytest.raises(UsageError) as raised:
        check_count("top", value)
    assert str(raised.value) == f"top (={value!r}) must be a whole number of at least 1."


@pytest.mark.parametrize("views", [1, 10])
def test_views(views: int) -> None:
    check_views(views)


@pytest.mark.parametrize("views", [0, 5, True, 1.0, "10", None])
def test_other_views_are_refused(views: object) -> None:
    with pytest.raises(UsageError) as raised:
        check_views(views)
    assert str(raised.value) == f"views (={views!r}) must be 1 or 10."


def test_a_wrong_argument_is_a_value_error() -> None:
    """A program that catches Python's own kind of error catches ours, too."""
    with pytest.raises(ValueError, match="views"):
        check_views(3)
