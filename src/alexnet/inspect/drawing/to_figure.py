"""A sheet by matplotlib, for PNG and PDF: the colours of a light background."""

from typing import TYPE_CHECKING

from alexnet.inspect.drawing.sheet import COLOURS, Shape, Sheet, Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS_PER_INCH = 100.0  # of the sheet; PNG files have twice as many
POINTS_PER_PIXEL = 72 / PIXELS_PER_INCH
ALIGNED = {"start": "left", "middle": "center", "end": "right"}


def to_figure(sheet: Sheet) -> "Figure":
    """A figure that shows the sheet, 100 of its pixels to the inch."""
    from matplotlib.figure import Figure

    from alexnet import lettering

    size = (sheet.width / PIXELS_PER_INCH, sheet.height / PIXELS_PER_INCH)
    drawn = Figure(figsize=size, dpi=2 * PIXELS_PER_INCH, facecolor=COLOURS["card"][0])
    axes = drawn.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, sheet.width), ylim=(sheet.height, 0))
    axes.set_axis_off()
    families = lettering.fonts(sheet.texts)
    for order, shape in enumerate(sheet.shapes):
        if isinstance(shape, Text):
            axes.text(
                *shape.at,
                lettering.drawable(shape.words),
                fontsize=shape.size * POINTS_PER_PIXEL,
                fontfamily=families,
                fontweight="bold" if shape.bold else "normal",
                color=COLOURS[shape.colour][0],
                horizontalalignment=ALIGNED[shape.anchor],
                verticalalignment="baseline",
                parse_math=False,
                zorder=order,
            )
        else:
            _paint(axes, shape, order)
    return drawn


def _paint(axes: "Axes", shape: Shape, order: int) -> None:
    from matplotlib.patches import Polygon

    style = (0, (4, 3)) if shape.dashed else "solid"
    patch = Polygon(
        shape.points,
        closed=shape.closed,
        facecolor=COLOURS[shape.fill][0] if shape.fill else "none",
        edgecolor=COLOURS[shape.line][0] if shape.line else "none",
        linewidth=shape.width * POINTS_PER_PIXEL,
        linestyle=style,
        joinstyle="round",
        alpha=shape.opacity,
        zorder=order,
    )
    axes.add_patch(patch)
