"""Show a grid to a person: what it would hold, and how far the pictures of an ablation are apart."""

from typing import TYPE_CHECKING, Any

from lorakit_cli.commands._output import printable, table
from lorakit_cli.core.shown import shown

if TYPE_CHECKING:
    from lorakit_cli.service.grids.drawing import GridReport
    from lorakit_cli.service.grids.grid_request import PreparedGrid

_MOST_CELLS = 50


def planned(prepared: "PreparedGrid") -> dict[str, Any]:
    """Describe a grid that was only prepared, as JSON has it."""
    return {
        "out": str(prepared.folder.path),
        "base": str(prepared.base.path),
        "axes": {axis.name: tuple(value.text for value in axis.values) for axis in prepared.axes},
        "cells": [
            {
                "file": f"cells/{cell.file}",
                "values": cell.at(prepared.axis_names),
                "state": cell.state,
                "kept": cell.file in prepared.kept,
                "command": cell.command,
            }
            for cell in prepared.cells
        ],
        "weight_states": len(prepared.order),
        "kept": len(prepared.kept),
        "warnings": prepared.warnings,
    }


def plan_lines(prepared: "PreparedGrid") -> list[str]:
    """Write what a grid would hold as lines of text."""
    lines = [printable(f"base {prepared.base.path}")]
    for axis in prepared.axes:
        lines.append(printable(f"axis {axis.name}: {shown(', '.join(value.text for value in axis.values))}"))
    kept = f", {len(prepared.kept)} of them there already" if prepared.kept else ""
    lines.append(f"{len(prepared.cells)} cells{kept}; {len(prepared.order)} states of the weights")
    for cell in prepared.cells[:_MOST_CELLS]:
        mark = " (kept)" if cell.file in prepared.kept else ""
        lines.append(printable(f"  cells/{cell.file}{mark}"))
    if len(prepared.cells) > _MOST_CELLS:
        lines.append(f"  … and {len(prepared.cells) - _MOST_CELLS} more; --json lists all")
    lines.append(printable(f"would write {prepared.folder.path}"))
    return lines


def distance_lines(report: "GridReport") -> list[str]:
    """Write the distances of an ablation as a table, nothing for other grids."""
    cells = [cell for cell in report.cells if cell.distances]
    if not cells:
        return []
    heads = [*report.axes, "from base", "from all"]
    rows = [[*cell.values.values(), *(f"{cell.distances[name]:.4f}" for name in ("base", "all"))] for cell in cells]
    return table([heads, *rows])
