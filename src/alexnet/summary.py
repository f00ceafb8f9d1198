"""Show a network as text: the layer table, and the formulas of the study notes. Standard library,
and rich for the terminal.
"""

import json
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from alexnet import arithmetic, explanation
from alexnet.arithmetic import Conv, Layer, Linear, MaxPool
from alexnet.explanation import Line, Part
from alexnet.variants import Variant
from alexnet.words import word

if TYPE_CHECKING:
    from rich.table import Table

HEADER = ("layer", "kind", "output", "window", "parameters", "multiply-adds", "kB", "sees")
#: Columns of the table on a terminal, from the widest choice to the narrowest; the
#: first that fits is taken.
CHOICES = (
    HEADER,
    ("layer", "out", "by", "parameters", "mult-adds", "kB", "sees"),
    ("layer", "out", "by", "parameters", "mult-adds"),
    ("layer", "out", "parameters", "mult-adds"),
    ("layer", "out", "parameters"),
)
#: What the last two columns mean.
LEGEND = "kB: memory of one picture's output; sees: receptive field in pixels"
LEFT = ("layer", "kind", "output", "out", "window", "by")  # the others are numbers, and right-aligned


def table(variant: Variant) -> None:
    """Print the table: to a terminal as wide as that allows, elsewhere whole."""
    from rich.console import Console

    terminal, unbounded = Console(), Console(width=1000)
    fitting = (one for one in CHOICES if unbounded.measure(_drawn(variant, one)).maximum <= terminal.width)
    columns = next(fitting, CHOICES[-1]) if terminal.is_terminal else HEADER
    unbounded.print(_drawn(variant, columns))
    if "sees" in columns:
        print(LEGEND)


def _drawn(variant: Variant, columns: tuple[str, ...]) -> "Table":
    from rich.table import Table

    drawn = Table(
        title=explanation.title(variant), title_justify="left", box=None, show_footer=True, padding=(0, 2, 0, 0), pad_edge=False
    )
    totals = _totals(variant)
    numbers = {"parameters": totals["parameters"], "mult-adds": totals["multiply_adds"]}
    numbers["multiply-adds"] = numbers["mult-adds"]
    for name in columns:
        footer = f"{numbers[name]:,}" if name in numbers else ""
        heading = {"out": "output", "by": "window"}.get(name, name)
        drawn.add_column(heading, footer=footer, justify="left" if name in LEFT else "right", no_wrap=True)
    for layer in variant.layers():
        cells = dict(zip(HEADER, _row(layer), strict=True))
        cells |= {"out": cells["output"].replace(" ", ""), "by": _short(cells["window"]), "mult-adds": cells["multiply-adds"]}
        drawn.add_row(*(cells[name] for name in columns))
    return drawn


def _short(window: str) -> str:
    """ "5 x 5 / 1, pad [2,2], 2 groups" in 22 characters."""
    return (
        window.replace(" x ", "x")
        .replace(" / ", "/")
        .translate(str.maketrans("", "", "[]"))
        .replace(", ", " ")
        .replace("groups", "grp")
    )


def markdown(variant: Variant) -> str:
    """The table as Markdown."""
    totals = _totals(variant)
    rows = [
        HEADER,
        ("---",) * 4 + ("---:",) * 4,
        *map(_row, variant.layers()),
        ("**total**", "", "", "", f"**{totals['parameters']:,}**", f"**{totals['multiply_adds']:,}**", "", ""),
    ]
    return "\n".join([explanation.title(variant), "", *(f"| {' | '.join(row)} |" for row in rows)])


def as_json(variant: Variant) -> str:
    """The table as JSON: `layers`, and `totals`."""
    layers = [
        {
            "name": layer.name,
            "kind": layer.kind,
            "output": (*layer.output, 1, 1)[:3],
            "parameters": layer.parameters,
            "multiply_adds": layer.multiply_adds,
            "activation_bytes": layer.activation_bytes,
            "receptive_field": layer.receptive_field,
        }
        for layer in variant.layers()
    ]
    head = {"variant": variant.name, "input_size": variant.input_size, "width": variant.width}
    return json.dumps({**head, "num_classes": variant.num_classes, "layers": layers, "totals": _totals(variant)}, indent=1)


def explain(variant: Variant, language: str = "en", format: str = "table") -> str:
    """Every layer written out as the study notes do.

    Args:
        variant: the network.
        language: en or zh.
        format: "markdown", or anything else for plain text.

    Raises:
        UsageError: an unknown language.
    """
    totals, end = _totals(variant), []
    for name in ("parameters", "multiply_adds"):
        end.append(explanation.Line(word(name, language), f"{totals[name]:,}"))
    head = (explanation.title(variant, language), explanation.learned(variant, language))
    written = (*head, explanation.parts(variant, language), end, word("colon", language))
    return _explained_markdown(*written) if format == "markdown" else _explained_text(*written)


def _explained_text(title: str, learned: str, parts: Sequence[Part], end: Sequence[Line], colon: str) -> str:
    layers = ["\n".join([f"{part.name}:", *(f"  {_joined(line, colon)}" for line in part.lines)]) for part in parts]
    return "\n".join([title, learned, *layers, *(_joined(line, colon) for line in end)])


def _joined(line: Line, colon: str) -> str:
    return f"{line.label}{colon}{line.value}" if line.label else line.value


def _explained_markdown(title: str, learned: str, parts: Sequence[Part], end: Sequence[Line], colon: str) -> str:
    """Calculations are code, so that no asterisk of theirs becomes emphasis."""
    layers = ["\n".join([f"## {part.name}", "", *(f"- {_marked(line, colon)}" for line in part.lines)]) for part in parts]
    totals = "\n".join(f"- {_marked(line, colon)}" for line in end)
    return "\n\n".join([f"# {title}", learned, *layers, "---", totals])


def _marked(line: Line, colon: str) -> str:
    return _joined(line._replace(value=f"`{line.value}`") if set("*^_[") & set(line.value) else line, colon)


def _totals(variant: Variant) -> dict[str, Any]:
    layers = variant.layers()
    return {
        "parameters": variant.parameters,
        "multiply_adds": variant.multiply_adds,
        "training_flop": arithmetic.training_flop(layers),
        "units": arithmetic.units(layers),
        "activation_bytes": sum(layer.activation_bytes for layer in layers),
    }


def _row(layer: Layer) -> tuple[str, ...]:
    match layer.op:
        case Conv(size=size, stride=stride, padding=padding, groups=groups):
            window = f"{size} x {size} / {stride}, pad [{padding[0]},{padding[1]}]{f', {groups} groups' * (groups > 1)}"
        case MaxPool(size=size, stride=stride):
            window = f"{size} x {size} / {stride}"
        case Linear():
            window = f"{prod(layer.input)} inputs"
        case _:
            window = ""
    return (
        layer.name,
        layer.kind,
        " x ".join(map(str, layer.output)),
        window,
        f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
        f"{layer.activation_bytes / 1000:,.1f}",
        f"{layer.receptive_field}",
    )
