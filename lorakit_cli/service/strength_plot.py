"""Draw the strengths of an adapter's blocks as a picture: one bar each, in a panel of norms and one of ratios."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lorakit_cli.core.output_file import new_file
from lorakit_cli.service.strength import BlockStrength, StrengthReport

Color = tuple[int, int, int]

BACKGROUND: Color = (252, 252, 250)
# One per component, apart in lightness too, for those who see few colours (after Okabe and Ito, 2008).
COLORS: tuple[Color, ...] = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0))
_INK: Color = (34, 34, 38)
_FAINT: Color = (110, 110, 116)
_GRID: Color = (226, 226, 222)

_MARGIN = 28
_ROW = 22
_BAR = 14
_GROUP = 34
_TITLE = 84
_AXIS = 30
_GAP = 40
_BAR_ROOM = 420
_NUMBER_ROOM = 92
_MOST_LABEL = 380
_TICKS = 5


@dataclass(frozen=True, slots=True)
class _Panel:
    """One set of bars: where it starts, what it shows, and the value at its right end."""

    title: str
    left: int
    values: Sequence[float | None]
    end: float
    percent: bool

    def x(self, value: float) -> int:
        return self.left + round(_BAR_ROOM * value / self.end)

    def text(self, value: float | None) -> str:
        if value is None:
            return "not known"
        return f"{100 * value:.3g} %" if self.percent else f"{value:.3g}"


def plot(report: StrengthReport, path: Path, *, overwrite: bool = False) -> None:
    """Write a bar chart of a report as PNG. Raises OutputExistsError or OutputError."""
    picture = draw(report)
    with new_file(path, overwrite=overwrite) as file:
        picture.save(file, "PNG", optimize=True)


def draw(report: StrengthReport) -> Image.Image:
    """Draw a bar chart: blocks in groups by component, ratios in a second panel where there are any."""
    fonts = {size: ImageFont.load_default(size) for size in (13, 15, 16, 24)}
    names = [shortened(block.block, fonts[15], _MOST_LABEL) for block in report.blocks]
    label_room = max((math.ceil(fonts[15].getlength(name)) for name in names), default=0)
    panels = _panels(report.blocks, _MARGIN + 14 + label_room + 14)
    groups = [(name, len(list(group))) for name, group in groupby(block.component for block in report.blocks)]
    width = max(panels[-1].left + _BAR_ROOM + _NUMBER_ROOM + _MARGIN, 640)
    bottom = _TITLE + _AXIS + sum(_GROUP + count * _ROW for _, count in groups) + 10
    picture = Image.new("RGB", (width, bottom + _AXIS + _MARGIN // 2), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    title = shortened(_clean(report.adapter), fonts[24], width - 2 * _MARGIN)
    pen.text((_MARGIN, 36), title, _INK, fonts[24], anchor="ls")
    pen.text((_MARGIN, 62), _subtitle(report), _FAINT, fonts[15], anchor="ls")
    for panel in panels:
        _axis(pen, panel, _TITLE + _AXIS, bottom, fonts[15], fonts[13])
    y = _TITLE + _AXIS
    row = 0
    for number, (component, count) in enumerate(groups):
        color = COLORS[number % len(COLORS)]
        heading = shortened(component, fonts[16], width - 2 * _MARGIN)
        pen.text((_MARGIN, y + _GROUP - 12), heading, color, fonts[16], anchor="ls", stroke_width=0.4)
        y += _GROUP
        for index in range(row, row + count):
            middle = y + _ROW // 2
            pen.text((_MARGIN + 14, middle), names[index], _INK, fonts[15], anchor="lm")
            for panel in panels:
                _bar(pen, panel, panel.values[index], middle, color, fonts[13])
            y += _ROW
        row += count
    return picture


def _panels(blocks: Sequence[BlockStrength], left: int) -> list[_Panel]:
    norms = [block.norm for block in blocks]
    panels = [_Panel("norm of the change at weight 1", left, norms, _end(norms), False)]
    ratios = [block.relative for block in blocks]
    if any(ratio is not None for ratio in ratios):
        left += _BAR_ROOM + _NUMBER_ROOM + _GAP
        panels.append(_Panel("relative to the base's weights", left, ratios, _end(ratios, 100) / 100, True))
    return panels


def _end(values: Sequence[float | None], unit: float = 1.0) -> float:
    """Give a round number at or above the largest value, in units of which the axis counts."""
    largest = unit * max((value for value in values if value is not None), default=0.0)
    return _step(largest) * math.ceil(largest / _step(largest) - 1e-9) if largest else 1.0


def _step(largest: float) -> float:
    """Give a distance of ticks: 1, 2 or 5 times a power of ten, for some five of them."""
    power = 10.0 ** math.floor(math.log10(largest / _TICKS))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * _TICKS >= largest * (1 - 1e-9))


def _axis(
    pen: ImageDraw.ImageDraw,
    panel: _Panel,
    top: int,
    bottom: int,
    title_font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Draw a panel's title, its ticks with numbers, and lines down from them."""
    pen.text((panel.left, top - 12), panel.title, _INK, title_font, anchor="ls")
    unit = 100 if panel.percent else 1
    step = _step(unit * panel.end) / unit
    for tick in range(round(panel.end / step) + 1):
        x = panel.x(tick * step)
        pen.line((x, top, x, bottom), _GRID if tick else _FAINT)
        number = f"{tick * step * unit:.6g}" + (" %" if panel.percent else "")
        pen.text((x, bottom + 8), number, _FAINT, font, anchor="mt")


def _bar(
    pen: ImageDraw.ImageDraw,
    panel: _Panel,
    value: float | None,
    middle: int,
    color: Color,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Draw one bar with its number; whatever is not zero leaves a mark of one pixel."""
    end = panel.left
    if value:
        end = max(panel.x(value), panel.left + 1)
        pen.rectangle((panel.left + 1, middle - _BAR // 2, end, middle + _BAR // 2 - 1), color)
    place, text = (end + 7, middle), panel.text(value)
    # No line of the grid may run through the number.
    pen.rectangle(pen.textbbox(place, text, font, anchor="lm"), BACKGROUND)
    pen.text(place, text, _FAINT if value is None else _INK, font, anchor="lm")


def _subtitle(report: StrengthReport) -> str:
    layers, unknown = len(report.layers), sum(layer.norm is None for layer in report.layers)
    left_out = f", {unknown} of them not known and left out" if unknown else ""
    return f"{layers} layers in {len(report.blocks)} blocks{left_out}"


def _clean(text: str) -> str:
    """Keep to the letters that Pillow's own font has: accents are dropped, other scripts become question marks."""
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    """Cut the middle out of a name that is too wide for its room."""
    text = _clean(text)
    keep = len(text)
    short = text
    while font.getlength(short) > room and keep > 2:
        keep -= 1
        short = text[: (keep + 1) // 2] + "..." + text[-(keep // 2) :]
    return short
