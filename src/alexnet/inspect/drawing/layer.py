"""One layer: its input, its window or units, its output, and each size worked out."""

from math import ceil, prod, sqrt

from alexnet import explanation
from alexnet.arithmetic import Conv, Layer, Linear, MaxPool
from alexnet.errors import UsageError, nearest
from alexnet.inspect.drawing.block import Block, arrow, draw
from alexnet.inspect.drawing.sheet import TOWER_HUES, Point, Sheet, typeset
from alexnet.inspect.drawing.strip import strip
from alexnet.variants import Variant
from alexnet.words import word

WIDTH, MARGIN = 1000.0, 60.0
SIDE, DEEPEST = 180.0, 96.0  # pixels of the larger map's side, and of the most maps
BACK: Point = (0.8, -0.6)  # where the maps behind the first are
INPUT, MIDDLE, OUTPUT = 100.0, 500.0, 670.0  # left edges of input and output, centre of what is between
CENTRE, BELOW = 210.0, 374.0  # height of the middle of the blocks, and of what is written under them
RING = 5.0  # least pixels for a row of zeros
SMALLEST = 6.0

Hues = tuple[tuple[str, ...], tuple[str, ...]]  # of the input's towers, and of the output's


def drawable(variant: Variant) -> list[str]:
    """Names of the layers that have a drawing: convolutions, poolings and fully connected ones."""
    return [layer.name for layer in variant.layers() if isinstance(layer.op, Conv | MaxPool | Linear)]


def check_layer(variant: Variant, name: str | None) -> None:
    """Refuse a layer that has no drawing; None is the whole network.

    Raises:
        UsageError: naming the nearest layer that has one.
    """
    if name is not None and name not in drawable(variant):
        raise UsageError(f"layer (={name!r}): {variant.name} has no such layer to draw; {nearest(name, drawable(variant))}")


def layer_sheet(variant: Variant, name: str, language: str = "en") -> Sheet:
    """The drawing of one layer, such as conv1.

    Raises:
        UsageError: a layer that is not there or has no drawing, or an unknown language.
    """
    check_layer(variant, name)
    found = next(one for one in variant.layers() if one.name == name)
    lines = [
        f"{line.label}{word('colon', language)}{line.value}" if line.label else line.value
        for line in explanation.lines(found, variant, language)
    ]
    heading = typeset(f"{name} · {explanation.title(variant, language)}")
    sheet = Sheet(
        width=WIDTH,
        height=0,
        title=heading,
        description=word("describe_layer", language, name=heading, lines=word("semicolon", language).join(lines)),
        language=language,
    )
    _heading(sheet, found, variant)
    hues = _hues(found, variant)
    if isinstance(found.op, Linear):
        _connected(sheet, found, variant, hues)
        sheet.height = _calculations(sheet, _rule(found, language), [word("own_weights", language), *lines[1:]], BELOW + 82)
    else:
        _windowed(sheet, found, variant, hues)
        bottom = strip(sheet, found, hues[0][0], BELOW + 82)
        formula = explanation.size_formula(found, language)
        sheet.height = _calculations(sheet, formula, lines[lines.index(formula) + 1 :], bottom + 54)
    return sheet


def _heading(sheet: Sheet, layer: Layer, variant: Variant) -> None:
    kind = layer.kind
    if isinstance(layer.op, MaxPool) and layer.op.stride < layer.op.size:
        kind = "overlapping"
    sheet.text(MARGIN, 46, layer.name, 26, bold=True)
    sheet.text(MARGIN + 100, 46, word(f"op_{kind}", sheet.language), 17, colour="soft")
    sheet.text(WIDTH - MARGIN, 46, typeset(explanation.title(variant, sheet.language)), 13, "end", colour="soft")


def _hues(layer: Layer, variant: Variant) -> Hues:
    """Colours of the input's towers, and of the output's."""
    towers = tuple(TOWER_HUES[tower % len(TOWER_HUES)] for tower in range(variant.towers))
    first, last = variant.layers()[0].name, variant.layers()[-1].name
    return ("grey",) if layer.name == first else towers, ("grey",) if layer.name == last and variant.towers > 1 else towers


def _calculations(sheet: Sheet, formula: str, lines: list[str], y: float) -> float:
    """The formula, and what else is worked out; returns the sheet's height."""
    sheet.line((MARGIN, y - 30), (WIDTH - MARGIN, y - 30), colour="rule")
    sheet.text(MARGIN, y, typeset(formula), 18, bold=True)
    for number, line in enumerate(lines):
        sheet.text(MARGIN, y + 28 + 24 * number, typeset(line), 14.5)
    return ceil(y + 28 + 24 * len(lines) + 8)


# --- convolution and pooling ----------------------------------------------------------------------


def _windowed(sheet: Sheet, layer: Layer, variant: Variant, hues: Hues) -> None:
    op = layer.op
    assert isinstance(op, Conv | MaxPool)
    padding = op.padding if isinstance(op, Conv) else (0, 0)
    scale = SIDE / max(layer.input[1] + sum(padding), layer.output[1])  # pixels of a cell
    ring = tuple(max(count * scale, RING * count) for count in padding)
    entering = _block(layer.input, layer, scale, INPUT, hues[0])
    leaving = _block(layer.output, layer, scale, OUTPUT, hues[1])
    corner = (entering.corner[0] - ring[0], entering.corner[1] - ring[0])
    whole = entering.size[0] + ring[0] + ring[1]
    draw(sheet, entering)
    if any(padding):
        _padding(sheet, entering, ring)
        words = word("padding_sides", sheet.language, before=padding[0], after=padding[1])
        sheet.text(
            entering.corner[0] + (entering.size[0] + entering.depth[0]) / 2, BELOW + 40, words, 13, "middle", colour="soft"
        )
    draw(sheet, leaving)
    size = min(whole, max(SMALLEST, op.size * scale))
    _pyramid(sheet, corner, size, leaving.corner, max(SMALLEST, scale))
    for block, shape, label in ((entering, layer.input, "input"), (leaving, layer.output, "output")):
        centre = block.corner[0] + (block.size[0] + block.depth[0]) / 2
        sheet.text(centre, BELOW, " × ".join(map(str, (*shape[1:], shape[0]))), 18, "middle", bold=True)
        sheet.text(centre, BELOW + 20, word(label, sheet.language), 14, "middle", colour="soft")
    if isinstance(op, Conv):
        _kernels(sheet, layer, variant, hues)
    else:
        _maximum(sheet, op, hues[0][0])


def _block(shape: tuple[int, ...], layer: Layer, scale: float, left: float, hues: tuple[str, ...]) -> Block:
    side = max(shape[1] * scale, 2 * SMALLEST)
    deep = max(SMALLEST, DEEPEST * sqrt(shape[0] / max(layer.input[0], layer.output[0])))
    depth = (deep * BACK[0], deep * BACK[1])
    return Block(corner=(left, CENTRE - (side + depth[1]) / 2), size=(side, side), depth=depth, hues=hues)


def _padding(sheet: Sheet, block: Block, ring: tuple[float, ...]) -> None:
    """The zeros around the front."""
    (x, y), (wide, tall), (near, far) = block.corner, block.size, ring
    parts = (
        ((x - near, y - near), (wide + near + far, near)),
        ((x - near, y + tall), (wide + near + far, far)),
        ((x - near, y), (near, tall)),
        ((x + wide, y), (far, tall)),
    )
    for corner, size in parts:
        if min(size) > 0:
            sheet.rectangle(corner, size, "zero", "soft", 0.8, dashed=True)


def _pyramid(sheet: Sheet, corner: Point, size: float, target: Point, cell: float) -> None:
    """The first window, the value that comes of it, and lines between them."""
    (x, y), (to_x, to_y) = corner, target
    for across, down in ((0, 0), (1, 0), (1, 1), (0, 1)):
        start, end = (x + across * size, y + down * size), (to_x + across * cell, to_y + down * cell)
        sheet.line(start, end, colour="ink", width=0.8, opacity=0.45)
    sheet.rectangle(corner, (size, size), "", "ink", 2)
    sheet.rectangle(target, (cell, cell), "card", "ink", 1.5)


def _kernels(sheet: Sheet, layer: Layer, variant: Variant, hues: Hues) -> None:
    """A kernel of each tower, and how many there are."""
    op = layer.op
    assert isinstance(op, Conv)
    each, towers = explanation.split(op, variant)
    fan_in = layer.input[0] // op.groups
    side = 30.0
    deep = max(SMALLEST, 0.5 * DEEPEST * sqrt(fan_in / max(layer.input[0], layer.output[0])))
    depth = (deep * BACK[0], deep * BACK[1])
    for tower, hue in enumerate(hues[1]):
        seen = (hue,) if op.groups > 1 or len(hues[0]) == 1 else hues[0]
        left = MIDDLE + (tower - (towers - 1) / 2) * 88 - (side + depth[0]) / 2
        block = Block(corner=(left, CENTRE + 44 - depth[1] / 2), size=(side, side), depth=depth, hues=seen)
        for number in (2, 1, 0):
            moved = (block.corner[0] - 4 * number + 4, block.corner[1] + 4 * number - 4)
            draw(sheet, Block(corner=moved, size=block.size, depth=depth, hues=seen))
        if towers > 1:
            label = word("tower", sheet.language, number=tower + 1)
            sheet.text(left + (side + depth[0]) / 2, BELOW - 30, label, 13, "middle", colour=f"{hue} deep")
    count = f"{each}·{towers} = {op.kernels}" if towers > 1 else f"{op.kernels}"
    sheet.text(MIDDLE, BELOW, f"{op.size} × {op.size} × {fan_in}", 18, "middle", bold=True)
    sheet.text(MIDDLE, BELOW + 20, word("count_kernels", sheet.language, count=count), 14, "middle", colour="soft")


def _maximum(sheet: Sheet, op: MaxPool, hue: str) -> None:
    """A window of cells, one of which is the largest."""
    size = op.size
    cell = min(22.0, 88 / size)
    left, top = MIDDLE - size * cell / 2, CENTRE + 50 - size * cell / 2
    winner = (size * size) // 2 + size // 2
    for index in range(size * size):
        fill = f"{hue} side" if index == winner else f"{hue} face"
        place = (left + index % size * cell, top + index // size * cell)
        sheet.rectangle(place, (cell, cell), fill, f"{hue} deep", 0.8)
    sheet.rectangle((left, top), (size * cell, size * cell), "", "ink", 2)
    sheet.text(MIDDLE, BELOW, f"{size} × {size}", 18, "middle", bold=True)
    sheet.text(MIDDLE, BELOW + 20, word("largest", sheet.language), 14, "middle", colour="soft")


# --- fully connected layers -----------------------------------------------------------------------


def _connected(sheet: Sheet, layer: Layer, variant: Variant, hues: Hues) -> None:
    """Every input to every unit; the bold lines are those that the formula sums."""
    op = layer.op
    assert isinstance(op, Linear)
    values = prod(layer.input)
    left, right = (470.0, 760.0) if len(layer.input) == 3 else (330.0, 670.0)
    if len(layer.input) == 3:
        _flattened(sheet, layer, hues[0])
    entering, leaving = _column(values, hues[0], 5), _column(op.units, hues[1], 4)
    for number, (_, _, target) in enumerate(leaving):
        for _, _, start in entering:
            bold = number == 0
            sheet.line(
                (left, start),
                (right, target),
                colour="ink" if bold else "soft",
                width=1.4 if bold else 0.6,
                opacity=0.9 if bold else 0.4,
            )
    for x, column, name in ((left, entering, "x"), (right, leaving, "y")):
        for index, hue, y in column:
            sheet.circle((x, y), 11, f"{hue} face", f"{hue} deep")
            side = -20 if name == "x" else 20
            sheet.text(x + side, y + 5, f"{name}{subscript(index)}", 15, "end" if name == "x" else "start")
        middle = (column[-2][2] + column[-1][2]) / 2
        sheet.text(x, middle + 5, "⋮", 18, "middle", colour="soft")
    each, towers = explanation.split(op, variant)
    units = f"{each}·{towers} = {op.units}" if towers > 1 else f"{op.units}"
    sheet.text(left, BELOW, word("count_values", sheet.language, count=f"{values:,}"), 18, "middle", bold=True)
    sheet.text(right, BELOW, word("count_units", sheet.language, count=units), 18, "middle", bold=True)
    sheet.text(left, BELOW + 20, word("input", sheet.language), 14, "middle", colour="soft")
    sheet.text(right, BELOW + 20, word("output", sheet.language), 14, "middle", colour="soft")


def _column(count: int, hues: tuple[str, ...], most: int) -> list[tuple[int, str, float]]:
    """The first values of a vector and its last: number, colour and height of each."""
    shown = [*range(min(count, most)), *([count - 1] if count > most else [])]
    top, bottom = 92.0, BELOW - 42
    step = (bottom - top) / (len(shown) + (count > most) - 1 or 1)
    places = [top + step * (place + (place == most)) for place in range(len(shown))]
    return [(index + 1, hues[index * len(hues) // count], y) for index, y in zip(shown, places, strict=True)]


def _flattened(sheet: Sheet, layer: Layer, hues: tuple[str, ...]) -> None:
    """The maps, which are read as one row of values."""
    block = Block(corner=(MARGIN + 10, CENTRE - 20), size=(96, 96), depth=(DEEPEST * BACK[0], DEEPEST * BACK[1]), hues=hues)
    draw(sheet, block)
    centre = block.corner[0] + (block.size[0] + block.depth[0]) / 2
    sheet.text(centre, BELOW, " × ".join(map(str, (*layer.input[1:], layer.input[0]))), 18, "middle", bold=True)
    sheet.text(centre, BELOW + 20, word("order", sheet.language), 14, "middle", colour="soft")
    arrow(sheet, (block.corner[0] + block.size[0] + block.depth[0] + 14, CENTRE), (360, CENTRE))


def _rule(layer: Layer, language: str) -> str:
    return word("unit_rule", language, last=subscript(prod(layer.input)))


def subscript(number: int) -> str:
    """A number as a subscript."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
