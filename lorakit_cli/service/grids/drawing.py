"""Draw a prepared grid: load the base once, draw what is missing, and put sheet, index and page together."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from lorakit_cli.core.grid_cell import GridCell
from lorakit_cli.core.output_claim import output_claim
from lorakit_cli.core.output_file import new_file
from lorakit_cli.core.plan import Plan
from lorakit_cli.core.recipe import RecipeBase
from lorakit_cli.core.write_error import write_error
from lorakit_cli.errors import LorakitError
from lorakit_cli.service.devices import choose_device
from lorakit_cli.service.encoder_memo import EncoderMemo
from lorakit_cli.service.generating import Progress
from lorakit_cli.service.grids.distances import distances
from lorakit_cli.service.grids.grid_folder import CELLS, INDEX, PAGE, SCHEMA, SHEET
from lorakit_cli.service.grids.grid_request import PreparedGrid
from lorakit_cli.service.grids.sheet import draw_sheet
from lorakit_cli.service.memory import enough_memory, saving_advice
from lorakit_cli.service.picture_file import save_picture
from lorakit_cli.service.picture_record import UsedAdapter, picture_record, recorded_base, used_adapters
from lorakit_cli.service.pipeline import choose_dtype
from lorakit_cli.service.quiet import hushed
from lorakit_cli.service.scheduling import require_known
from lorakit_cli.service.session import Session


@dataclass(frozen=True, slots=True)
class DrawnCell:
    """One cell of a finished grid; `distances` are those of an ablation, `kept` is true where nothing was drawn."""

    file: str
    values: Mapping[str, str]
    seconds: float | None
    kept: bool
    distances: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GridReport:
    """What was made: paths, axes with the texts of their values, and cells with the first axis running fastest."""

    out: str
    sheet: str
    index: str
    page: str | None
    axes: Mapping[str, tuple[str, ...]]
    cells: tuple[DrawnCell, ...]
    drawn: int
    kept: int
    weight_states: int
    seconds: float
    warnings: tuple[str, ...]


def draw_grid(prepared: PreparedGrid, progress: Progress | None = None, *, verbose: bool = False) -> GridReport:
    """Draw what is not there yet, and write sheet, index and page. Raises LorakitError."""
    begin = time.monotonic()
    folder = prepared.folder.path
    loading = prepared.request.template.loading
    device = choose_device(loading.device)
    advice = saving_advice(loading, device, choose_dtype(loading.dtype, device, prepared.base))
    with ExitStack() as stack:
        stack.enter_context(output_claim(folder, parents=True, remark=None))
        stack.enter_context(hushed(verbose=verbose))
        stack.enter_context(enough_memory(advice))
        seconds: dict[str, float | None] = dict(prepared.kept)
        _draw_missing(prepared, seconds, progress)
        apart = distances(prepared.axes, prepared.cells, folder / CELLS)
        prepared.folder.write_index(_index(prepared, seconds, apart))
        size = prepared.request.cell
        draw_sheet(prepared.axes, prepared.cells, folder, apart, size)
        if prepared.request.page:
            from lorakit_cli.service.grids.page import write_page

            write_page(prepared, folder, apart)
    return GridReport(
        out=str(folder),
        sheet=str(folder / SHEET),
        index=str(folder / INDEX),
        page=str(folder / PAGE) if prepared.request.page else None,
        axes={axis.name: tuple(value.text for value in axis.values) for axis in prepared.axes},
        cells=tuple(
            DrawnCell(
                f"{CELLS}/{cell.file}",
                cell.at(prepared.axis_names),
                seconds[cell.file],
                cell.file in prepared.kept,
                apart.get(cell.file, {}),
            )
            for cell in prepared.cells
        ),
        drawn=len(prepared.cells) - len(prepared.kept),
        kept=len(prepared.kept),
        weight_states=len(prepared.order),
        seconds=round(time.monotonic() - begin, 2),
        warnings=prepared.warnings,
    )


def _draw_missing(prepared: PreparedGrid, seconds: dict[str, float | None], progress: Progress | None) -> None:
    """Draw the cells that are not kept, state after state; after an error or Ctrl-C what is done stays."""
    rank = {state: place for place, state in enumerate(prepared.order)}
    missing = [cell for cell in prepared.cells if cell.file not in prepared.kept]
    missing.sort(key=lambda cell: rank[cell.state])
    folder = prepared.folder
    if not missing:
        return
    for cell in missing:
        require_known(cell.spec.settings, prepared.base)
    session = Session(prepared.base, prepared.request.template.loading)
    try:
        (folder.path / CELLS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder.path, error) from error
    folder.clear([cell.file for cell in prepared.cells], prepared.kept)
    # From here on every picture that is there is the one that the index says, however the run ends.
    folder.write_index(_index(prepared, seconds, {}))
    pen = _Pen(session, sum(_steps(session, cell) for cell in missing), progress)
    for count, cell in enumerate(missing):
        begin = time.monotonic()
        try:
            pen.draw(cell, prepared)
        except LorakitError as error:
            where = ", ".join(f"{name}={text}" for name, text in cell.at(prepared.axis_names).items())
            done = f"{len(prepared.kept) + count} of {len(prepared.cells)} pictures are in {folder.path}"
            raise type(error)(f"{where}: {error}; {done}") from error
        seconds[cell.file] = round(time.monotonic() - begin, 3)


class _Pen:
    """Draws cells with one session, which it changes only where the next cell needs other weights."""

    def __init__(self, session: Session, steps: int, progress: Progress | None) -> None:
        self._session = session
        self._memo = EncoderMemo(session.pipeline)
        self._state: int | None = None
        self._done, self._steps, self._progress = 0, steps, progress
        self._base: RecipeBase | None = None
        self._used: dict[tuple[str, ...], tuple[UsedAdapter, ...]] = {}

    def draw(self, cell: GridCell, prepared: PreparedGrid) -> None:
        """Draw and write one cell. Raises LorakitError."""
        if cell.state != self._state:
            self._state = None
            self._session.put_in(cell.plan)
            self._state = cell.state
        self._memo.expect(cell.plan)

        def count(step: int) -> None:
            if self._progress:
                self._progress(self._done + step, self._steps)

        picture = self._session.draw(cell.spec, count)
        self._done += _steps(self._session, cell)
        self._base = self._base or recorded_base(cell.plan)
        made_with = picture_record(
            self._session,
            cell.plan,
            cell.spec,
            picture,
            self._adapters(cell.plan),
            cell.scale,
            base=self._base,
            sources=cell.sources,
        )
        with new_file(prepared.folder.path / CELLS / cell.file, overwrite=True) as file:
            save_picture(picture, file, made_with)

    def _adapters(self, plan: Plan) -> tuple[UsedAdapter, ...]:
        """Describe the adapters of a plan; files that are the same are not hashed again."""
        key = tuple(f"{adapter.name}={adapter.file.path}" for adapter in plan.adapters)
        if key not in self._used:
            self._used[key] = used_adapters(plan)
        pairs = zip(self._used[key], plan.adapters, strict=True)
        return tuple(replace(used, weight=adapter.weight) for used, adapter in pairs)


def _steps(session: Session, cell: GridCell) -> int:
    return int(session.options(cell.spec)["num_inference_steps"])


def _index(
    prepared: PreparedGrid, seconds: Mapping[str, float | None], apart: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Describe a grid for scripts, and for the next run into its folder."""
    others = {} if prepared.folder.overwrite else dict(prepared.folder.pictures)
    return {
        "schema": SCHEMA,
        "axes": [
            {"name": axis.name, "kind": axis.kind.value, "values": [value.text for value in axis.values]}
            for axis in prepared.axes
        ],
        "base": str(prepared.base.path),
        "cells": [
            {
                "file": f"{CELLS}/{cell.file}",
                "values": dict(cell.at(prepared.axis_names)),
                **asdict(cell.spec),
                "scale": cell.scale,
                "adapters": {adapter.name: adapter.weight for adapter in cell.plan.adapters},
                "block_scales": {
                    adapter.name: adapter.block_scales.as_json()
                    for adapter in cell.plan.adapters
                    if adapter.block_scales
                },
                "seconds": seconds.get(cell.file),
                "distances": apart.get(cell.file),
                "command": cell.command,
            }
            for cell in prepared.cells
        ],
        "pictures": others | dict(prepared.keys),
        "seconds": {file: took for file, took in seconds.items() if took is not None},
    }
