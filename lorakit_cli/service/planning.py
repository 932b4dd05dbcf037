"""From adapter specs and a base to a Plan, without loading a weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import BlockScales
from lorakit_cli.core.plan import Plan, PlannedAdapter, build_plan
from lorakit_cli.service.adapter_scales import adapter_scales
from lorakit_cli.service.base_choice import open_base_for
from lorakit_cli.service.quantized import attached_note, require_not_quantized
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.sources.library import Library, open_library
from lorakit_cli.sources.local import FoundAdapter, find_adapters


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan with the adapters as they were found. `notes` say what was chosen for the user."""

    plan: Plan
    found: tuple[FoundAdapter, ...]
    notes: tuple[str, ...] = ()


def make_plan(
    base: str | None,
    specs: Sequence[AdapterSpec],
    *,
    scale: float = 1.0,
    block_scales: Mapping[str, BlockScales] | None = None,
    strict: bool = False,
    allow_pickle: bool = False,
    variant: str | None = None,
    require_plain: bool = False,
    library: Library | None = None,
) -> Planned:
    """Plan what the adapters do to the base. Raises LorakitError for all that is wrong with the request.

    `require_plain`: UnsupportedError also for a quantized base, whose weights nothing can be added to.
    """
    library = library or open_library()
    found = tuple(find_adapters(specs, library, allow_pickle=allow_pickle))
    scales = adapter_scales(specs, block_scales or {})
    files = [open_adapter(adapter.path, allow_pickle=allow_pickle) for adapter in found]
    opened = open_base_for(base, library, found, files, variant=variant, allow_pickle=allow_pickle)
    if require_plain:
        require_not_quantized(opened.base)
    adapters = [
        PlannedAdapter(adapter.name, file, adapter.weight, scales.get(adapter.name, adapter.block_scales))
        for adapter, file in zip(found, files, strict=True)
    ]
    plan = build_plan(opened.base, adapters, scale)
    if strict:
        plan.require_all_matched()
    notes = (opened.note, attached_note(plan))
    return Planned(plan, found, tuple(note for note in notes if note))
