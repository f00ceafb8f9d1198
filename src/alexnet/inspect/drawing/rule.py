"""A layer without weights as a drawing of its rule: ReLU and tanh as curves, normalisation as the
neighbours that it sums, dropout in training and at test, softmax step by step.
"""

from math import tanh

from alexnet.arithmetic import LRN, Dropout, Layer, ReLU, SpatialNorm, Tanh
from alexnet.inspect.drawing.block import arrow, draw
from alexnet.inspect.drawing.column import Dot, column, dotted, draw_column, subscript
from alexnet.inspect.drawing.frame import (
    BACK,
    BELOW,
    CENTRE,
    INPUT,
    MARGIN,
    MIDDLE,
    OUTPUT,
    SIDE,
    TOP,
    Hues,
    caption,
    maps,
    middle,
    sides,
)
from alexnet.inspect.drawing.sheet import Sheet
from alexnet.variants import Variant
from alexnet.words import word

Rule = ReLU | Tanh | LRN | SpatialNorm | Dropout
ARM = 84.0  # pixels of half an axis
CELL, GAP, BAR = 26.0, 46.0, 20.0  # a channel of the strip, what is left out, a window's height


def rule(sheet: Sheet, layer: Layer, variant: Variant, hues: Hues) -> float:
    """Draw a ReLU, tanh, normalisation or dropout; returns where it ends."""
    op = layer.op
    if isinstance(op, Dropout):
        _dropout(sheet, layer, op, hues[0])
        return BELOW + 28
    _ends(sheet, layer, hues)
    if isinstance(op, LRN):
        _neighbours(sheet, op, hues[1])
        return _channels(sheet, op, layer.output[0], variant.towers, hues[1])
    if isinstance(op, SpatialNorm):
        _square(sheet, op, hues[1][0])
    else:
        _curve(sheet, isinstance(op, Tanh))
    return BELOW + 28


def _ends(sheet: Sheet, layer: Layer, hues: Hues) -> None:
    """The same maps or units on either side."""
    for left, name, label, side in ((INPUT, "x", "input", -1), (OUTPUT, "y", "output", 1)):
        words = word(label, sheet.language)
        if len(layer.output) == 3:
            block = maps(layer.output, layer.output[0], SIDE / layer.output[1], left, hues[1])
            draw(sheet, block)
            caption(sheet, middle(block), sides(layer.output), words)
        else:
            x = left + 100
            draw_column(sheet, x, column(layer.output[0], hues[1], 5, TOP, BELOW - 42), name, side)
            caption(sheet, x, f"{layer.output[0]:,}", words)


def _curve(sheet: Sheet, is_tanh: bool) -> None:
    """The function between -1 and 1, or between -3 and 3."""
    across, up = (MIDDLE, CENTRE + 10), ARM
    sheet.line((MIDDLE - ARM, across[1]), (MIDDLE + ARM, across[1]), colour="soft")
    sheet.line((MIDDLE, across[1] + ARM), (MIDDLE, across[1] - ARM), colour="soft")
    sheet.text(MIDDLE + ARM + 6, across[1] + 5, "x", 15)
    sheet.text(MIDDLE, across[1] - ARM - 10, "f(x)", 15, "middle")
    if is_tanh:
        for sign in (-1, 1):
            y = across[1] - sign * 0.7 * up
            sheet.line((MIDDLE - ARM, y), (MIDDLE + ARM, y), colour="soft", dashed=True)
            sheet.text(MIDDLE - ARM - 6, y + 5, "1" if sign > 0 else "−1", 14, "end", colour="soft")
        points = [(MIDDLE + step / 24 * ARM, across[1] - 0.7 * up * tanh(step / 8)) for step in range(-24, 25)]
    else:
        points = [(MIDDLE - ARM, across[1]), across, (MIDDLE + ARM, across[1] - up)]
        sheet.text(MIDDLE - ARM / 2, across[1] + 20, "0", 14, "middle", colour="soft")
        sheet.text(MIDDLE + ARM + 4, across[1] - up + 5, "x", 14, colour="soft")
    sheet.line(*points, width=3)
    caption(sheet, MIDDLE, "tanh(x)" if is_tanh else "max(0, x)", word("op_tanh" if is_tanh else "op_relu", sheet.language))


# --- normalisation --------------------------------------------------------------------------------


def _neighbours(sheet: Sheet, op: LRN, hues: tuple[str, ...]) -> None:
    """One place of the map in as many channels as are summed."""
    side, step = 72.0, 20.0
    left, top = MIDDLE - (side + op.size * step * BACK[0]) / 2, CENTRE + 20 - side / 2
    centres = []
    for number in reversed(range(op.size)):
        x, y = left + number * step * BACK[0], top + number * step * BACK[1]
        own = number == op.size // 2
        sheet.rectangle((x, y), (side, side), f"{hues[0]} {'side' if own else 'face'}", f"{hues[0]} deep", 0.8)
        sheet.rectangle((x + 8, y + side - 20), (12, 12), "card" if own else f"{hues[0]} side", "ink", 1.5 if own else 0.8)
        centres.append((x + 14, y + side - 14))
    sheet.line(*centres, colour="ink", opacity=0.45)
    caption(sheet, MIDDLE, word("count_channels", sheet.language, count=op.size), word("op_lrn", sheet.language))


def _square(sheet: Sheet, op: SpatialNorm, hue: str) -> None:
    """The square of one map that is summed."""
    cells, cell = op.size + 4, 16.0
    left, top = MIDDLE - cells * cell / 2, CENTRE + 20 - cells * cell / 2
    for index in range(cells * cells):
        row, place = divmod(index, cells)
        own = row == place == cells // 2
        summed = max(abs(row - cells // 2), abs(place - cells // 2)) <= op.size // 2
        fill = "card" if own else f"{hue} side" if summed else f"{hue} face"
        sheet.rectangle((left + place * cell, top + row * cell), (cell, cell), fill, f"{hue} deep", 0.8)
    sheet.rectangle((left + 2 * cell, top + 2 * cell), (op.size * cell, op.size * cell), "", "ink", 2)
    caption(sheet, MIDDLE, f"{op.size} × {op.size}", word("op_spatialnorm", sheet.language))


def _channels(sheet: Sheet, op: LRN, count: int, towers: int, hues: tuple[str, ...]) -> float:
    """The channels in a row, at the ends and at the seam of the towers, and which of them count
    for which.
    """
    reach, seams = op.size // 2, [count * tower // towers for tower in range(1, towers)][:1]
    parts = _parts(count, seams, reach)
    sheet.text(MARGIN, BELOW + 62, word("summed", sheet.language), 15, bold=True)
    top, places, x = BELOW + 98, {}, MARGIN
    for part in parts:
        if part[0]:
            sheet.text(x + GAP / 2, top + CELL / 2 + 4, "…", 18, "middle", colour="soft")
            x += GAP
        for channel in part:
            places[channel] = x
            hue = hues[channel * len(hues) // count]
            sheet.rectangle((x, top), (CELL, CELL), f"{hue} face", f"{hue} deep", 0.8)
            sheet.text(x + CELL / 2, top + CELL / 2 + 4, f"{channel + 1}", 11, "middle")
            x += CELL
    for seam in seams:
        sheet.line((places[seam], top - 12), (places[seam], top + CELL + 3 * BAR), colour="ink", width=1.5, dashed=True)
        first, second = (word("tower", sheet.language, number=tower) for tower in (1, 2))
        sheet.text(places[seam] - 8, top - 8, first, 13, "end", colour=f"{hues[0]} deep")
        sheet.text(places[seam] + 8, top - 8, second, 13, "start", colour=f"{hues[1]} deep")
    return _windows(sheet, op, count, [0, reach + 1, *(at + side for at in seams for side in (-1, 0)), count - 1], places)


def _parts(count: int, seams: list[int], reach: int) -> list[list[int]]:
    """Channels that are drawn: those around both ends and the seams."""
    near = 2 * reach + 3
    wanted = {*range(near), *range(count - near, count), *(seam + step for seam in seams for step in range(-near, near))}
    parts: list[list[int]] = []
    for channel in sorted(wanted & {*range(count)}):
        if parts and channel == parts[-1][-1] + 1:
            parts[-1].append(channel)
        else:
            parts.append([channel])
    return parts


def _windows(sheet: Sheet, op: LRN, count: int, chosen: list[int], places: dict[int, float]) -> float:
    """A bar for each chosen channel over those that it sums, named at the channel itself."""
    y, free = BELOW + 98 + CELL + 6, [0.0]
    for channel in dict.fromkeys(one for one in chosen if 0 <= one < count):
        own = count // op.towers
        start = channel // own * own
        first, last = max(start, channel - op.size // 2), min(start + own - 1, channel + op.size // 2)
        line = next((line for line, x in enumerate(free) if x <= places[first]), len(free))
        free[line : line + 1] = [places[last] + CELL]
        at = y + line * (BAR + 3)
        sheet.rectangle((places[first] + 1, at), (places[last] + CELL - places[first] - 2, BAR), "card", "ink", 1.2)
        sheet.text(places[channel] + CELL / 2, at + 14, f"b{subscript(channel + 1)}", 13, "middle")
    return y + len(free) * (BAR + 3)


# --- dropout and softmax --------------------------------------------------------------------------


def _dropout(sheet: Sheet, layer: Layer, op: Dropout, hues: tuple[str, ...]) -> None:
    """Some units in training, and the same ones at test."""
    count = 1
    for side in layer.output:
        count *= side
    kept = f"{1 - op.rate:g}"
    dots = column(count, hues, 6, TOP, BELOW - 42)
    training, test = (f" / {kept}", "") if op.inverted else ("", f" · {kept}")
    for left, label, after in ((190.0, "in_training", training), (620.0, "at_test", test)):
        draw_column(sheet, left, dots, "x", -1)
        for place, dot in enumerate(dots):
            dropped = label == "in_training" and int((place + 1) * op.rate) > int(place * op.rate)
            arrow(sheet, (left + 18, dot.y), (left + 118, dot.y), colour="rule" if dropped else "soft")
            _out(sheet, left + 136, dot, "0" if dropped else f"x{subscript(dot.number)}{after}", dropped)
        dotted(sheet, left + 136, dots)
        caption(sheet, left + 68, word(label, sheet.language), word("count_values", sheet.language, count=f"{count:,}"))


def _out(sheet: Sheet, x: float, dot: Dot, words: str, dropped: bool) -> None:
    sheet.circle((x, dot.y), 11, "zero" if dropped else f"{dot.hue} face", "soft" if dropped else f"{dot.hue} deep")
    if dropped:
        for sign in (-1, 1):
            sheet.line((x - 7, dot.y - 7 * sign), (x + 7, dot.y + 7 * sign), colour="soft", width=1.5)
    sheet.text(x + 20, dot.y + 5, words, 15, colour="soft" if dropped else "ink")


def softmax(sheet: Sheet, count: int, hues: tuple[str, ...]) -> float:
    """Scores, their exponentials, the sum, the shares of it; returns where it ends."""
    dots = column(count, hues, 5, TOP, BELOW - 42)
    scores, grown, total, shares = 170.0, 400.0, 600.0, 780.0
    for dot in dots:
        arrow(sheet, (scores + 16, dot.y), (grown - 84, dot.y))
        sheet.line((grown + 12, dot.y), (total - 16, CENTRE), colour="soft", width=0.8)
        sheet.line((total + 16, CENTRE), (shares - 12, dot.y), colour="soft", width=0.8)
    draw_column(sheet, scores, dots, "z", -1)
    draw_column(sheet, grown, dots, "e^z", -1)
    draw_column(sheet, shares, dots, "p", 1)
    sheet.circle((total, CENTRE), 17, "card", "ink")
    sheet.text(total, CENTRE + 6, "Σ", 17, "middle", bold=True)
    captions = ((scores, "z", "scores"), (grown, "e^z", "above_zero"), (total, "Σ", "their_sum"), (shares, "p", "shares"))
    for x, name, under in captions:
        caption(sheet, x, name, word(under, sheet.language, count=count))
    return BELOW + 28
