"""A whole network: the towers as in figure 2 of the paper, and under each stage its numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

from alexnet import explanation
from alexnet.arithmetic import Conv, Dropout, Layer, Linear, MaxPool, Op
from alexnet.inspect.drawing.block import Block, draw
from alexnet.inspect.drawing.sheet import TOWER_HUES, Point, Sheet, typeset
from alexnet.variants import Variant
from alexnet.words import word

LEFT, PITCH, RIGHT = 106.0, 88.0, 22.0  # the rows' labels, a stage's column, the margin
HEAD, ROW, GAP = 94.0, 112.0, 34.0  # the heading, a tower's height, between towers
LINE = 22.0  # height of a row of numbers
PICTURE, THICKEST, TALLEST = 150.0, 40.0, 112.0  # side of the picture, depth of the most maps, height of the most units
BACK: Point = (0.42, -0.3)  # where a map's width goes, in shares of its side
SMALLEST = 5.0  # pixels of a window or a box


@dataclass(frozen=True)
class Stage:
    """A column: the picture, or a layer whose output is drawn, with what follows it."""

    layer: Layer | None
    shape: tuple[int, ...]
    towers: int
    then: tuple[str, ...]


def network_sheet(variant: Variant, language: str = "en") -> Sheet:
    """The network on one sheet.

    Raises:
        UsageError: an unknown language.
    """
    found = list(stages(variant, language))
    rows = _rows(variant, found, language)
    towers = HEAD + variant.towers * ROW + (variant.towers - 1) * GAP
    towers = max(towers, HEAD + PICTURE * (1 - BACK[1]) + 8)
    sheet = Sheet(
        width=LEFT + PITCH * len(found) + RIGHT,
        height=towers + 34 + LINE * sum(max(map(len, cells)) for _, cells in rows) + 22,
        title=typeset(f"AlexNet: {explanation.title(variant, language)}"),
        description=_description(variant, found, language),
        language=language,
    )
    _heading(sheet, variant)
    _network(sheet, variant, found, (HEAD + towers) / 2)
    bottom = _table(sheet, rows, towers + 34)
    sheet.text(22, bottom + 8, word("scale", language), 12, colour="soft")
    return sheet


def stages(variant: Variant, language: str) -> Iterator[Stage]:
    """The columns from left to right."""
    layers = variant.layers()
    drawn = [index for index, layer in enumerate(layers) if isinstance(layer.op, Conv | MaxPool | Linear)]
    yield Stage(None, layers[0].input, 1, _then([layer.op for layer in layers[: drawn[0]]], language))
    for index, following in zip(drawn, [*drawn[1:], len(layers)], strict=True):
        layer = layers[index]
        then = _then([one.op for one in layers[index + 1 : following]], language)
        last = following == len(layers)
        towers = 1 if last else variant.towers
        yield Stage(layer, layer.output, towers, (*then, word("softmax", language)) if last else then)


def _then(ops: list[Op], language: str) -> tuple[str, ...]:
    names = [word(f"op_{type(op).__name__.lower()}", language) for op in ops]
    return tuple(f"{name} {op.rate:g}" if isinstance(op, Dropout) else name for name, op in zip(names, ops, strict=True))


def _heading(sheet: Sheet, variant: Variant) -> None:
    sheet.text(22, 36, sheet.title, 20, bold=True)
    numbers = (
        explanation.learned(variant, sheet.language),
        word("total_parameters", sheet.language, count=f"{variant.parameters:,}"),
        word("total_multiply_adds", sheet.language, count=f"{variant.multiply_adds:,}"),
    )
    sheet.text(22, 60, "  ·  ".join(numbers), 14, colour="soft")


# --- the towers -----------------------------------------------------------------------------------


def _network(sheet: Sheet, variant: Variant, found: list[Stage], middle: float) -> None:
    columns = [_blocks(stage, found, LEFT + PITCH * number, middle) for number, stage in enumerate(found)]
    for (source, target), stage in zip(pairwise(columns), found[1:], strict=True):
        if isinstance(stage.layer and stage.layer.op, Linear):
            _bands(sheet, source, target)
    for stage, blocks in zip(found, columns, strict=True):
        flat = len(stage.shape) == 1
        for block in blocks:
            draw(sheet, block, *(("face", "side") if flat else ("side", "face")))
    for (source, target), stage in zip(pairwise(columns), found[1:], strict=True):
        if stage.layer and not isinstance(stage.layer.op, Linear):
            _windows(sheet, source, target, stage.layer)
    if variant.towers > 1:
        for number, block in enumerate(columns[1]):
            x, y = block.on_top(0, 1)
            label = word("tower", sheet.language, number=number + 1)
            sheet.text(x - 8, y - 8, label, 13, bold=True, colour=f"{block.hues[0]} deep")


def _blocks(stage: Stage, found: list[Stage], left: float, middle: float) -> list[Block]:
    """A stage's boxes, one for each tower, in the middle of its column."""
    hues = ["grey"] if stage.layer is None else [TOWER_HUES[tower % len(TOWER_HUES)] for tower in range(stage.towers)]
    if stage.layer is not None and stage.towers == 1 and found[1].towers > 1:
        hues = ["grey"]
    wide, tall, back = _extent(stage, found)
    blocks = []
    for tower, hue in enumerate(hues):
        centre = middle + (tower - (stage.towers - 1) / 2) * (ROW + GAP)
        corner = (left + (PITCH - wide - back[0]) / 2, centre - (tall + back[1]) / 2)
        blocks.append(Block(corner=corner, size=(wide, tall), depth=back, hues=(hue,)))
    return blocks


def _extent(stage: Stage, found: list[Stage]) -> tuple[float, float, Point]:
    """Width and height of the front, and the depth, in pixels."""
    each = stage.shape[0] / stage.towers
    if len(stage.shape) == 1:
        most = max(one.shape[0] / one.towers for one in found if len(one.shape) == 1)
        return 13.0, max(SMALLEST, TALLEST * sqrt(each / most)), (9.0, -6.5)
    most = max(one.shape[0] / one.towers for one in found if len(one.shape) == 3)
    side = max(SMALLEST, PICTURE * sqrt(stage.shape[1] / found[0].shape[1]))
    if stage.layer is not None:  # a map as large as the picture would not fit its tower
        side = min(side, ROW / (1 - BACK[1]))
    return max(SMALLEST, THICKEST * sqrt(each / most)), side, (BACK[0] * side, BACK[1] * side)


def _windows(sheet: Sheet, source: list[Block], target: list[Block], layer: Layer) -> None:
    """The window that each tower reads, and the lines from it to the value that comes of it."""
    crossing = isinstance(layer.op, Conv) and layer.op.groups == 1 and len(source) > 1
    for number, end in enumerate(target):
        for start in source if crossing or len(source) == 1 else [source[number]]:
            down = 0.5 if len(source) > 1 or len(target) == 1 else (number + 1) / (len(target) + 1)
            _window(sheet, start, end, layer, down)


def _window(sheet: Sheet, start: Block, end: Block, layer: Layer, down: float) -> None:
    assert isinstance(layer.op, Conv | MaxPool)
    share = min(1.0, max(layer.op.size / layer.input[1], SMALLEST / start.size[1])) / 2
    corners = [
        start.on_right(0.5 + across * share, down + along * share) for across, along in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    hue = start.hues[0] if start.hues[0] != "grey" else end.hues[0]
    tip = end.on_front(0, 0.5)
    for corner in corners:
        sheet.line(corner, tip, colour=f"{hue} deep", width=0.8, opacity=0.75)
    sheet.polygon(corners, "card", "ink", 1.2)
    sheet.circle(tip, 2.2, "ink")


def _bands(sheet: Sheet, source: list[Block], target: list[Block]) -> None:
    """Every value to every unit."""
    for start in source:
        for end in target:
            points = (start.on_right(0.5, 0), end.on_front(0, 0), end.on_front(0, 1), start.on_right(0.5, 1))
            sheet.polygon(points, f"{start.hues[0]} side", opacity=0.3)


# --- the numbers ----------------------------------------------------------------------------------


Rows = list[tuple[str, list[tuple[str, ...]]]]  # a label, and for each column its lines


def _rows(variant: Variant, found: list[Stage], language: str) -> Rows:
    columns = [_numbers(stage, variant, language) for stage in found]
    rows = [(word(f"row_{name}", language), [column[name] for column in columns]) for name in columns[0] if name != "name"]
    if variant.towers == 1:
        rows = [row for row in rows if row[0] != word("row_reads", language)]
    return [("", [column["name"] for column in columns]), *rows]


def _numbers(stage: Stage, variant: Variant, language: str) -> dict[str, tuple[str, ...]]:
    layer, op = stage.layer, stage.layer and stage.layer.op
    spatial = len(stage.shape) == 3
    windowed = op if isinstance(op, Conv | MaxPool) else None
    before, after = op.padding if isinstance(op, Conv) else (0, 0)
    each = stage.shape[0] // stage.towers
    return {
        "name": (layer.name if layer else word("picture", language),),
        "side": (f"{stage.shape[1]} × {stage.shape[2]}" if spatial else "",),
        "maps": (f"{each}·{stage.towers}" if stage.towers > 1 else f"{each}",),
        "window": (f"{windowed.size} × {windowed.size}" if windowed else "",),
        "stride": (f"{windowed.stride}" if windowed else "",),
        "padding": (f"[{before}, {after}]" if isinstance(op, Conv) else "0" if windowed else "",),
        "reads": (_reads(layer, variant, language),),
        "then": stage.then or ("",),
        "parameters": (f"{layer.parameters:,}" if layer and layer.parameters else "",),
    }


def _reads(layer: Layer | None, variant: Variant, language: str) -> str:
    if layer is None:
        return ""
    if layer == variant.layers()[0]:
        return word("short_picture", language)
    everything = isinstance(layer.op, Linear) or (isinstance(layer.op, Conv) and layer.op.groups == 1)
    return word("short_own" if not everything else "short_both" if variant.towers == 2 else "short_all", language)


def _table(sheet: Sheet, rows: Rows, y: float) -> float:
    """Write the rows; returns where they end."""
    for number, (label, cells) in enumerate(rows):
        if label:
            sheet.text(22, y, label, 14, colour="soft")
        for column, lines in enumerate(cells):
            centre = LEFT + PITCH * (column + 0.5)
            for index, words in enumerate(lines):
                size = 16 if number == 0 else 12.5 if len(words) > 9 else 14
                if words:
                    sheet.text(centre, y + LINE * index, words, size, "middle", bold=number == 0)
        y += LINE * max(map(len, cells))
        sheet.line((22, y - 15), (sheet.width - RIGHT, y - 15), colour="rule", width=0.8)
    return y


def _description(variant: Variant, found: list[Stage], language: str) -> str:
    sizes = []
    for stage in found:
        name = stage.layer.name if stage.layer else word("picture", language)
        size = " × ".join(map(str, (*stage.shape[1:], stage.shape[0])))
        sizes.append(word("describe_stage", language, layer=name, size=size))
    return word(
        "describe_overview",
        language,
        learned=explanation.learned(variant, language),
        parameters=word("total_parameters", language, count=f"{variant.parameters:,}"),
        multiply_adds=word("total_multiply_adds", language, count=f"{variant.multiply_adds:,}"),
        layers=" ".join(sizes),
    )
