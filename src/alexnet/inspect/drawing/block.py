"""Boxes in oblique projection, as in figure 2 of the paper."""

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.inspect.drawing.sheet import Point, Sheet


@dataclass(frozen=True, kw_only=True)
class Block:
    """A box: its front is a rectangle, its depth goes back to the upper right.

    Attributes:
        corner: top left corner of the front.
        size: width and height of the front.
        depth: how far right and down the back is from the front; down is negative.
        hues: the colours of its slices from front to back.
    """

    corner: Point
    size: Point
    depth: Point
    hues: Sequence[str] = ("grey",)

    def on_front(self, across: float, down: float) -> Point:
        """A point of the front, in shares of its width and height."""
        return self.corner[0] + across * self.size[0], self.corner[1] + down * self.size[1]

    def on_right(self, back: float, down: float) -> Point:
        """A point of the right face, in shares of the depth and height."""
        x, y = self.on_front(1, down)
        return x + back * self.depth[0], y + back * self.depth[1]

    def on_top(self, across: float, back: float) -> Point:
        """A point of the top, in shares of the width and depth."""
        x, y = self.on_front(across, 0)
        return x + back * self.depth[0], y + back * self.depth[1]


def draw(sheet: Sheet, block: Block, front: str = "face", right: str = "side") -> None:
    """Paint a block; `front` and `right` name the tones of its faces."""
    count = len(block.hues)
    for number, hue in enumerate(block.hues):
        near, far = number / count, (number + 1) / count
        line = f"{hue} deep"
        top = (block.on_top(0, near), block.on_top(1, near), block.on_top(1, far), block.on_top(0, far))
        side = (block.on_right(near, 0), block.on_right(far, 0), block.on_right(far, 1), block.on_right(near, 1))
        sheet.polygon(top, f"{hue} top", line, 0.8)
        sheet.polygon(side, f"{hue} {right}", line, 0.8)
    sheet.rectangle(block.corner, block.size, f"{block.hues[0]} {front}", f"{block.hues[0]} deep", 0.8)


def arrow(sheet: Sheet, start: Point, end: Point, colour: str = "soft", width: float = 1.5) -> None:
    """A horizontal arrow."""
    head = 6 if end[0] > start[0] else -6
    sheet.line(start, (end[0] - head, end[1]), colour=colour, width=width)
    sheet.polygon((end, (end[0] - head, end[1] - 4), (end[0] - head, end[1] + 4)), colour)
