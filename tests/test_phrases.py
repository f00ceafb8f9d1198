"""Counts with their nouns, and names in a list."""

import pytest

from alexnet.phrases import counted, quoted


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "file", "0 files"),
        (1, "epoch", "1 epoch"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (1000, "f", "1,000 fs"),
    ],
)
def test_counted(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text


def test_names_with_commas_can_be_told_apart() -> None:
    assert quoted(["cornet, horn", "French horn"]) == "'cornet, horn', 'French horn'"
    assert quoted(iter("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"
    assert quoted(["it's"]) == '"it\'s"' and quoted([]) == ""
