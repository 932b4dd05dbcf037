"""What the cells of a grid are called: by their values, in names that every system takes."""

import re
from collections.abc import Iterable, Sequence

from lorakit_cli.core.axis import Axis
from lorakit_cli.core.axis_values import AxisValue
from lorakit_cli.core.picture_names import SUFFIX, slug

_PLAIN = re.compile(r"[A-Za-z0-9_.+-]{1,32}", re.ASCII)


def cell_names(axes: Sequence[Axis], cells: Iterable[Sequence[AxisValue]]) -> list[str]:
    """Name the file of each cell, without a folder; no two differ in case alone."""
    names: list[str] = []
    taken: set[str] = set()
    for values in cells:
        stem = "_".join(f"{_part(axis.name)}={_part(value.text)}" for axis, value in zip(axes, values, strict=True))
        name, number = stem, 2
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        names.append(name + SUFFIX)
    return names


def _part(text: str) -> str:
    # Three of them and a temporary suffix fit into what file systems allow, in any script.
    return text if _PLAIN.fullmatch(text) else slug(text)[:20]
