"""A network as text: the layer table, and the seed notes' lines. Standard library, and rich for the terminal."""

import json
from math import prod
from typing import Any

from alexnet import arithmetic
from alexnet.arithmetic import Conv, Layer, Linear, MaxPool
from alexnet.variants import Variant

HEADER = ("layer", "kind", "output", "window", "parameters", "multiply-adds", "kB", "sees")


def table(variant: Variant) -> None:
    """Print the table to the terminal."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*HEADER[:4], title=_title(variant), title_justify="left", box=None, show_footer=True)
    totals = _totals(variant)
    for name, total in zip(HEADER[4:], (totals["parameters"], totals["multiply_adds"], None, None), strict=True):
        drawn.add_column(name, footer=f"{total:,}" if total else "", justify="right")
    for layer in variant.layers():
        drawn.add_row(*_row(layer))
    console = Console(width=None if Console().is_terminal else 110)
    with console.capture() as text:  # printed by rich, a pipe without a reader would end with a status of rich's own
        console.print(drawn)
    print(text.get(), end="")


def markdown(variant: Variant) -> str:
    """The table as Markdown."""
    totals = _totals(variant)
    rows = [
        HEADER, ("---",) * 4 + ("---:",) * 4, *map(_row, variant.layers()),
        ("**total**", "", "", "", f"**{totals['parameters']:,}**", f"**{totals['multiply_adds']:,}**", "", ""),
    ]  # fmt: skip
    return "\n".join([_title(variant), "", *(f"| {' | '.join(row)} |" for row in rows)])


def as_json(variant: Variant) -> str:
    """The table as JSON: `layers`, and `totals`."""
    layers = [
        {
            "name": layer.name, "kind": layer.kind, "output": (*layer.output, 1, 1)[:3], "parameters": layer.parameters,
            "multiply_adds": layer.multiply_adds, "activation_bytes": layer.activation_bytes,
            "receptive_field": layer.receptive_field,
        }
        for layer in variant.layers()
    ]  # fmt: skip
    head = {"variant": variant.name, "input_size": variant.input_size, "width": variant.width}
    return json.dumps({**head, "num_classes": variant.num_classes, "layers": layers, "totals": _totals(variant)}, indent=1)


def explain(variant: Variant) -> str:
    """Every layer written out as the study notes do."""
    lines = [arithmetic.explain(layer, variant.towers) for layer in variant.layers()]
    totals = _totals(variant)
    end = [f"parameters: {totals['parameters']:,}", f"multiply-adds: {totals['multiply_adds']:,}"]
    return "\n".join([_title(variant), *(line for line in lines if line), *end])


def _title(variant: Variant) -> str:
    changed = f" x {variant.width:g}" if variant.width != 1 else ""
    return f"{variant.name}{changed}, input [{variant.input_size},{variant.input_size},3], {variant.num_classes} classes"


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
        layer.name, layer.kind, " x ".join(map(str, layer.output)), window, f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.multiply_adds:,}" if layer.multiply_adds else "", f"{layer.activation_bytes / 1000:,.1f}",
        f"{layer.receptive_field}",
    )  # fmt: skip
