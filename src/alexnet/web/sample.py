"""A picture for a page that was not given one: a sunflower under the sky, drawn here.

It has what the first layer looks for: edges in every direction, blobs of opposite colours, fine and
coarse texture.
"""

import io
import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT, SHARP = 640, 480, 2  # drawn SHARP times as large and shrunk, for smooth edges
CENTRE, HEAD, PETALS, PETAL = (0.52, 0.46), 0.13, 21, 0.2  # shares of the height, but the centre's of both sides
SEEDS, GOLDEN = 420, math.pi * (3 - math.sqrt(5))
PETAL_COLOURS = ((248, 196, 28), (255, 214, 64))
NAME = "sunflower"


@cache
def picture() -> bytes:
    """The bytes of a PNG of 640 x 480 pixels, the same each time."""
    width, height = SHARP * WIDTH, SHARP * HEIGHT
    image = _background(width, height)
    pen = ImageDraw.Draw(image)
    x, y = CENTRE[0] * width, CENTRE[1] * height
    pen.line([(x, y), (x - 0.03 * width, height)], fill=(62, 124, 44), width=round(0.035 * height))
    for side in (-1, 1):
        pen.polygon(_leaf(x, 0.86 * height, 0.3 * height, side * 0.55 - math.pi / 2, 0.3), fill=(74, 146, 52))
    for ring, colour in enumerate(PETAL_COLOURS):
        for petal in range(PETALS):
            angle = 2 * math.pi * (petal + ring / 2) / PETALS
            root = (x + 0.7 * HEAD * height * math.cos(angle), y + 0.7 * HEAD * height * math.sin(angle))
            pen.polygon(_leaf(*root, (PETAL - 0.02 * ring) * height, angle, 0.24), fill=colour, outline=(196, 130, 12))
    _seeds(pen, x, y, HEAD * height)
    file = io.BytesIO()
    image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(file, "PNG")
    return file.getvalue()


def _background(width: int, height: int) -> Image.Image:
    """Sky above, grass of fine blades below."""
    down = np.linspace(0, 1, height)[:, None, None]
    sky = (1 - down) * np.array([70, 130, 210]) + down * np.array([196, 222, 244])
    noise = np.random.default_rng(2012).normal(0, 1, (1, width, 1))
    blades = np.array([80, 140, 60]) + 26 * noise * np.array([0.6, 1, 0.5])
    hill = 0.74 + 0.03 * np.sin(np.linspace(0, 2 * math.pi, width))[None, :, None]
    return Image.fromarray(np.where(down > hill, blades, sky).clip(0, 255).astype(np.uint8))


def _leaf(x: float, y: float, length: float, angle: float, breadth: float) -> list[tuple[float, float]]:
    """A pointed oval that begins at (x, y)."""
    steps = [step / 12 for step in range(13)]
    sides = [(along, breadth * length * math.sin(math.pi * along) / 2) for along in steps]
    outline = sides + [(along, -across) for along, across in reversed(sides)]
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x + along * length * cos - across * sin, y + along * length * sin + across * cos) for along, across in outline]


def _seeds(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    """Seeds in the spiral of a sunflower."""
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(74, 42, 20))
    for seed in range(SEEDS):
        far, angle = 0.96 * radius * math.sqrt(seed / SEEDS), seed * GOLDEN
        at = (x + far * math.cos(angle), y + far * math.sin(angle))
        pen.circle(at, 0.022 * radius, fill=(150, 96, 40))
