"""A sheet as SVG: text stays text, and the same sheet gives the same bytes.

Every shape carries its colour for a light background, which any program understands. A style sheet
replaces the colours where the reader prefers dark ones, the card behind the drawing included: it is
legible on any page.
"""

from html import escape

from alexnet.inspect.drawing.sheet import COLOURS, Shape, Sheet, Text

FONTS = (
    "'Segoe UI',Roboto,'Helvetica Neue',Arial,'Noto Sans','DejaVu Sans',"
    "'PingFang SC','Microsoft YaHei','Noto Sans CJK SC','Source Han Sans SC',sans-serif"
)
LANGUAGE_TAGS = {"en": "en", "zh": "zh-Hans"}
CORNER = 10  # radius of the card's corners


def to_svg(sheet: Sheet) -> str:
    """The text of an SVG file, UTF-8."""
    wide, tall = _number(sheet.width), _number(sheet.height)
    card = f'<rect width="{wide}" height="{tall}" rx="{CORNER}"{_paint("fill", "card")}/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}" role="img" '
            f'xml:lang="{LANGUAGE_TAGS[sheet.language]}" font-family="{FONTS}">',
            f"<title>{escape(sheet.title)}</title>",
            f"<desc>{escape(sheet.description)}</desc>",
            f"<style>{_dark()}</style>",
            card,
            *(_text(shape) if isinstance(shape, Text) else _shape(shape) for shape in sheet.shapes),
            "</svg>\n",
        ]
    )


def _dark() -> str:
    rules = [
        f".{what[0]}-{name.replace(' ', '-')}{{{what}:{dark}}}"
        for name, (_, dark) in COLOURS.items()
        for what in ("fill", "stroke")
    ]
    return "@media (prefers-color-scheme:dark){" + "".join(rules) + "}"


def _paint(what: str, colour: str) -> str:
    return f' class="{what[0]}-{colour.replace(" ", "-")}" {what}="{COLOURS[colour][0]}"'


def _shape(shape: Shape) -> str:
    path = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in shape.points) + "Z" * shape.closed
    names = [
        f"{what[0]}-{colour.replace(' ', '-')}" for what, colour in (("fill", shape.fill), ("stroke", shape.line)) if colour
    ]
    fill = COLOURS[shape.fill][0] if shape.fill else "none"
    words = [f'<path class="{" ".join(names)}" d="{path}" fill="{fill}"']
    if shape.line:
        words.append(f'stroke="{COLOURS[shape.line][0]}" stroke-width="{_number(shape.width)}" stroke-linejoin="round"')
    if shape.dashed:
        words.append('stroke-dasharray="4 3"')
    if shape.opacity != 1:
        words.append(f'opacity="{_number(shape.opacity)}"')
    return " ".join(words) + "/>"


def _text(text: Text) -> str:
    anchor = f' text-anchor="{text.anchor}"' * (text.anchor != "start")
    weight = ' font-weight="600"' * text.bold
    place = f'x="{_number(text.at[0])}" y="{_number(text.at[1])}" font-size="{_number(text.size)}"'
    return f"<text {place}{anchor}{weight}{_paint('fill', text.colour)}>{escape(text.words)}</text>"


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:g}"
