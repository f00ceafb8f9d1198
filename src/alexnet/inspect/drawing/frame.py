"""Where things are on the drawing of a layer: input, what is between, output, their captions."""

from math import sqrt

from alexnet.inspect.drawing.block import Block
from alexnet.inspect.drawing.sheet import Point, Sheet

WIDTH, MARGIN = 1000.0, 60.0
SIDE, DEEPEST = 180.0, 96.0  # pixels of the larger map's side, and of the most maps
BACK: Point = (0.8, -0.6)  # where the maps behind the first are
INPUT, MIDDLE, OUTPUT = 100.0, 500.0, 670.0  # left edges of input and output, centre of what is between
TOP, CENTRE, BELOW = 92.0, 210.0, 374.0  # highest and middle of the blocks, and what is written under them
SMALLEST = 6.0

Hues = tuple[tuple[str, ...], tuple[str, ...]]  # of the input's towers, and of the output's


def maps(shape: tuple[int, ...], most: int, scale: float, left: float, hues: tuple[str, ...]) -> Block:
    """A block of (C, H, W) maps, `scale` pixels for a cell; `most` maps are as deep as can be."""
    side = max(shape[1] * scale, 2 * SMALLEST)
    deep = max(SMALLEST, DEEPEST * sqrt(shape[0] / most))
    depth = (deep * BACK[0], deep * BACK[1])
    return Block(corner=(left, CENTRE - (side + depth[1]) / 2), size=(side, side), depth=depth, hues=hues)


def middle(block: Block) -> float:
    """Where the caption of a block is centred."""
    return block.corner[0] + (block.size[0] + block.depth[0]) / 2


def caption(sheet: Sheet, x: float, words: str, under: str) -> None:
    """Two lines under a part of the drawing."""
    sheet.text(x, BELOW, words, 18, "middle", bold=True)
    sheet.text(x, BELOW + 20, under, 14, "middle", colour="soft")


def sides(shape: tuple[int, ...]) -> str:
    """As in 55 × 55 × 96."""
    return " × ".join(map(str, (*shape[1:], shape[0])))
