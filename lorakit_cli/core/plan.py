"""Decide which tensors change and by how much: the plan that every verb prints, executes or verifies."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.block_scales import BlockScales
from lorakit_cli.core.bound_scales import BoundScales
from lorakit_cli.core.lora_file import LoraFile, LoraLayer
from lorakit_cli.core.match import Match, Part, Target
from lorakit_cli.core.matching import Unmatched, match_layers
from lorakit_cli.core.shown import shown
from lorakit_cli.core.verdict import judge
from lorakit_cli.errors import (
    NothingMatchedError,
    OptionError,
    UnmatchedLayersError,
    WrongBaseError,
    did_you_mean,
)


@dataclass(frozen=True, slots=True)
class PlannedAdapter:
    """An adapter as it takes part in a plan."""

    name: str
    file: LoraFile
    weight: float
    block_scales: BlockScales | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """One adapter's part in one tensor: `strength * delta(layer)`, of that delta the rows of `part`.

    `whole` lists all parts of what the layer changes, its own among them: an algorithm that works on the base's
    value needs the value of them all.
    """

    adapter: str
    file: Path
    layer: LoraLayer
    strength: float
    block_scale: float
    part: Part
    whole: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """For every base tensor that an adapter touches, the terms to add; and next to it all that did not match.

    `strength` is weight x block scale x global scale; alpha/rank stays with the layer. Terms of strength 0 are
    kept, so that what was asked for can be shown.
    """

    base: BaseIndex
    adapters: tuple[PlannedAdapter, ...]
    matches: Mapping[str, tuple[Match, ...]]
    terms: Mapping[Target, tuple[Term, ...]]
    unmatched: tuple[Unmatched, ...]
    block_scales: Mapping[str, BoundScales]

    def changes(self) -> Iterator[tuple[Target, tuple[Term, ...]]]:
        """Yield the tensors that really change, each with its terms of strength other than 0."""
        for target, terms in self.terms.items():
            acting = tuple(term for term in terms if term.strength)
            if acting:
                yield target, acting

    def matched(self, adapter: str) -> dict[str, int]:
        """Count an adapter's matched layers by component."""
        counts: dict[str, int] = {}
        for match in self.matches[adapter]:
            component = match.component
            counts[component] = counts.get(component, 0) + 1
        return counts

    def only(self, components: Collection[str]) -> "Plan":
        """Give the part of the plan that is in these components.

        Raises OptionError for one that the base does not have, NothingMatchedError for an adapter that has no part.
        """
        for name in components:
            if name not in self.base.components:
                near = did_you_mean(name, self.base.components) or "."
                raise OptionError(f"the base has no component {name!r}{near} It has {', '.join(self.base.components)}")
        matches = {
            name: tuple(match for match in own if match.parts[0].target.component in components)
            for name, own in self.matches.items()
        }
        for name, own in matches.items():
            if not own:
                raise NothingMatchedError(
                    f"adapter {name} changes nothing in {', '.join(components)}; it has layers for "
                    f"{', '.join(self.matched(name))}"
                )
        terms = {target: own for target, own in self.terms.items() if target.component in components}
        return replace(self, matches=matches, terms=terms)

    def require_all_matched(self, otherwise: str = "without --strict the rest is applied") -> None:
        """Raise UnmatchedLayersError if any layer or key of any adapter changes nothing."""
        if self.unmatched:
            first = self.unmatched[0]
            near = f" (nearest: {first.nearest})" if first.nearest else ""
            raise UnmatchedLayersError(
                f"{len(self.unmatched)} layers or keys do not fit the base, first {shown(first.stem)} of "
                f"{first.adapter}: {first.reason}{near}; {otherwise}"
            )


def build_plan(base: BaseIndex, adapters: Sequence[PlannedAdapter], global_scale: float = 1.0) -> Plan:
    """Match adapters with a base.

    Raises WrongBaseError for an adapter of another family, NothingMatchedError for one without a single match.
    """
    if not math.isfinite(global_scale):
        raise OptionError(f"--scale {global_scale} is not a finite number")
    terms: dict[Target, list[Term]] = {}
    matches: dict[str, tuple[Match, ...]] = {}
    unmatched: list[Unmatched] = []
    bound = {
        adapter.name: adapter.block_scales.bind(base, adapter.name) for adapter in adapters if adapter.block_scales
    }
    for adapter in adapters:
        found, missed = match_layers(base, adapter.name, adapter.file)
        verdict = judge(base, adapter.file, found, missed)
        if verdict.wrong:
            kind = WrongBaseError if found else NothingMatchedError
            raise kind(f"adapter {adapter.name} does not fit {base.path.name}: {verdict.text}; try another --base")
        matches[adapter.name] = found
        unmatched.extend(missed)
        for match in found:
            for part, term in _terms(adapter, match, global_scale, bound.get(adapter.name)):
                terms.setdefault(part.target, []).append(term)
    ordered = {target: tuple(parts) for target, parts in terms.items()}
    return Plan(base, tuple(adapters), matches, ordered, tuple(unmatched), bound)


def _terms(
    adapter: PlannedAdapter, match: Match, global_scale: float, scales: BoundScales | None
) -> Iterator[tuple[Part, Term]]:
    for part in match.parts:
        block_scale = scales.scale_of(part.target.component, part.parameter) if scales else 1.0
        strength = adapter.weight * block_scale * global_scale
        if not math.isfinite(strength):
            raise OptionError(f"weight and scales of {adapter.name} multiply to what no number can hold")
        yield part, Term(adapter.name, adapter.file.data, match.layer, strength, block_scale, part, match.parts)
