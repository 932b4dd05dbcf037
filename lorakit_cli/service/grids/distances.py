"""How far pictures of an ablation are from each other."""

from collections.abc import Mapping
from pathlib import Path

import numpy
import numpy.typing
from PIL import Image

from lorakit_cli.core.axis import Axis, AxisKind
from lorakit_cli.core.grid_cell import GridCell

_Pixels = numpy.typing.NDArray[numpy.float64]


def distances(axes: tuple[Axis, ...], cells: tuple[GridCell, ...], folder: Path) -> dict[str, dict[str, float]]:
    """Give for each file of an ablation its distance to the picture of the base and to that with all adapters.

    Root mean square of the differences of 8 bit pixels, 0 to 1; nothing for a grid without ablation.
    """
    place = next((k for k, axis in enumerate(axes) if axis.kind is AxisKind.ABLATION), None)
    if place is None:
        return {}
    # The base comes first, and no set is larger than that of all.
    everyone = max((value.value for value in axes[place].values if isinstance(value.value, frozenset)), key=len)
    pixels = {cell.file: _pixels(folder / cell.file) for cell in cells}
    ends: dict[object, dict[str, _Pixels]] = {}
    for cell in cells:
        rest = cell.values[:place] + cell.values[place + 1 :]
        taking_part = cell.values[place].value
        for name, which in (("base", frozenset()), ("all", everyone)):
            if taking_part == which:
                ends.setdefault(rest, {})[name] = pixels[cell.file]
    return {
        cell.file: {
            name: round(float(numpy.sqrt(numpy.mean((pixels[cell.file] - other) ** 2))), 6)
            for name, other in _ends(ends, cell, place).items()
        }
        for cell in cells
    }


def _ends(ends: Mapping[object, dict[str, _Pixels]], cell: GridCell, place: int) -> dict[str, _Pixels]:
    return ends[cell.values[:place] + cell.values[place + 1 :]]


def _pixels(path: Path) -> _Pixels:
    with Image.open(path) as picture:
        return numpy.asarray(picture.convert("RGB"), dtype=numpy.float64) / 255
