"""One cell of a grid: where it stands, what it shows, and the state of the weights it needs."""

from collections.abc import Mapping
from dataclasses import dataclass

from lorakit_cli.core.axis_values import AxisValue
from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.core.plan import Plan


@dataclass(frozen=True, slots=True)
class GridCell:
    """One cell: its values in the order of the axes, its picture and its file in the grid's folder.

    `command` makes the same picture alone, `sources` say what its adapters were asked for by.
    """

    values: tuple[AxisValue, ...]
    spec: PictureSpec
    plan: Plan
    scale: float
    state: int
    file: str
    command: str
    sources: Mapping[str, str]

    def at(self, names: tuple[str, ...]) -> Mapping[str, str]:
        """Give the texts of the values under the names of their axes."""
        return dict(zip(names, (value.text for value in self.values), strict=True))
