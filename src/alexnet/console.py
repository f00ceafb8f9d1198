"""A line for the person, and foreign text made harmless for a terminal.

Every verb needs this, so it takes no time to import. Progress is in `meter`.
"""

import re
import sys
import unicodedata
from collections.abc import Iterable

from rich.cells import cell_len

from alexnet.address import masked

#: Unicode's categories of characters that steer a terminal, break a line, hide, or
#: are half a character.
CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # of the kind, but words of Persian and Hindi and most emoji need them


#: A word of a message, with the space before it. A command between backquotes is one, so
#: that it is copied whole.
WORD = re.compile(r"\s*(?:\S*`[^`]*`\S*|\S+)")

_silent: list[bool] = []


def silence() -> None:
    """Print no messages and no progress from here on: another process prints them."""
    _silent.append(True)


def speak() -> None:
    """End `silence`: the process that was to print is gone."""
    _silent.clear()


def silent() -> bool:
    """Whether `silence` is in effect."""
    return bool(_silent)


def say(text: str, *, whole: bool = False) -> None:
    """Print a line to standard error. A full disk there does not stop the work.

    Addresses lose their passwords. On a terminal, lines break between words; in a log, the text
    stays one line.

    Args:
        text: what to say.
        whole: break it nowhere, as for a command to copy.
    """
    try:
        if sys.stderr is not None and not silent():  # None in a program without a terminal
            shown = clean(masked(text))
            if sys.stderr.isatty() and not whole:
                from rich.console import Console  # most verbs need it only here

                shown = wrapped(WORD.findall(shown), Console(stderr=True).width)
            print(shown, file=sys.stderr, flush=True)
    except BrokenPipeError:  # `alexnet train ... 2>&1 | head` ends with its reader
        raise
    except OSError:
        pass  # there is nowhere left to say it


def wrapped(words: Iterable[str], width: int, indent: str = "") -> str:
    """Words in lines of at most `width` cells; one that is longer gets a line of its own.

    Args:
        words: each with the space before it, which goes where a line begins.
        width: in cells of a terminal.
        indent: what lines after the first begin with.

    >>> wrapped(["a", " 猫", " cat"], 4)
    'a 猫\\ncat'
    """
    lines = [""]
    for word in words:
        if not lines[-1] or cell_len(lines[-1] + word) <= width:
            lines[-1] += word
        else:
            lines.append(indent + word.lstrip())
    return "\n".join(lines)


def clean(text: str) -> str:
    """The text with every character visible that could steer a terminal, so that
    foreign names can be shown.

    Escape sequences, line breaks and marks that turn the direction of writing become `\\x1b`,
    `\\n`, `\\u202e`; a byte of a file's name that is not UTF-8 becomes `\\xe9`. All else is kept:
    accents, Chinese, emoji.

    >>> clean("cat\\x1b[2J 猫")
    'cat\\\\x1b[2J 猫'
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if unicodedata.category(character) not in CONTROLS or character in JOINERS:
        return character
    if "\udc80" <= character <= "\udcff":  # Python's stand-in for a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def duration(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
