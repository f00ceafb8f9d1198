"""Pieces of sentences that many messages share: a number with its noun, and names in a list."""

from collections.abc import Iterable

#: Names that a message lists before it says how many more there are.
MOST_NAMED = 5


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural where it is not 1.

    >>> counted(1, "class"), counted(1200, "picture")
    ('1 class', '1,200 pictures')
    """
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def quoted(names: Iterable[str], most: int = MOST_NAMED) -> str:
    """Names in a sentence, each in quotation marks: a name may hold commas and spaces itself.

    Args:
        names: such as those of classes.
        most: list so many, and count the others.

    >>> quoted(["horn, cornet", "French horn", "oboe"], most=2)
    "'horn, cornet', 'French horn' and 1 more"
    """
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(map(repr, names[:most]))}{more}"
