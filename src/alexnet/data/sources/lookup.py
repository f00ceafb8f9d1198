"""Find a photo by what a table calls it.

A table may name a photo by its path from the folder or from further up, with slashes of either
kind, by its name alone if only one photo has it, without the ending (an id), in other capitals.
The strictest way that finds one counts, and each liberty that was taken is said with an example.
"""

import re
import unicodedata
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from alexnet.data.sources.source import IMAGE_ENDINGS
from alexnet.data.sources.walk import LeftOut, walk
from alexnet.phrases import counted


def _plain(path: str) -> str:
    """A path with / between its parts, and without ./ before them."""
    return re.sub(r"^(\./)+", "", path.replace("\\", "/"))


def _without_ending(name: str) -> str:
    ending = next((ending for ending in IMAGE_ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


#: Ways to compare what a row says with a photo's path, the strictest first, and a phrase for them.
WAYS: tuple[tuple[Callable[[str], str], str], ...] = (
    (str, ""),
    (_without_ending, "no ending"),
    (str.casefold, "other capitals"),
    (lambda name: _without_ending(name).casefold(), "no ending and other capitals"),
)


@dataclass
class Photos:
    """The files below a folder, to be found by what a table calls them.

    Attributes:
        paths: of the files, in the order of `walk`.
        names: the same from the folder on, with / between the parts.
        liberties: how often a row and a photo differ in which way, with an example.
        above: what rows may write before the path of a photo: folders above this one; None while
            that is not settled.
    """

    folder: Path
    left_out: LeftOut
    paths: list[str] = field(init=False)
    names: list[str] = field(init=False)
    liberties: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    above: set[str] | None = None
    _tails: dict[int, dict[str, list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.paths = list(walk(self.folder, self.left_out))
        start = len(str(self.folder)) + 1
        self.names = [unicodedata.normalize("NFC", _plain(path[start:])) for path in self.paths]

    def find(self, given: str) -> list[int]:
        """The numbers of the photos that a cell can mean; empty if it names none."""
        return self._look(given)[0]

    def settle(self, given: Iterable[str]) -> None:
        """Settle what rows may write before a photo's path, such as C:/photos: where they differ in
        it, only a path that ends with this folder's name. test/1.jpg is not train's 1.jpg.
        """
        own = self.folder.resolve().name.casefold()
        above = {self._look(name)[1] for name in given} - {""}
        self.above = above if len(above) == 1 else {one for one in above if one.rpartition("/")[2] == own}

    def _look(self, given: str) -> tuple[list[int], str]:
        """The photos that a cell can mean, and the folders that it has above the photo's path."""
        name = _plain(given)
        has_ending = name.lower().endswith(IMAGE_ENDINGS)
        for number, (way, phrase) in enumerate(WAYS):
            if name and not (has_ending and "ending" in phrase):
                found, above = self._by(number, way(name))
                if found:
                    return found, above.casefold()
        return [], ""

    def _by(self, number: int, name: str) -> tuple[list[int], str]:
        """`_look` in one of the ways: photos whose path is `name`, else those whose path ends with
        it, and else the one that `name` ends with.
        """
        way, tails = WAYS[number][0], self._indexed(number)
        parts = name.split("/")
        for start in range(len(parts)):
            above, end = "/".join(parts[:start]), "/".join(parts[start:])
            whole = [one for one in tails.get(end, ()) if way(self.names[one]) == end]
            if whole and (not start or self.above is None or above.casefold() in self.above):
                return whole, above
            if not start and end in tails:
                return tails[end], ""
        return [], ""

    def pictures(self, besides: Container[int] = ()) -> list[str]:
        """The names of all files that are named like pictures, without those of these numbers."""
        return [name for one, name in enumerate(self.names) if one not in besides and name.lower().endswith(IMAGE_ENDINGS)]

    def _indexed(self, number: int) -> dict[str, list[int]]:
        """The photos by each end of their paths: of a/b/c.jpg also b/c.jpg and c.jpg."""
        if number not in self._tails:
            way, phrase = WAYS[number]
            tails = self._tails[number] = {}
            for one, name in enumerate(self.names):
                if "ending" in phrase and not name.lower().endswith(IMAGE_ENDINGS):
                    continue
                parts = way(name).split("/")
                for start in range(len(parts)):
                    tails.setdefault("/".join(parts[start:]), []).append(one)
        return self._tails[number]

    def count(self, photo: int, given: str) -> None:
        """Count in which way a row names its photo."""
        name, own = _plain(given), self.names[photo]
        phrases = ["no ending"] if _without_ending(name) == name else []
        base, own_base = (_without_ending(text).rpartition("/")[2] for text in (name, own))
        phrases += ["other capitals"] if base != own_base else []
        phrases += ["other folders"] if name.count("/") != own.count("/") else []
        if phrases:
            phrase = " and ".join(phrases)
            number, *example = self.liberties.get(phrase, (0, given, own))
            self.liberties[phrase] = (number + 1, example[0], example[1])

    def note(self, left_out: LeftOut) -> None:
        """Say which liberties the table takes."""
        for phrase, (number, given, own) in self.liberties.items():
            left_out.note(f"{counted(number, 'row')} with {phrase}: {given!r} is taken for {own!r}.")
