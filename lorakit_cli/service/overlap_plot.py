"""Draw what adapters have in common as a heat map: a square for each pair in all, and a row for each block."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lorakit_cli.core.output_file import new_file
from lorakit_cli.service.overlap_report import OverlapReport, PairOverlap
from lorakit_cli.service.strength_plot import BACKGROUND, COLORS, Color, shortened

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# The same way and against each other, apart for those who see few colours.
SAME, AGAINST = COLORS[1], COLORS[0]
_INK: Color = (34, 34, 38)
_FAINT: Color = (110, 110, 116)
_NONE: Color = (226, 226, 222)
_MARGIN = 28
_TITLE = 84
_CELL_WIDTH, _CELL_HEIGHT = 92, 30
_LABEL = 220
_GAP = 46


def plot(report: OverlapReport, path: Path, *, overwrite: bool = False) -> None:
    """Write a heat map of a report as PNG. Raises OutputExistsError or OutputError."""
    picture = draw(report)
    with new_file(path, overwrite=overwrite, parents=True) as file:
        picture.save(file, "PNG", optimize=True)


def draw(report: OverlapReport) -> Image.Image:
    """Draw a heat map: adapters against adapters in all, then blocks against pairs."""
    names = [adapter.name for adapter in report.adapters]
    pairs = list(combinations(names, 2))
    rows = list(dict.fromkeys((part.component, part.block) for part in report.blocks))
    width = 2 * _MARGIN + _LABEL + _CELL_WIDTH * max(len(names), len(pairs), 4)
    top = _TITLE + _CELL_HEIGHT
    below = top + len(names) * _CELL_HEIGHT + _GAP + _CELL_HEIGHT
    picture = Image.new("RGB", (width, below + len(rows) * _CELL_HEIGHT + _MARGIN), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    fonts = {size: ImageFont.load_default(size) for size in (13, 15, 24)}
    pen.text((_MARGIN, 36), "Overlap of adapters", _INK, fonts[24], anchor="ls")
    told = "cosine of their changes: 1 the same, 0 unrelated, -1 one undoes the other"
    pen.text((_MARGIN, 62), told, _FAINT, fonts[15], anchor="ls")
    found = {(pair.one, pair.other): pair.cosine for pair in report.pairs}
    square = [
        [1.0 if one == other else found.get((one, other), found.get((other, one))) for other in names] for one in names
    ]
    _grid(pen, top, names, names, square, fonts[13])
    blocks = {(part.component, part.block, part.one, part.other): part for part in report.blocks}
    cells = [[_cosine(blocks.get((*row, *pair))) for pair in pairs] for row in rows]
    labels = [f"{component} {block}" for component, block in rows]
    _grid(pen, below, labels, [f"{one} {other}" for one, other in pairs], cells, fonts[13])
    return picture


def _cosine(part: PairOverlap | None) -> float | None:
    return part.cosine if part else None


def _grid(
    pen: ImageDraw.ImageDraw,
    top: int,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[float | None]],
    font: Font,
) -> None:
    """Draw one table of cells with what its rows and columns are."""
    left = _MARGIN + _LABEL
    for place, text in enumerate(columns):
        x = left + place * _CELL_WIDTH + _CELL_WIDTH // 2
        pen.text((x, top - 8), shortened(text, font, _CELL_WIDTH - 8), _FAINT, font, anchor="ms")
    for row, (text, values) in enumerate(zip(rows, cells, strict=True)):
        y = top + row * _CELL_HEIGHT
        label = shortened(text, font, _LABEL - 16)
        pen.text((left - 12, y + _CELL_HEIGHT // 2), label, _INK, font, anchor="rm")
        for place, value in enumerate(values):
            x = left + place * _CELL_WIDTH
            pen.rectangle((x, y, x + _CELL_WIDTH - 2, y + _CELL_HEIGHT - 2), color_of(value))
            number = "-" if value is None else f"{value:+.2f}"
            middle = x + _CELL_WIDTH // 2, y + _CELL_HEIGHT // 2 - 1
            pen.text(middle, number, _INK, font, anchor="mm")


def color_of(value: float | None) -> Color:
    """Give the colour of a cosine: paler the nearer it is to 0, grey where there is none."""
    if value is None:
        return _NONE
    full, part = (SAME if value > 0 else AGAINST), min(abs(value), 1.0)
    red, green, blue = (round(ground + (own - ground) * part) for own, ground in zip(full, BACKGROUND, strict=True))
    return red, green, blue
