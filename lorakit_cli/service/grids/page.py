"""One page that holds a whole grid: all pictures inside it, nothing to fetch, to be opened from a file."""

import base64
import html
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from lorakit_cli.core.grid_cell import GridCell
from lorakit_cli.core.output_file import new_file
from lorakit_cli.service.grids.grid_folder import CELLS, PAGE
from lorakit_cli.service.grids.grid_request import PreparedGrid

_PARTS = {"style": "page.css", "script": "page.js"}


def write_page(prepared: PreparedGrid, folder: Path, apart: Mapping[str, Mapping[str, float]]) -> None:
    """Write the page. Raises OutputError."""
    names = prepared.axis_names
    prompts = {cell.spec.prompt for cell in prepared.cells}
    title = prompts.pop() if len(prompts) == 1 else f"{len(prepared.cells)} pictures"
    grid = {
        "title": title,
        "axes": [{"name": axis.name, "values": [value.text for value in axis.values]} for axis in prepared.axes],
        "cells": [_cell(cell, names, folder, apart.get(cell.file, {})) for cell in prepared.cells],
    }
    own = files("lorakit_cli.service.grids")
    page = own.joinpath("page.html").read_text(encoding="utf-8")
    for name, part in _PARTS.items():
        page = page.replace(f"/*{name}*/", own.joinpath(part).read_text(encoding="utf-8"))
    # Last, so that nothing in a prompt is taken for a place to fill.
    before, after = page.split("<!--data-->")
    page = before.replace("<!--title-->", html.escape(title)) + _json(grid) + after
    with new_file(folder / PAGE, overwrite=True) as file:
        file.write(page.encode("utf-8", "replace"))


def _cell(cell: GridCell, names: tuple[str, ...], folder: Path, apart: Mapping[str, float]) -> dict[str, Any]:
    picture = base64.b64encode((folder / CELLS / cell.file).read_bytes()).decode()
    settings = cell.spec.settings
    facts = {
        "prompt": cell.spec.prompt,
        "negative": cell.spec.negative,
        "adapters": ", ".join(f"{one.name}:{one.weight:g}" for one in cell.plan.adapters) or "none",
        "block scales": ", ".join(
            f"{one.name} {json.dumps(one.block_scales.as_json())}" for one in cell.plan.adapters if one.block_scales
        ),
        "scale": None if cell.scale == 1 else f"{cell.scale:g}",
        "seed": cell.spec.seed,
        **{name: getattr(settings, name) for name in type(settings).__dataclass_fields__},
    }
    return {
        "values": [value.text for value in cell.values],
        "name": ", ".join(f"{name} {value.text}" for name, value in zip(names, cell.values, strict=True)),
        "picture": f"data:image/png;base64,{picture}",
        "facts": {name: str(fact) for name, fact in facts.items() if fact not in (None, "", (), {})},
        "apart": dict(apart),
        "command": cell.command,
    }


def _json(value: Any) -> str:
    """Write JSON that cannot end the element it stands in."""
    text = json.dumps(value)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
