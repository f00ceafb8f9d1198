"""One layer: its input, its window or units, its output, and each size worked out."""

from math import ceil, prod, sqrt

from alexnet import explanation
from alexnet.arithmetic import Conv, Layer, Linear, MaxPool
from alexnet.errors import UsageError, nearest
from alexnet.inspect.drawing.block import Block, arrow, draw
from alexnet.inspect.drawing.column import column, draw_column, subscript
from alexnet.inspect.drawing.frame import (
    BACK,
    BELOW,
    CENTRE,
    DEEPEST,
    INPUT,
    MARGIN,
    MIDDLE,
    OUTPUT,
    SIDE,
    SMALLEST,
    TOP,
    WIDTH,
    Hues,
    caption,
    maps,
    middle,
    sides,
)
from alexnet.inspect.drawing.rule import rule, softmax
from alexnet.inspect.drawing.sheet import TOWER_HUES, Point, Sheet, typeset
from alexnet.inspect.drawing.strip import strip
from alexnet.variants import Variant
from alexnet.words import word

RING = 5.0  # least pixels for a row of zeros
#: Kinds that are named in full here, and by initials in the overview.
IN_FULL = {"lrn": "lrn_in_full", "spatialnorm": "spatialnorm_in_full", "overlapping": "op_overlapping", "softmax": "softmax"}


def drawable(variant: Variant) -> list[str]:
    """Names of what has a drawing of its own: every layer, and softmax."""
    return [part.name for part in explanation.parts(variant)]


def check_layer(variant: Variant, name: str | None) -> None:
    """Refuse a layer that is not there; None is the whole network.

    Raises:
        UsageError: naming the nearest layer.
    """
    if name is not None and name not in drawable(variant):
        raise UsageError(f"layer (={name!r}): {variant.name} has no such layer to draw; {nearest(name, drawable(variant))}")


def layer_sheet(variant: Variant, name: str, language: str = "en") -> Sheet:
    """The drawing of one layer, such as conv1, or of softmax.

    Raises:
        UsageError: a layer that is not there, or an unknown language.
    """
    check_layer(variant, name)
    written = next(part.lines for part in explanation.parts(variant, language) if part.name == name)
    lines = [f"{line.label}{word('colon', language)}{line.value}" if line.label else line.value for line in written]
    heading = typeset(f"{name} · {explanation.title(variant, language)}")
    sheet = Sheet(
        width=WIDTH,
        height=0,
        title=heading,
        description=word("describe_layer", language, name=heading, lines=word("semicolon", language).join(lines)),
        language=language,
    )
    found = next((layer for layer in variant.layers() if layer.name == name), None)
    _heading(sheet, name, found, variant)
    if found is None:
        sheet.height = _calculations(sheet, lines[0], [], softmax(sheet, variant.num_classes, ("grey",)) + 54)
        return sheet
    hues = _hues(found, variant)
    if isinstance(found.op, Linear):
        _connected(sheet, found, variant, hues)
        sheet.height = _calculations(sheet, _rule(found, language), [word("own_weights", language), *lines[1:]], BELOW + 82)
    elif isinstance(found.op, Conv | MaxPool):
        _windowed(sheet, found, variant, hues)
        bottom = strip(sheet, found, hues[0][0], BELOW + 82)
        formula = explanation.size_formula(found, language)
        sheet.height = _calculations(sheet, formula, lines[lines.index(formula) + 1 :], bottom + 54)
    else:
        sheet.height = _calculations(sheet, lines[0], lines[1:], rule(sheet, found, variant, hues) + 54)
    return sheet


def _heading(sheet: Sheet, name: str, layer: Layer | None, variant: Variant) -> None:
    kind = layer.kind if layer else "softmax"
    if layer and isinstance(layer.op, MaxPool) and layer.op.stride < layer.op.size:
        kind = "overlapping"
    words = word(IN_FULL.get(kind, f"op_{kind}"), sheet.language)
    sheet.text(MARGIN, 46, name, 26, bold=True)
    if words.lower() not in name:
        sheet.text(MARGIN + max(100, 20 * len(name)), 46, words, 17, colour="soft")
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
    most = max(layer.input[0], layer.output[0])
    entering = maps(layer.input, most, scale, INPUT, hues[0])
    leaving = maps(layer.output, most, scale, OUTPUT, hues[1])
    corner = (entering.corner[0] - ring[0], entering.corner[1] - ring[0])
    whole = entering.size[0] + ring[0] + ring[1]
    draw(sheet, entering)
    if any(padding):
        _padding(sheet, entering, ring)
        words = word("padding_sides", sheet.language, before=padding[0], after=padding[1])
        sheet.text(middle(entering), BELOW + 40, words, 13, "middle", colour="soft")
    draw(sheet, leaving)
    window = min(whole, max(SMALLEST, op.size * scale))
    _pyramid(sheet, corner, window, leaving.corner, max(SMALLEST, scale))
    for block, shape, label in ((entering, layer.input, "input"), (leaving, layer.output, "output")):
        caption(sheet, middle(block), sides(shape), word(label, sheet.language))
    if isinstance(op, Conv):
        _kernels(sheet, layer, variant, hues)
    else:
        _maximum(sheet, op, hues[0][0])


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
    caption(sheet, MIDDLE, f"{op.size} × {op.size} × {fan_in}", word("count_kernels", sheet.language, count=count))


def _maximum(sheet: Sheet, op: MaxPool, hue: str) -> None:
    """A window of cells, one of which is the largest."""
    side = op.size
    cell = min(22.0, 88 / side)
    left, top = MIDDLE - side * cell / 2, CENTRE + 50 - side * cell / 2
    winner = (side * side) // 2 + side // 2
    for index in range(side * side):
        fill = f"{hue} side" if index == winner else f"{hue} face"
        place = (left + index % side * cell, top + index // side * cell)
        sheet.rectangle(place, (cell, cell), fill, f"{hue} deep", 0.8)
    sheet.rectangle((left, top), (side * cell, side * cell), "", "ink", 2)
    caption(sheet, MIDDLE, f"{op.size} × {op.size}", word("largest", sheet.language))


# --- fully connected layers -----------------------------------------------------------------------


def _connected(sheet: Sheet, layer: Layer, variant: Variant, hues: Hues) -> None:
    """Every input to every unit; the bold lines are those that the formula sums."""
    op = layer.op
    assert isinstance(op, Linear)
    values = prod(layer.input)
    left, right = (470.0, 760.0) if len(layer.input) == 3 else (330.0, 670.0)
    if len(layer.input) == 3:
        _flattened(sheet, layer, hues[0])
    entering, leaving = (
        column(count, hue, most, TOP, BELOW - 42) for count, hue, most in ((values, hues[0], 5), (op.units, hues[1], 4))
    )
    for number, target in enumerate(leaving):
        bold = number == 0
        colour, width, opacity = ("ink", 1.4, 0.9) if bold else ("soft", 0.6, 0.4)
        for start in entering:
            sheet.line((left, start.y), (right, target.y), colour=colour, width=width, opacity=opacity)
    draw_column(sheet, left, entering, "x", -1)
    draw_column(sheet, right, leaving, "y", 1)
    each, towers = explanation.split(op, variant)
    units = f"{each}·{towers} = {op.units}" if towers > 1 else f"{op.units}"
    caption(sheet, left, word("count_values", sheet.language, count=f"{values:,}"), word("input", sheet.language))
    caption(sheet, right, word("count_units", sheet.language, count=units), word("output", sheet.language))


def _flattened(sheet: Sheet, layer: Layer, hues: tuple[str, ...]) -> None:
    """The maps, which are read as one row of values."""
    block = Block(corner=(MARGIN + 10, CENTRE - 20), size=(96, 96), depth=(DEEPEST * BACK[0], DEEPEST * BACK[1]), hues=hues)
    draw(sheet, block)
    caption(sheet, middle(block), sides(layer.input), word("order", sheet.language))
    arrow(sheet, (block.corner[0] + block.size[0] + block.depth[0] + 14, CENTRE), (360, CENTRE))


def _rule(layer: Layer, language: str) -> str:
    return word("unit_rule", language, last=subscript(prod(layer.input)))
