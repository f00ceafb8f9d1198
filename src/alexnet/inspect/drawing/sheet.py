"""A drawing as a list of shapes, in the order in which they are painted.

Coordinates are in pixels from the top left corner. Colours have names; each has one value for a
light background and one for a dark one. `to_svg.py` and `to_figure.py` turn a sheet into files, so
an SVG and a PNG of one drawing show the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import cos, pi, sin
from typing import Literal

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

#: Name -> (on a light background, on a dark one). Blue and orange stay apart for every kind of
#: colour blindness; `deep` is dark enough for text.
COLOURS = {
    "card": ("#ffffff", "#161b22"),
    "rule": ("#d0d7de", "#3d444d"),
    "ink": ("#1b1f24", "#e6edf3"),
    "soft": ("#57606a", "#a5b0bb"),
    "zero": ("#ffffff", "#161b22"),
    "grey face": ("#e4e8ec", "#39424d"),
    "grey side": ("#c3cbd3", "#525d69"),
    "grey top": ("#d9dfe4", "#46505b"),
    "grey deep": ("#57606a", "#a5b0bb"),
    "blue face": ("#d9e9f7", "#1b3a57"),
    "blue side": ("#8fbfe6", "#2f6595"),
    "blue top": ("#b4d4ee", "#255075"),
    "blue deep": ("#0b5394", "#82bdf2"),
    "orange face": ("#fde6cc", "#4d3215"),
    "orange side": ("#f2ae66", "#96601f"),
    "orange top": ("#f8c994", "#70491a"),
    "orange deep": ("#9a4800", "#f2b066"),
}
TOWER_HUES = ("blue", "orange")
CIRCLE_CORNERS = 24


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A polygon, or a line where it is not `closed`."""

    points: tuple[Point, ...]
    closed: bool
    fill: str = ""
    line: str = ""
    width: float = 1.0
    dashed: bool = False
    opacity: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Text:
    """A line of text; `at` is on its baseline."""

    at: Point
    words: str
    size: float
    anchor: Anchor
    bold: bool
    colour: str


@dataclass
class Sheet:
    """A drawing under construction."""

    width: float
    height: float
    title: str
    """In a few words, for screen readers and tool tips."""
    description: str
    """What the drawing shows, in sentences."""
    language: str
    shapes: list[Shape | Text] = field(default_factory=list)

    def polygon(
        self,
        points: Sequence[Point],
        fill: str = "",
        line: str = "",
        width: float = 1.0,
        dashed: bool = False,
        opacity: float = 1.0,
    ) -> None:
        """A filled area, an outline, or both."""
        self.shapes.append(
            Shape(points=tuple(points), closed=True, fill=fill, line=line, width=width, dashed=dashed, opacity=opacity)
        )

    def rectangle(
        self, corner: Point, size: Point, fill: str = "", line: str = "", width: float = 1.0, dashed: bool = False
    ) -> None:
        """A rectangle from its top left corner."""
        (x, y), (wide, tall) = corner, size
        points = ((x, y), (x + wide, y), (x + wide, y + tall), (x, y + tall))
        self.polygon(points, fill, line, width, dashed)

    def circle(self, centre: Point, radius: float, fill: str = "", line: str = "") -> None:
        """A circle, as a polygon of many corners."""
        angles = (2 * pi * corner / CIRCLE_CORNERS for corner in range(CIRCLE_CORNERS))
        points = [(centre[0] + radius * cos(angle), centre[1] + radius * sin(angle)) for angle in angles]
        self.polygon(points, fill, line)

    def line(self, *points: Point, colour: str = "ink", width: float = 1.0, dashed: bool = False, opacity: float = 1.0) -> None:
        """A line through points."""
        self.shapes.append(Shape(points=points, closed=False, line=colour, width=width, dashed=dashed, opacity=opacity))

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 14,
        anchor: Anchor = "start",
        bold: bool = False,
        colour: str = "ink",
    ) -> None:
        """A line of text whose baseline is at `y`."""
        self.shapes.append(Text(at=(x, y), words=words, size=size, anchor=anchor, bold=bold, colour=colour))

    @property
    def texts(self) -> list[str]:
        """All that is written on it."""
        return [shape.words for shape in self.shapes if isinstance(shape, Text)]


def typeset(words: str) -> str:
    """A calculation with × and − instead of *, x and -."""
    return words.replace("*", "×").replace(" x ", " × ").replace(" - ", " − ").replace("^2", "²")
