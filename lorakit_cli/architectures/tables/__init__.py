"""The parameters of the published models and their shapes, kept as data so that reading them loads no model library."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lorakit_cli.core.architecture import Shape

HERE = Path(__file__).parent
TEXT_ENCODERS = "text_encoders"
WIDTHS = "widths"

Table = Mapping[str, Shape]


@cache
def sizes(name: str) -> Mapping[str, Mapping[str, Table]]:
    """Give the tables of an architecture, by size and component, with runs of blocks left as `expand` takes them.

    `name` is that of a file here without its ending: `sdxl`, `flux1`. Text encoders that several models share are
    the same table.
    """
    return {
        size: {
            part: _text_encoders()[table] if isinstance(table, str) else _table(table) for part, table in parts.items()
        }
        for size, parts in _read(name).items()
    }


@cache
def widths(name: str) -> Mapping[str, frozenset[int]]:
    """Give for each size of an architecture how many values the rows of its parameters have, without its tables."""
    return {size: frozenset(own) for size, own in _read(WIDTHS)[name].items()}


@cache
def _text_encoders() -> Mapping[str, Table]:
    return {name: _table(table) for name, table in _read(TEXT_ENCODERS).items()}


@cache
def _read(name: str) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return tables


def _table(shapes: Mapping[str, list[int]]) -> Table:
    return {template: tuple(shape) for template, shape in shapes.items()}
