"""A plan as a report: what would change, what did not match, and what block scales came out at."""

from dataclasses import dataclass

from lorakit_cli.core.blocks import Position
from lorakit_cli.core.bound_scales import BoundScales
from lorakit_cli.core.families import adapter_family, base_family
from lorakit_cli.core.plan import Plan, PlannedAdapter
from lorakit_cli.core.resolved_scales import ResolvedScale, Touched, position_of, resolve
from lorakit_cli.core.two_denoisers import only_the_first
from lorakit_cli.service.unmatched_part import UnmatchedPart


@dataclass(frozen=True, slots=True)
class AdapterPlan:
    """One adapter in a plan; `matched` counts layers by component, `remark` says where it might not be meant to go."""

    name: str
    path: str
    architecture: str | None
    algorithms: tuple[str, ...]
    ranks: tuple[int, ...]
    weight: float
    layers: int
    matched: dict[str, int]
    strengths: tuple[float, float]
    block_scales: tuple[ResolvedScale, ...]
    remark: str | None


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a plan does; `changed` counts base tensors by component."""

    base: str
    architecture: str
    adapters: tuple[AdapterPlan, ...]
    changed: dict[str, int]
    unmatched: tuple[UnmatchedPart, ...]


def report_plan(plan: Plan) -> PlanReport:
    """Describe a plan."""
    changed: dict[str, int] = {}
    for target, _ in plan.changes():
        changed[target.component] = changed.get(target.component, 0) + 1
    return PlanReport(
        plan.base.label,
        base_family(plan.base),
        tuple(_adapter(plan, adapter) for adapter in plan.adapters),
        changed,
        tuple(UnmatchedPart(part.adapter, part.stem, part.reason, part.nearest) for part in plan.unmatched),
    )


def _adapter(plan: Plan, adapter: PlannedAdapter) -> AdapterPlan:
    strengths = [term.strength for terms in plan.terms.values() for term in terms if term.adapter == adapter.name]
    scales = plan.block_scales.get(adapter.name)
    return AdapterPlan(
        adapter.name,
        str(adapter.file.path),
        adapter_family(adapter.file),
        adapter.file.kinds,
        adapter.file.ranks,
        adapter.weight,
        len(adapter.file.layers),
        plan.matched(adapter.name),
        (min(strengths), max(strengths)),
        resolve(scales, _touched(plan, adapter.name, scales)) if scales else (),
        only_the_first(plan.base, plan.matches[adapter.name]),
    )


def _touched(plan: Plan, adapter: str, scales: BoundScales) -> dict[tuple[str, Position | None], Touched]:
    """Say where an adapter has layers, and how strongly they act."""
    layers: dict[tuple[str, Position | None], set[int]] = {}
    strengths: dict[tuple[str, Position | None], float] = {}
    for target, terms in plan.terms.items():
        for term in terms:
            if term.adapter == adapter:
                place = target.component, position_of(scales, target.component, term.part.parameter)
                layers.setdefault(place, set()).add(id(term.layer))
                strengths[place] = term.strength
    return {place: Touched(len(found), strengths[place]) for place, found in layers.items()}
