"""Values or units in a column of circles: the first ones and the last."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.inspect.drawing.sheet import Sheet

RADIUS = 11.0


@dataclass(frozen=True)
class Dot:
    """A value of a vector: its number, counted from 1, its colour, and how far down it is."""

    number: int
    hue: str
    y: float


def column(count: int, hues: Sequence[str], most: int, top: float, bottom: float) -> list[Dot]:
    """The first `most` values of `count` and the last one, from `top` to `bottom`."""
    shown = [*range(min(count, most)), *([count - 1] if count > most else [])]
    step = (bottom - top) / (len(shown) + (count > most) - 1 or 1)
    places = [top + step * (place + (place == most)) for place in range(len(shown))]
    return [Dot(index + 1, hues[index * len(hues) // count], y) for index, y in zip(shown, places, strict=True)]


def draw_column(sheet: Sheet, x: float, dots: Sequence[Dot], name: str, side: int) -> None:
    """Paint the circles with a name such as x₁ to the left (`side` -1) or right (1) of each."""
    for dot in dots:
        sheet.circle((x, dot.y), RADIUS, f"{dot.hue} face", f"{dot.hue} deep")
        label = f"{name}{subscript(dot.number)}"
        sheet.text(x + 20 * side, dot.y + 5, label, 15, "end" if side < 0 else "start")
    dotted(sheet, x, dots)


def dotted(sheet: Sheet, x: float, dots: Sequence[Dot]) -> None:
    """Dots for the values between the last two, if any are left out."""
    if len(dots) > 1 and dots[-1].number - dots[-2].number > 1:
        sheet.text(x, (dots[-2].y + dots[-1].y) / 2 + 5, "⋮", 18, "middle", colour="soft")


def subscript(number: int) -> str:
    """A number as a subscript."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
