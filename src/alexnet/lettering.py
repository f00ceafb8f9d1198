"""Draw names in pictures: shortened to fit, in fonts that have their letters.

Matplotlib's own font has Latin, Greek, Cyrillic, Hebrew and Arabic letters, but no Chinese,
Japanese or Korean ones, no Devanagari and no Thai. A letter that no chosen font has becomes a
box and a warning. So what is missing is searched in the machine's fonts, and what none of
them has is drawn as U+FFFD.
"""

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from rich.cells import cell_len

from alexnet.console import clean

DEFAULT = "sans-serif"
#: Fonts that have a box for everything, or nothing for everything.
EMPTY = ("Last Resort", "LastResort", "Blank")
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def shortened(name: str, room: int) -> str:
    """A name in at most `room` columns, harmless characters only; where it is
    longer, its middle is left out.

    Start and end stay, since names often differ in one of them alone. A Chinese
    character takes two columns.

    >>> shortened("Carcharodon carcharias, great white shark", 20)
    'Carcharodon c… shark'
    """
    name = clean(name)
    if cell_len(name) <= room:
        return name
    end = _start_of(name[::-1], room // 3)[::-1]
    while end and unicodedata.combining(end[0]):
        end = end[1:]
    return f"{_start_of(name, room - 1 - room // 3)}…{end}"


def _start_of(text: str, room: int) -> str:
    for place, character in enumerate(text):
        room -= cell_len(character)
        if room < 0:
            return text[:place]
    return text


def fonts(names: Iterable[str]) -> list[str]:
    """Font families that have the letters of all these names together, as far
    as this machine has any.
    """
    return list(_covering(frozenset("".join(names)))[0])


def drawable(name: str) -> str:
    """The name with U+FFFD for each letter that no font of this machine has."""
    lacking = _covering(frozenset(name))[1]
    return "".join(_replaced(character) if character in lacking else character for character in name)


def _replaced(character: str) -> str:
    return "" if unicodedata.category(character) in ("Cf", "Mn", "Me") else UNKNOWN  # joiners, accents


@cache
def _covering(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that have the characters, and the characters that none has."""
    lacking = characters - _letters(DEFAULT)
    families = [DEFAULT]
    for family in _by_preference(lacking) if lacking else ():
        if lacking & _letters(family):
            families.append(family)
            lacking -= _letters(family)
        if not lacking:
            break
    return tuple(families), lacking


def _by_preference(characters: frozenset[str]) -> list[str]:
    """All families, plain ones first; for Chinese characters, those of the language
    that the other letters show.
    """
    text = "".join(characters)
    kana, hangul = (any(low <= letter <= high for letter in text) for low, high in (("぀", "ヿ"), ("가", "힣")))
    language = "JP" if kana else "KR" if hangul else "SC"
    plain = [name for name in _files() if not any(empty in name for empty in EMPTY)]
    return sorted(plain, key=lambda name: (not name.endswith(language), "Sans" not in name, "Mono" in name, name))


@cache
def _files() -> dict[str, Any]:
    """The file of each family that has an upright one of normal weight: of others Matplotlib says
    that it looked in vain.
    """
    return {
        entry.name: entry.fname
        for entry in fontManager.ttflist
        if (entry.style, entry.variant, entry.stretch) == ("normal",) * 3 and entry.weight in (400, "normal", "regular")
    }


@cache
def _letters(family: str) -> frozenset[str]:
    """All that a family has; nothing for a font file that cannot be opened."""
    try:
        font = get_font(_files()[family] if family != DEFAULT else findfont(FontProperties(family=[DEFAULT])))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap()))
