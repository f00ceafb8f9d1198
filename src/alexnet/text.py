"""Read text files in any common encoding, and lists of class names."""

import codecs
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from alexnet.console import say
from alexnet.errors import AlexNetError
from alexnet.files import open_regular

#: A longer file is not a list of names: fourteen million lines, one for each picture of
#: ImageNet-21k, are 500 MB.
MAX_TEXT_BYTES = 2**30
#: Equal names that are mentioned one by one.
MOST_NAMED = 5
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark begins it
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def read_text(path: Path, error: type[AlexNetError]) -> str:
    """Read a text file: UTF-8, UTF-16 or UTF-32 with a byte order mark, or else Windows-1252.

    The mark goes, and lines end in a line feed. Windows-1252 is a guess that fits any bytes; it
    is said that it was made.

    Raises:
        error: it cannot be opened, or is not text.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as cause:
        raise error(f"{path} cannot be read: {cause.strerror or cause}.") from cause
    if len(data) > MAX_TEXT_BYTES:
        raise error(f"{path} has more than {MAX_TEXT_BYTES:,} bytes: expected a text file with a name in each line.")
    try:
        text, guessed = decode_text(data)
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not valid {cause.encoding.upper()}, as its first bytes claim: save it as UTF-8.") from cause
    if "\0" in text:
        raise error(f"{path} is not a text file (it has zero bytes): save it as UTF-8.")
    if guessed:
        say(f"{path} is not UTF-8: read as Windows-1252. If letters come out wrong, save it as UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decode_text(data: bytes) -> tuple[str, bool]:
    """The text, without a byte order mark, and whether the encoding is a guess.

    Raises:
        UnicodeDecodeError: there is a mark, and the rest does not fit it.
    """
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding), False
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding), encoding != "utf-8"
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1"), True  # Windows-1252 leaves five bytes undefined


def read_names(path: Path, error: type[AlexNetError]) -> tuple[str, ...]:
    """The class names in a text file, one in each line, all different (see `unique_names`).

    Raises:
        error: as `read_text`, or a line between two names is empty: which number the
            next name has is unclear.
    """
    lines = [line.strip() for line in read_text(path, error).rstrip().split("\n")]
    if lines == [""]:
        raise error(f"{path} is empty: expected a class name in each line.")
    if "" in lines:
        raise error(f"line {lines.index('') + 1} of {path} is empty: write a name for that class, or remove the line.")
    return unique_names(lines, [f"line {number} of {path}" for number in range(1, len(lines) + 1)])


def unique_names(names: Sequence[str], places: Sequence[str]) -> tuple[str, ...]:
    """Names in which each is used once: the second `crane` becomes `crane (2)`, and that is said.

    A class is its number, and two may have one name. Composed and decomposed letters
    are made equal first (NFC).

    Args:
        names: the names in the order of their numbers.
        places: where each comes from, for the message.
    """
    names = [unicodedata.normalize("NFC", name) for name in names]
    taken, unique, first = set(names), list[str](), dict[str, int]()
    numbers: Counter[str] = Counter()
    for index, name in enumerate(names):
        new = name
        if name in first:
            numbers[name] += 1
            while (new := f"{name} ({numbers[name] + 1})") in taken:
                numbers[name] += 1
            if index + 1 - len(first) <= MOST_NAMED:
                where = f"{places[first[name]]}, {places[index]}"
                say(f"Two classes have the name {name!r} ({where}): the second is shown as {new!r}.")
        first.setdefault(name, index)
        taken.add(new)
        unique.append(new)
    if (renamed := len(names) - len(first)) > MOST_NAMED:
        say(f"In total, {renamed:,} classes share a name with another one; each is numbered.")
    return tuple(unique)
