"""One side of a map as a row of cells, with its padding and the windows that fit: the size formula
as a picture.
"""

from dataclasses import dataclass

from alexnet.arithmetic import Conv, Layer, MaxPool
from alexnet.inspect.drawing.sheet import Sheet
from alexnet.words import word

LEFT, WIDTH, LARGEST = 60.0, 880.0, 26.0  # of the row, and of a cell
MOST_CELLS, PART = 40, 18  # more cells are shown as two parts with a gap between them
BREAK, BAR = 46.0, 18.0  # the gap, and a window's height
NARROW, TINY = 420.0, 190.0  # a shorter row has its label on the right, or one for both paddings
FIRST, LAST = 3, 2  # windows that are drawn at either end


@dataclass(frozen=True)
class Row:
    """Where the cells of a side are.

    Attributes:
        total: cells, padding included.
        head: how many are drawn at the left; all if there is no gap.
        tail: how many are drawn at the right.
        cell: pixels of one.
    """

    total: int
    head: int
    tail: int
    cell: float

    def x(self, index: int) -> float:
        """The left edge of a cell; `index` = total is the right edge of the last."""
        if index <= self.head:
            return LEFT + index * self.cell
        return self.right - (self.total - index) * self.cell

    @property
    def right(self) -> float:
        """The right edge of the last cell."""
        return LEFT + (self.head + self.tail) * self.cell + BREAK * (self.head + self.tail < self.total)

    @property
    def shown(self) -> list[int]:
        """The cells that are drawn."""
        return [*range(self.head), *range(self.total - self.tail, self.total)]


def strip(sheet: Sheet, layer: Layer, hue: str, y: float) -> float:
    """Draw it from `y` on; returns where it ends."""
    op = layer.op
    assert isinstance(op, Conv | MaxPool)
    before, after = op.padding if isinstance(op, Conv) else (0, 0)
    row = _row(layer.input[1] + before + after, layer.output[1], op)
    sheet.text(LEFT, y, word("fits", sheet.language, count=layer.output[1]), 15, bold=True)
    top = y + 38
    _cells(sheet, row, top, (before, after), hue)
    _labels(sheet, row, top - 8, (before, after), layer.input[1])
    below = _windows(sheet, row, top + row.cell + 6, layer.output[1], op)
    _dimension(sheet, row, 0, op.stride, below + 12, word("stride_here", sheet.language, count=op.stride))
    _dimension(sheet, row, 0, op.size, below + 32, word("window_here", sheet.language, count=op.size))
    rest = row.total - ((layer.output[1] - 1) * op.stride + op.size)
    if rest:
        words = word("left_over", sheet.language, count=rest)
        sheet.text(row.right, below + 16, words, 13, "end", colour="soft")
        sheet.line((row.x(row.total - rest) + 2, below + 1), (row.right - 2, below + 1), colour="soft", width=2)
    return below + 40


def _row(total: int, fitting: int, op: Conv | MaxPool) -> Row:
    rest = total - ((fitting - 1) * op.stride + op.size)
    head = max(PART, op.size + (FIRST - 1) * op.stride)
    tail = max(PART, op.size + (LAST - 1) * op.stride + rest)
    if total <= max(MOST_CELLS, head + tail):
        return Row(total, total, 0, min(LARGEST, WIDTH / total))
    return Row(total, head, tail, min(LARGEST, (WIDTH - BREAK) / (head + tail)))


def _cells(sheet: Sheet, row: Row, top: float, padding: tuple[int, int], hue: str) -> None:
    for index in row.shown:
        zero = index < padding[0] or index >= row.total - padding[1]
        fill = "zero" if zero else f"{hue} face"
        sheet.rectangle((row.x(index), top), (row.cell, row.cell), fill, f"{hue} deep", 0.8, dashed=zero)
        if zero:
            sheet.text(row.x(index) + row.cell / 2, top + row.cell / 2 + 4.5, "0", 13, "middle", colour="soft")
    if row.tail:
        sheet.text(
            (row.x(row.head) + row.x(row.total - row.tail)) / 2, top + row.cell / 2 + 4, "…", 18, "middle", colour="soft"
        )


def _labels(sheet: Sheet, row: Row, y: float, padding: tuple[int, int], side: int) -> None:
    """Above the cells: the zeros at each end, the values between them."""
    first, last = (word("padding_here", sheet.language, count=count) for count in padding)
    if padding != (0, 0) and row.right - LEFT < TINY:
        sheet.text(LEFT, y, word("padding_here", sheet.language, count=list(padding)), 13, colour="soft")
    elif padding != (0, 0):
        sheet.text(LEFT, y, first, 13, colour="soft")
        sheet.text(row.right, y, last, 13, "end", colour="soft")
    words = word("count_pixels", sheet.language, count=side)
    if row.right - LEFT > NARROW:
        sheet.text((LEFT + row.right) / 2, y, words, 13, "middle", colour="soft")
    else:
        sheet.text(row.right + 16, y + 26, words, 13, colour="soft")


def _windows(sheet: Sheet, row: Row, top: float, fitting: int, op: Conv | MaxPool) -> float:
    """The first and the last windows, each on the first line that is free; returns where they
    end.
    """
    numbers = range(fitting) if fitting <= FIRST + LAST else [*range(FIRST), *range(fitting - LAST, fitting)]
    free: list[int] = []  # of each line, the first cell that is
    for number in numbers:
        start, end = number * op.stride, number * op.stride + op.size
        line = next((line for line, cell in enumerate(free) if cell <= start), len(free))
        free[line : line + 1] = [end]
        left, right, y = row.x(start), row.x(end), top + line * (BAR + 3)
        sheet.rectangle((left + 1, y), (right - left - 2, BAR), "card", "ink", 1.2)
        sheet.text((left + right) / 2, y + 13.5, f"{number + 1}", 13, "middle")
    if fitting > FIRST + LAST:
        ends = (
            (row.head, row.total - row.tail) if row.tail else ((FIRST - 1) * op.stride + op.size, (fitting - LAST) * op.stride)
        )
        middle = sum(map(row.x, ends)) / 2
        sheet.text(middle, top + 13, "…", 18, "middle", colour="soft")
    return top + len(free) * (BAR + 3)


def _dimension(sheet: Sheet, row: Row, start: int, end: int, y: float, words: str) -> None:
    """A measure between two edges, and what it measures."""
    left, right = row.x(start), row.x(end)
    for x in (left, right):
        sheet.line((x, y - 4), (x, y + 4), colour="soft")
    sheet.line((left, y), (right, y), colour="soft")
    sheet.text(right + 8, y + 4.5, words, 13, colour="soft")
