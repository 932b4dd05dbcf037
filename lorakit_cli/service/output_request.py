"""What an output made of a base and adapters is asked for, checked against both before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import BlockScales
from lorakit_cli.core.output_place import require_place
from lorakit_cli.core.plan import Plan
from lorakit_cli.core.recipe import Recipe, recipe_of
from lorakit_cli.core.shown import shown
from lorakit_cli.core.two_denoisers import only_the_first
from lorakit_cli.errors import RecipeError
from lorakit_cli.service.default_adapters import choose_adapters
from lorakit_cli.service.hashing import sha256_of
from lorakit_cli.service.planning import make_plan
from lorakit_cli.service.recalled_adapters import require_read_alike
from lorakit_cli.sources.hub import hub_recipe
from lorakit_cli.sources.library import open_library
from lorakit_cli.sources.local import EMBEDDED, FoundAdapter, is_embedded


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """A request for an output, as the user wrote it."""

    out: Path | None
    base: str | None = None
    adapters: Sequence[AdapterSpec] = ()
    scale: float = 1.0
    block_scales: Mapping[str, BlockScales] = field(default_factory=dict)
    variant: str | None = None
    overwrite: bool = False
    allow_unmatched: bool = False
    allow_pickle: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class PreparedOutput:
    """A request that is known to be possible.

    `scale` multiplies all weights: that of the request, and that of the folder its adapters were saved in. `earlier` is
    the recipe of a base that is an output itself, `notes` say what was chosen for the user.
    """

    request: OutputRequest
    plan: Plan
    found: tuple[FoundAdapter, ...]
    specs: tuple[AdapterSpec, ...]
    scale: float
    earlier: Recipe | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def base_source(self) -> str:
        """What the base was asked for by."""
        return EMBEDDED if is_embedded(self.plan.base.path) else self.request.base or self.plan.base.label


def prepare_output(
    request: OutputRequest,
    *,
    components: Sequence[str] = (),
    again: str | None = None,
    recipe: Recipe | None = None,
) -> PreparedOutput:
    """Plan a request from headers alone, in these components if any are named. Raises LorakitError.

    `again` says what to do about an adapter that is in the base already, None: nothing is wrong with that. `recipe`:
    the adapters are to be those of that, read as they were then.
    """
    chosen = choose_adapters(request.base, request.adapters, request.scale, open_library(), some=True)
    planned = make_plan(
        request.base,
        chosen.specs,
        scale=chosen.scale,
        block_scales=request.block_scales,
        allow_pickle=request.allow_pickle,
        variant=request.variant,
        require_plain=True,
        library=chosen.library,
    )
    plan = planned.plan
    if recipe:
        require_read_alike(recipe, plan)
    if not request.allow_unmatched:
        plan.require_all_matched("--allow-unmatched leaves them out")
    if components:
        plan = plan.only(components)
    earlier = recipe_of(plan.base.path) if plan.base.is_local else hub_recipe(plan.base)
    if earlier and again:
        _require_new(plan, earlier, again)
    found, warnings = planned.found, tuple(_warnings(plan))
    return PreparedOutput(request, plan, found, chosen.specs, chosen.scale, earlier, warnings, notes=planned.notes)


def require_output_place(request: OutputRequest, plan: Plan, *, folder: bool) -> None:
    """See that the output can be written without harm to base and adapters. Raises OutputError."""
    assert request.out is not None
    sources = [adapter.file.path for adapter in plan.adapters]
    if isinstance(plan.base.path, Path):
        sources.append(plan.base.path)
    require_place(request.out, sources, folder=folder, overwrite=request.overwrite)


def _require_new(plan: Plan, earlier: Recipe, again: str) -> None:
    """Raise RecipeError for an adapter that is in the base already."""
    inside = {adapter.sha256: adapter for adapter in earlier.all_adapters}
    for adapter in plan.adapters if inside else ():
        known = inside.get(sha256_of(adapter.file.path))
        if known:
            raise RecipeError(
                f"adapter {adapter.name} is fused into {plan.base.label} already, at {known.weight:g}; {again}"
            )


def _warnings(plan: Plan) -> list[str]:
    found = []
    for adapter in plan.adapters:
        missed = [part for part in plan.unmatched if part.adapter == adapter.name]
        if missed:
            first = f"{shown(missed[0].stem)}: {missed[0].reason}"
            found.append(f"{len(missed)} layers or keys of {adapter.name} are left out, first {first}")
        remark = only_the_first(plan.base, plan.matches[adapter.name])
        if remark:
            found.append(f"{adapter.name}: {remark}")
    return found
