"""The contact sheet of a grid: pictures in columns, rows and sections, each with the value it stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from lorakit_cli.core.axis import Axis
from lorakit_cli.core.grid_cell import GridCell
from lorakit_cli.core.output_file import new_file
from lorakit_cli.service.grids.grid_folder import CELLS, SHEET
from lorakit_cli.service.grids.lettering import Lettering

_PAPER, _INK, _FAINT = "#ffffff", "#1b1f24", "#68707a"
_LEAST, _MOST = 160, 512
_LONGEST_SIDE = 30_000
_MOST_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of a sheet: rows of cells under heads of their own."""

    title: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[GridCell]]]


def draw_sheet(
    axes: Sequence[Axis],
    cells: Sequence[GridCell],
    folder: Path,
    apart: Mapping[str, Mapping[str, float]],
    cell: int | None,
) -> None:
    """Write the sheet; `cell` is the longest side of a picture on it, in pixels. Raises OutputError."""
    sections = _sections(axes, cells)
    with Image.open(folder / CELLS / cells[0].file) as first:
        size = first.size
    for other in cells[1:]:
        with Image.open(folder / CELLS / other.file) as found:
            size = max(size[0], found.width), max(size[1], found.height)
    across = max(len(section.heads) for section in sections)
    down = sum(len(section.rows) for section in sections)
    most = _LONGEST_SIDE // max(across, down) - 60
    paper = _Paper(size, min(cell or _usual(max(size)), max(most, 16)), sections, axes, bool(apart))
    picture = paper.draw(cells[0], folder / CELLS, apart)
    with new_file(folder / SHEET, overwrite=True) as file:
        picture.save(file, "PNG")


def resized(picture: Image.Image, factor: float) -> Image.Image:
    """Make a picture larger by a whole number, each pixel a square, or smaller smoothly."""
    size = max(round(picture.width * factor), 1), max(round(picture.height * factor), 1)
    if size == picture.size:
        return picture
    return picture.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)


def _usual(side: int) -> int:
    return side * -(-_LEAST // side) if side < _LEAST else min(side, _MOST)


def _sections(axes: Sequence[Axis], cells: Sequence[GridCell]) -> list[_Section]:
    across = [value.text for value in axes[0].values]
    if len(axes) == 1:
        # One long row would be too wide for a screen.
        parts = range(0, len(cells), _MOST_COLUMNS)
        return [_Section("", across[k : k + _MOST_COLUMNS], [("", cells[k : k + _MOST_COLUMNS])]) for k in parts]
    down = [value.text for value in axes[1].values]
    rows = [cells[k : k + len(across)] for k in range(0, len(cells), len(across))]
    titles = [f"{axes[2].name} = {value.text}" for value in axes[2].values] if len(axes) > 2 else [""]
    return [
        _Section(title, across, list(zip(down, rows[k * len(down) : (k + 1) * len(down)], strict=True)))
        for k, title in enumerate(titles)
    ]


class _Paper:
    """Measures of a sheet, and the drawing on it."""

    def __init__(
        self, size: tuple[int, int], side: int, sections: Sequence[_Section], axes: Sequence[Axis], notes: bool
    ) -> None:
        factor = side / max(size)
        self.factor = float(max(int(factor), 1)) if factor >= 1 else factor
        self.cell = tuple(max(round(length * self.factor), 1) for length in size)
        self.font = min(max(self.cell[0] // 11, 13), 26)
        self.gap = max(self.cell[0] // 40, 4)
        self.line = round(self.font * 1.5)
        self.sections, self.axes, self.notes = sections, axes, notes
        most = max(self.cell[0], 12 * self.font)
        names = [row for section in sections for row, _ in section.rows if row]
        heads = [Lettering(name, self.font, most).width for name in names]
        if len(axes) > 1:
            heads.append(Lettering(axes[1].name, self.font, most).width)
        self.margin = 2 * self.gap + 8
        self.side = max(heads) + 2 * self.gap if heads else 0
        self.note = round(self.font * 0.85)

    def draw(self, first: GridCell, folder: Path, apart: Mapping[str, Mapping[str, float]]) -> Image.Image:
        """Draw everything."""
        across = max(len(section.heads) for section in self.sections)
        step = self.cell[0] + self.gap
        width = max(2 * self.margin + self.side + across * step - self.gap, 30 * self.font)
        prompt_varies = any(axis.kind.value == "prompt" for axis in self.axes)
        height = 2 * self.margin + (0 if prompt_varies else self.line + self.gap)
        row_height = self.cell[1] + self.gap + (2 * round(self.note * 1.3) if self.notes else 0)
        for section in self.sections:
            height += (self.line if section.title else 0) + 2 * self.line + len(section.rows) * row_height + self.gap
        sheet = Image.new("RGB", (width, height - self.gap), _PAPER)
        pen, top = ImageDraw.Draw(sheet), self.margin
        if not prompt_varies:
            self._write(pen, first.spec.prompt, (self.margin, top), width - 2 * self.margin, _INK)
            top += self.line + self.gap
        for section in self.sections:
            if section.title:
                self._write(pen, section.title, (self.margin, top), width - 2 * self.margin, _INK)
                top += self.line
            left = self.margin + self.side
            self._write(pen, self.axes[0].name, (left, top), width - left - self.margin, _FAINT)
            if len(self.axes) > 1:
                self._write(pen, self.axes[1].name, (self.margin, top + self.line), self.side, _FAINT)
            for k, head in enumerate(section.heads):
                self._centred(pen, head, (left + k * step, top + self.line), _INK)
            top += 2 * self.line
            for name, row in section.rows:
                middle = top + (self.cell[1] - self.font) // 2
                self._write(pen, name, (self.margin, middle), self.side - self.gap, _INK)
                for k, cell in enumerate(row):
                    self._cell(sheet, pen, folder / cell.file, (left + k * step, top), apart.get(cell.file, {}))
                top += row_height
            top += self.gap
        return sheet

    def _cell(
        self,
        sheet: Image.Image,
        pen: ImageDraw.ImageDraw,
        file: Path,
        place: tuple[int, int],
        apart: Mapping[str, float],
    ) -> None:
        with Image.open(file) as picture:
            shown = resized(picture.convert("RGB"), self.factor)
        sheet.paste(
            shown, (place[0] + (self.cell[0] - shown.width) // 2, place[1] + (self.cell[1] - shown.height) // 2)
        )
        for k, (name, distance) in enumerate(apart.items()):
            text = Lettering(f"{distance:.3f} from {name}", self.note, self.cell[0])
            top = place[1] + self.cell[1] + 2 + k * round(self.note * 1.3)
            pen.text((place[0] + (self.cell[0] - text.width) // 2, top), text.text, _FAINT, font=text.font)

    def _write(self, pen: ImageDraw.ImageDraw, text: str, place: tuple[int, int], most: int, colour: str) -> None:
        letters = Lettering(text, self.font, most)
        pen.text(place, letters.text, colour, font=letters.font)

    def _centred(self, pen: ImageDraw.ImageDraw, text: str, place: tuple[int, int], colour: str) -> None:
        letters = Lettering(text, self.font, self.cell[0])
        pen.text((place[0] + (self.cell[0] - letters.width) // 2, place[1]), letters.text, colour, font=letters.font)
