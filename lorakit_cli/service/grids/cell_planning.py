"""Plan the cells of a grid: everything that is the same in several of them is read and checked once."""

from collections.abc import Mapping
from dataclasses import replace

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.block_scales import BlockScales, read_block_scales
from lorakit_cli.core.plan import Plan, build_plan
from lorakit_cli.core.prompt_tags import split_tags
from lorakit_cli.errors import BaseModelError, BlockScalesError
from lorakit_cli.service.default_adapters import choose_adapters
from lorakit_cli.service.few_step_settings import suit
from lorakit_cli.service.grids.cell_request import CellRequest
from lorakit_cli.service.request import GenerateRequest, Prepared, Weights, prepare_unsuited
from lorakit_cli.sources.library import Library

_DENOISERS = ("unet", "transformer")


class CellPlanner:
    """Prepares cells one after another; requests that differ in weights, scales and seeds alone share their files.

    `factor` multiplies all scales, as a saved base may ask for.
    """

    def __init__(self, library: Library, factor: float = 1.0) -> None:
        self._library = library
        self._factor = factor
        self._alike: dict[str, Prepared] = {}
        self._plans: dict[str, Plan] = {}
        self._base: BaseIndex | None = None
        self.warnings: dict[str, None] = {}
        self.notes: dict[str, None] = {}

    def prepare(self, cell: CellRequest) -> Prepared:
        """Prepare one cell, its request settled: adapters by name, without tags. Raises LorakitError."""
        request = self._settled(cell.request)
        key = repr(_without_weights(request))
        if key not in self._alike:
            # With the weights that adapters have of their own; each cell then puts in those it gives.
            self._alike[key] = prepare_unsuited(replace(_without_weights(request), seeds=request.seeds))
            self.warnings |= dict.fromkeys(self._alike[key].warnings)
        alike = self._alike[key]
        plan = self._plan(request, cell.blocks, alike, key)
        scales = {
            adapter.name: adapter.block_scales
            for adapter in plan.adapters
            if adapter.block_scales and (adapter.name in request.block_scales or adapter.name in cell.blocks)
        }
        settled = replace(request, block_scales=scales)
        sources = {spec.name: spec.source for spec in request.adapters}
        weights = Weights(plan, request.scale, sources)
        suited = suit(alike.asked, plan, request.scale, alike.weights[0].few_steps)
        self.notes |= dict.fromkeys(suited.notes)
        self.warnings |= dict.fromkeys(suited.warnings)
        picture = replace(alike.pictures[0], seed=int(request.seeds[0]), settings=suited.settings)
        return replace(alike, request=settled, weights=(weights,), pictures=(picture,))

    def _settled(self, request: GenerateRequest) -> GenerateRequest:
        prompt, tagged = split_tags(request.prompt or "")
        named, factor = (*request.adapters, *tagged), self._factor
        if not named:
            chosen = choose_adapters(request.base, (), 1.0, self._library)
            named, factor = chosen.specs, factor * chosen.scale
        return replace(request, prompt=prompt, adapters=named, scale=request.scale * factor)

    def _plan(
        self, request: GenerateRequest, blocks: Mapping[str, Mapping[str, float]], alike: Prepared, key: str
    ) -> Plan:
        base = self._base = self._base or alike.plan.base
        if alike.plan.base.path != base.path:
            raise BaseModelError(
                f"the adapters are for different bases, {base.path} and {alike.plan.base.path}; choose with --base"
            )
        weights = {spec.name: spec.weight for spec in request.adapters if spec.weight is not None}
        name = repr((key, sorted(weights.items()), request.scale, blocks))
        if name not in self._plans:
            adapters = [
                replace(
                    adapter,
                    weight=weights.get(adapter.name, adapter.weight),
                    block_scales=_with_blocks(adapter.name, adapter.block_scales, blocks, base),
                )
                for adapter in alike.plan.adapters
            ]
            self._plans[name] = build_plan(base, adapters, request.scale)
        return self._plans[name]


def _without_weights(request: GenerateRequest) -> GenerateRequest:
    specs = tuple(replace(spec, weight=None, weight_text=None) for spec in request.adapters)
    return replace(request, adapters=specs, scale=1.0, seeds=())


def _with_blocks(
    adapter: str, scales: BlockScales | None, blocks: Mapping[str, Mapping[str, float]], base: BaseIndex
) -> BlockScales | None:
    if adapter not in blocks:
        return scales
    entries = scales.as_json() if scales else {}
    if isinstance(entries, str):
        raise BlockScalesError(f"block scales of {adapter}: a block axis changes JSON, not the block weights {entries}")
    for dotted, scale in blocks[adapter].items():
        path = dotted.split(".")
        if path[0] not in base.components:
            path.insert(0, next((name for name in _DENOISERS if name in base.components), path[0]))
        here = entries
        for step in path[:-1]:
            here = here.setdefault(step, {})
            if not isinstance(here, dict):
                raise BlockScalesError(
                    f"block scales of {adapter}: {step} has one scale already, so that none of {dotted} alone can "
                    "change; give it by its parts"
                )
        here[path[-1]] = scale
    return read_block_scales(adapter, entries)
