"""Draw the pictures that the embedded model learns: plain, with a toy face, in pixel-art cells, or both."""

import math
import random

from PIL import Image, ImageDraw

from lorakit_cli.demo.training.words import COLOURS, Scene

SIZE = 64
CELL = 8
_OVERSAMPLE = 4
Colour = tuple[int, int, int]
Point = tuple[float, float]

# Where a face sits on each shape: its centre below the shape's, and its size, in units of the shape's radius.
_FACES = {
    "circle": (0.0, 1.05),
    "square": (0.0, 1.05),
    "triangle": (0.33, 0.8),
    "diamond": (0.0, 0.85),
    "star": (0.1, 0.8),
    "heart": (-0.08, 0.95),
    "cross": (0.0, 0.85),
    "flower": (0.0, 1.0),
}
# 8x8 sprites, and the row where the eyes begin and where the mouth sits.
_SPRITES = {
    "circle": ("........ ..####.. .######. .######. .######. .######. ..####.. ........", 2, 5),
    "square": ("........ .######. .######. .######. .######. .######. .######. ........", 2, 5),
    "triangle": ("...##... ...##... ..####.. ..####.. .######. .######. ######## ........", 4, 6),
    "diamond": ("...##... ..####.. .######. ######## ######## .######. ..####.. ...##...", 2, 5),
    "star": ("...##... ...##... ######## .######. ..####.. .######. .##..##. ##....##", 2, 5),
    "heart": ("........ .##..##. ######## ######## .######. ..####.. ...##... ........", 2, 4),
    "cross": ("........ ...##... ...##... .######. .######. ...##... ...##... ........", 3, 5),
    "flower": (".##..##. ######## ######## .######. .######. ######## ######## .##..##.", 2, 5),
}
_EYE_COLUMNS = (2, 5)
_MOUTH_COLUMNS = (3, 4)


def draw(scene: Scene, style: str, rng: random.Random) -> Image.Image:
    """Draw a scene as a 64x64 RGB picture in style `base`, `toy`, `pixel` or `both`."""
    if style in ("pixel", "both"):
        return _draw_cells(scene, face=style == "both")
    return _draw_smooth(scene, face=style == "toy", rng=rng)


def _blend(colour: Colour, other: Colour, share: float) -> Colour:
    r, g, b = (round(a + (z - a) * share) for a, z in zip(colour, other, strict=True))
    return r, g, b


def _lighter(colour: Colour, share: float) -> Colour:
    return _blend(colour, (255, 255, 255), share)


def _darker(colour: Colour, share: float) -> Colour:
    return _blend(colour, (0, 0, 0), share)


def _outline(shape: str) -> list[Point]:
    """Give the corners of a shape around the origin, for a radius of 1."""
    turn = 2 * math.pi / 72
    if shape == "square":
        return [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]
    if shape == "triangle":
        return [(0, -1.05), (1.05, 0.85), (-1.05, 0.85)]
    if shape == "diamond":
        return [(0, -1.15), (1.0, 0), (0, 1.15), (-1.0, 0)]
    if shape == "star":
        radii = (1.15, 0.56)
        angles = [(k, math.pi * (k / 5 - 0.5)) for k in range(10)]
        return [(radii[k % 2] * math.cos(a), radii[k % 2] * math.sin(a) + 0.08) for k, a in angles]
    if shape == "heart":
        return [
            (
                math.sin(turn * k) ** 3 * 1.05,
                -(13 * math.cos(turn * k) - 5 * math.cos(2 * turn * k)
                  - 2 * math.cos(3 * turn * k) - math.cos(4 * turn * k)) / 15.5,
            )
            for k in range(72)
        ]  # fmt: skip
    if shape == "cross":
        a, b = 0.4, 1.0
        return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a),
                (-b, -a), (-a, -a)]  # fmt: skip
    if shape == "flower":
        lobes = [0.86 + 0.21 * math.cos(4 * turn * k - math.pi) for k in range(72)]
        return [(lobe * math.cos(turn * k), lobe * math.sin(turn * k)) for k, lobe in enumerate(lobes)]
    return [(math.cos(turn * k), math.sin(turn * k)) for k in range(72)]


def _draw_smooth(scene: Scene, *, face: bool, rng: random.Random) -> Image.Image:
    shape, fg, bg = scene
    side = SIZE * _OVERSAMPLE
    # A face always sits in one place: eyes are too fine to be learnt sharply where they move about.
    play = 0.0 if face else 1.0
    radius = (0.385 + play * rng.uniform(-0.035, 0.035)) * side
    cx, cy = (side / 2 + play * rng.uniform(-2.5, 2.5) * _OVERSAMPLE for _ in range(2))
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).polygon([(cx + x * radius, cy + y * radius) for x, y in _outline(shape)], fill=255)
    picture = Image.new("RGB", (side, side), COLOURS[bg])
    shading = Image.new("RGB", (1, 2))
    shading.putdata([_lighter(COLOURS[fg], 0.14), _darker(COLOURS[fg], 0.14)])
    picture.paste(shading.resize((side, side), Image.Resampling.BILINEAR), mask=mask)
    if face:
        _add_face(picture, mask, shape, cx, cy, radius)
    return picture.resize((SIZE, SIZE), Image.Resampling.BOX)


def _add_face(picture: Image.Image, mask: Image.Image, shape: str, cx: float, cy: float, radius: float) -> None:
    """Add a glossy highlight, two rimmed eyes and an open smile."""
    down, size = _FACES[shape]
    unit, cy = radius * size, cy + radius * down
    gloss = Image.new("L", picture.size)
    ImageDraw.Draw(gloss).ellipse(
        (cx - 0.72 * radius, cy - 0.82 * radius, cx - 0.2 * radius, cy - 0.5 * radius), fill=150
    )
    clear = Image.new("L", picture.size)
    picture.paste((255, 255, 255), mask=Image.composite(gloss, clear, mask))
    pen = ImageDraw.Draw(picture)
    ink, paper = (20, 16, 24), (255, 255, 255)

    def disc(x: float, y: float, r: float, fill: Colour) -> None:
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    for side in (-1, 1):
        x, y = cx + side * 0.34 * unit, cy - 0.16 * unit
        disc(x, y, 0.29 * unit, ink)
        disc(x, y, 0.24 * unit, paper)
        disc(x + 0.02 * unit, y + 0.04 * unit, 0.14 * unit, ink)
    for grow, fill in ((0.06, ink), (0.0, paper)):
        box = (cx - (0.36 + grow) * unit, cy - (0.12 + grow) * unit,
               cx + (0.36 + grow) * unit, cy + (0.56 + grow) * unit)  # fmt: skip
        pen.chord(box, 12 - 60 * grow, 168 + 60 * grow, fill=fill)


def _draw_cells(scene: Scene, *, face: bool) -> Image.Image:
    """Draw the sprite with three tones, on a faint checkerboard, every cell flat."""
    shape, fg, bg = scene
    text, eyes, mouth = _SPRITES[shape]
    rows = text.split()
    cells = Image.new("RGB", (8, 8))

    def inside(x: int, y: int) -> bool:
        return 0 <= x < 8 and 0 <= y < 8 and rows[y][x] == "#"

    for y in range(8):
        for x in range(8):
            colour = COLOURS[bg]
            colour = _lighter(colour, 0.1) if (x + y) % 2 else _darker(colour, 0.1)
            if inside(x, y):
                colour = COLOURS[fg]
                if not inside(x, y - 1) or not inside(x - 1, y):
                    colour = _lighter(colour, 0.22)
                elif not inside(x, y + 1) or not inside(x + 1, y):
                    colour = _darker(colour, 0.22)
            cells.putpixel((x, y), colour)
    if face:
        bright = sum(COLOURS[fg]) > 150
        for x in _EYE_COLUMNS:
            cells.putpixel((x, eyes), (255, 255, 255))
            cells.putpixel((x, eyes + 1), (12, 10, 14))
        for x in _MOUTH_COLUMNS:
            cells.putpixel((x, mouth), (12, 10, 14) if bright else (255, 255, 255))
    return cells.resize((SIZE, SIZE), Image.Resampling.NEAREST)
