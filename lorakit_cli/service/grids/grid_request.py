"""What `grid` is asked for, checked in every cell before anything heavy is loaded."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.axis import Axis, AxisKind, ablation, axis_names, parse_axis, require_few
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.grid_cell import GridCell
from lorakit_cli.core.grid_names import cell_names
from lorakit_cli.core.grid_states import WeightStates
from lorakit_cli.core.prompt_tags import split_tags
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OptionError
from lorakit_cli.service.default_adapters import choose_adapters
from lorakit_cli.service.grids.cell_keys import CellKeys
from lorakit_cli.service.grids.cell_planning import CellPlanner
from lorakit_cli.service.grids.cell_request import cell_request, command_line
from lorakit_cli.service.grids.grid_folder import GridFolder
from lorakit_cli.service.request import GenerateRequest
from lorakit_cli.sources.library import Library, open_library


@dataclass(frozen=True, slots=True)
class GridRequest:
    """A request for a grid: what its cells have in common, and the axes along which they differ.

    `cell` is the longest side of a picture on the sheet, in pixels; `prompt` of the template may be empty where an
    axis gives it.
    """

    template: GenerateRequest
    out: str
    axes: Sequence[str] = ()
    ablate: bool = False
    seed: int = 0
    cell: int | None = None
    page: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class PreparedGrid:
    """A grid that is known to be possible: its cells with the first axis running fastest, and which are there already.

    `order` lists the states of the weights as they are best put in; `kept` holds the files that need not be drawn.
    """

    request: GridRequest
    axes: tuple[Axis, ...]
    cells: tuple[GridCell, ...]
    order: tuple[int, ...]
    keys: Mapping[str, str]
    folder: GridFolder
    kept: Mapping[str, float | None]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> BaseIndex:
        """The base of all cells."""
        return self.cells[0].plan.base

    @property
    def axis_names(self) -> tuple[str, ...]:
        """What the axes are called."""
        return tuple(axis.name for axis in self.axes)


def prepare_grid(request: GridRequest) -> PreparedGrid:
    """Plan all cells of a grid from headers and configs alone. Raises LorakitError for all that is wrong with it."""
    library = open_library()
    template, axes, factor = _resolved(request, library)
    folder = GridFolder.of(user_path(request.out), overwrite=request.overwrite)
    planner, states = CellPlanner(library, factor), WeightStates()
    values = [tuple(reversed(one)) for one in itertools.product(*(axis.values for axis in reversed(axes)))]
    cells: list[GridCell] = []
    for chosen, name in zip(values, cell_names(axes, values), strict=True):
        prepared = planner.prepare(cell_request(template, axes, chosen, request.seed))
        cells.append(
            GridCell(
                chosen,
                prepared.pictures[0],
                prepared.plan,
                prepared.request.scale,
                states.number(prepared.plan),
                name,
                command_line(prepared),
                prepared.weights[0].sources,
            )
        )
    keys = CellKeys(template.loading)
    wanted = {cell.file: keys.of(cell) for cell in cells} if not template.dry_run or folder.has_index else {}
    kept = folder.kept(wanted)
    return PreparedGrid(
        replace(request, template=template),
        axes,
        tuple(cells),
        tuple(states.order()),
        wanted,
        folder,
        kept,
        tuple(planner.warnings),
        tuple(planner.notes),
    )


def _resolved(request: GridRequest, library: Library) -> tuple[GenerateRequest, tuple[Axis, ...], float]:
    """Read the axes, and name the adapters that they need; also what the base multiplies all scales with."""
    template = request.template
    names = [spec.name for spec in template.adapters]
    prompts = any(text.partition("=")[0].strip() == AxisKind.PROMPT.value for text in request.axes)
    if prompts and template.prompt:
        raise OptionError("an axis gives the prompts; leave PROMPT out")
    if not prompts:
        # Tags of prompts on an axis stay with their own cells.
        prompt, tagged = split_tags(template.prompt or "")
        if not prompt.strip():
            raise OptionError('what is to be drawn? give a PROMPT, or --axis prompt="a|b"')
        template = replace(template, prompt=prompt, adapters=(*template.adapters, *tagged))
        names += [spec.name for spec in tagged]
    saved = choose_adapters(template.base, template.adapters, 1.0, library)
    known = dict.fromkeys([*names, *(spec.name for spec in saved.specs), *saved.library.entries])
    axes = [parse_axis(text, known) for text in request.axes]
    touched = [_adapter_of(axis) for axis in axes]
    slot = any(axis.kind is AxisKind.LORA for axis in axes)
    factor = 1.0
    wanted = [name for name in touched if name and not (slot and name == AxisKind.LORA.value)]
    if wanted or request.ablate:
        chosen = choose_adapters(template.base, template.adapters, 1.0, library, some=request.ablate and not wanted)
        there = {spec.name for spec in chosen.specs}
        if template.adapters or there.issuperset(wanted):
            template, factor = replace(template, adapters=tuple(chosen.specs)), chosen.scale
        missing = [name for name in dict.fromkeys(wanted) if name not in {spec.name for spec in template.adapters}]
        template = replace(template, adapters=(*template.adapters, *map(AdapterSpec.parse, missing)))
    if request.ablate:
        if slot:
            raise OptionError("--ablate and --axis lora contradict each other; name the adapters with --lora")
        axes.insert(0, ablation([spec.name for spec in template.adapters]))
    if not axes:
        raise OptionError(
            "a grid needs an axis, for example --axis toy=0,0.5,1, or --ablate; the axes are "
            f"{', '.join(axis_names())}, block:ADAPTER.BLOCK and every adapter"
        )
    require_few(axes)
    return template, tuple(axes), factor


def _adapter_of(axis: Axis) -> str | None:
    if axis.kind is AxisKind.BLOCK:
        return axis.target.partition(".")[0]
    return axis.target if axis.kind is AxisKind.ADAPTER else None
