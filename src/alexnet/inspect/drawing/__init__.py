"""Drawings of a network from its own data: the whole of it, or one layer with each size worked out.

>>> svg("paper", layer="conv1")[:4]
'<svg'

A drawing is a list of shapes (`sheet.py`), which becomes SVG text or a matplotlib figure. The same
variant gives the same bytes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.figure_file import check_ending
from alexnet.figure_file import save as save_figure
from alexnet.files import writing
from alexnet.inspect.drawing.layer import check_layer, drawable, layer_sheet
from alexnet.inspect.drawing.overview import network_sheet
from alexnet.inspect.drawing.sheet import Sheet
from alexnet.inspect.drawing.to_figure import to_figure
from alexnet.inspect.drawing.to_svg import to_svg
from alexnet.variants import Variant, get_variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_layer", "figure", "layer_names", "save", "svg"]


def layer_names(variant: str | Variant) -> list[str]:
    """What has a drawing of its own: every layer, and softmax."""
    return drawable(get_variant(variant))


def svg(variant: str | Variant, layer: str | None = None, language: str = "en") -> str:
    """The text of an SVG file.

    Args:
        variant: a name such as paper, or a variant.
        layer: a name such as conv1; the whole network without one.
        language: en or zh.

    Raises:
        VariantError: an unknown variant.
        UsageError: an unknown layer or language.
    """
    return to_svg(_sheet(variant, layer, language))


def figure(variant: str | Variant, layer: str | None = None, language: str = "en") -> "Figure":
    """A matplotlib figure of the same drawing; arguments and errors as for `svg`."""
    return to_figure(_sheet(variant, layer, language))


def save(path: Path, variant: str | Variant, layer: str | None = None, language: str = "en") -> None:
    """Write a drawing in the format that the name ends in: .svg, .png or .pdf.

    Raises:
        OutputError: another ending, or the file cannot be written.
        VariantError, UsageError: as for `svg`.
    """
    check_ending("path", path)
    if path.suffix.lower() != ".svg":
        save_figure(figure(variant, layer, language), path)
        return
    text = svg(variant, layer, language)
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _sheet(variant: str | Variant, layer: str | None, language: str) -> Sheet:
    chosen = get_variant(variant)
    return network_sheet(chosen, language) if layer is None else layer_sheet(chosen, layer, language)
