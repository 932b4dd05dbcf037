"""Decide which tensors change and by how much: the plan that every verb prints, executes or verifies."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakit_cli.core.architectures import adapter_family, base_family, wrong_base
from lorakit_cli.core.base_index import BaseIndex, BaseTensor
from lorakit_cli.core.block_scales import BlockScales, BoundScales
from lorakit_cli.core.lora_file import LoraFile, LoraLayer, Shape
from lorakit_cli.errors import NothingMatchedError, OptionError, UnmatchedLayersError, WrongBaseError

# Finding near names costs a comparison with every module of the base, so only the first few unmatched get one.
_NEAREST_FOR = 5


@dataclass(frozen=True, slots=True)
class PlannedAdapter:
    """An adapter as it takes part in a plan."""

    name: str
    file: LoraFile
    weight: float
    block_scales: BlockScales | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """One adapter's part in one tensor: `strength * layer.scale * delta(layer)`."""

    adapter: str
    file: Path
    layer: LoraLayer
    strength: float
    block_scale: float


@dataclass(frozen=True, slots=True)
class Target:
    """A base tensor that may change, by component and its name in the file."""

    component: str
    tensor: str


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A part of an adapter that changes nothing in this base, and why."""

    adapter: str
    stem: str
    reason: str
    nearest: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """For every base tensor that an adapter touches, the terms to add; and next to it all that did not match.

    `strength` is weight x block scale x global scale; alpha/rank stays with the layer. Terms of strength 0 are
    kept, so that what was asked for can be shown.
    """

    base: BaseIndex
    adapters: tuple[PlannedAdapter, ...]
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
        for target, terms in self.terms.items():
            touched = sum(term.adapter == adapter for term in terms)
            if touched:
                counts[target.component] = counts.get(target.component, 0) + touched
        return counts

    def require_all_matched(self) -> None:
        """Raise UnmatchedLayersError if any layer or key of any adapter changes nothing."""
        if self.unmatched:
            first = self.unmatched[0]
            near = f" (nearest: {first.nearest})" if first.nearest else ""
            raise UnmatchedLayersError(
                f"{len(self.unmatched)} layers or keys do not fit the base, first {first.stem} of {first.adapter}: "
                f"{first.reason}{near}; without --strict the rest is applied"
            )


def build_plan(base: BaseIndex, adapters: Sequence[PlannedAdapter], global_scale: float = 1.0) -> Plan:
    """Match adapters with a base.

    Raises WrongBaseError for an adapter of another family, NothingMatchedError for one without a single match.
    """
    if not math.isfinite(global_scale):
        raise OptionError(f"--scale {global_scale} is not a finite number")
    terms: dict[Target, list[Term]] = {}
    unmatched: list[Unmatched] = []
    bound = {
        adapter.name: adapter.block_scales.bind(base, adapter.name) for adapter in adapters if adapter.block_scales
    }
    for adapter in adapters:
        mistake = wrong_base(adapter.file, base)
        if mistake:
            raise WrongBaseError(f"adapter {adapter.name} does not fit {base.path.name}: {mistake}; try another --base")
        found, missed = _match(base, adapter, global_scale, bound.get(adapter.name))
        if not found:
            raise NothingMatchedError(_nothing_matched(base, adapter, missed))
        for target, term in found:
            terms.setdefault(target, []).append(term)
        unmatched.extend(missed)
    ordered = {target: tuple(parts) for target, parts in terms.items()}
    return Plan(base, tuple(adapters), ordered, tuple(unmatched), bound)


def _match(
    base: BaseIndex, adapter: PlannedAdapter, global_scale: float, scales: BoundScales | None
) -> tuple[list[tuple[Target, Term]], list[Unmatched]]:
    """Write the name of every module of the base in the adapter's layout, and look it up in the file."""
    left = {layer.stem: layer for layer in adapter.file.layers}
    found: list[tuple[Target, Term]] = []
    taken: dict[Target, str] = {}
    unmatched: list[Unmatched] = []
    stems: list[str] = []
    for component in base.components.values():
        for module, tensor in component.modules.items():
            for spelling in component.spellings(module):
                for stem in adapter.file.format.stems(component.name, spelling):
                    stems.append(stem)
                    layer = left.pop(stem, None)
                    if layer is None:
                        continue
                    target = Target(component.name, tensor)
                    reason = _misfit(layer, component.tensors[tensor])
                    if target in taken:
                        reason = f"changes the same tensor as {taken[target]}"
                    if reason:
                        unmatched.append(Unmatched(adapter.name, stem, reason))
                        continue
                    taken[target] = stem
                    block_scale = scales.scale_of(component.name, module) if scales else 1.0
                    strength = adapter.weight * block_scale * global_scale
                    if not math.isfinite(strength):
                        raise OptionError(f"weight and scales of {adapter.name} multiply to what no number can hold")
                    found.append((target, Term(adapter.name, adapter.file.path, layer, strength, block_scale)))
    unmatched.extend(_left_over(base, adapter, left, stems, _NEAREST_FOR - len(unmatched)))
    return found, unmatched


def _left_over(
    base: BaseIndex, adapter: PlannedAdapter, left: Mapping[str, LoraLayer], stems: Sequence[str], hints: int
) -> Iterator[Unmatched]:
    """Say of all that no module of the base asked for why it has no effect; the first few get the nearest name."""
    for stem, layer in left.items():
        known = layer.component in base.components
        reason = "no such module in the base" if known else f"the base has no {layer.component}"
        hints -= 1
        close = difflib.get_close_matches(stem, stems, 1, 0.8) if known and hints >= 0 else []
        yield Unmatched(adapter.name, stem, reason, close[0] if close else None)
    for key in adapter.file.unknown_keys:
        yield Unmatched(adapter.name, key, "not a known part of an adapter")


def _misfit(layer: LoraLayer, tensor: BaseTensor) -> str | None:
    """Say why a layer cannot be added to a tensor, None where it can."""
    if _squeezed(layer.delta_shape) == _squeezed(tensor.info.shape):
        return None
    return f"wrong shape: the layer changes {list(layer.delta_shape)}, the base has {list(tensor.info.shape)}"


def _squeezed(shape: Shape) -> Shape:
    """Drop the kernel of a 1x1 convolution: such a layer and a linear one stand for each other."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _nothing_matched(base: BaseIndex, adapter: PlannedAdapter, missed: Sequence[Unmatched]) -> str:
    family = adapter_family(adapter.file)
    made_for = f": it is made for {family}, the base is {base_family(base)}" if family else ""
    reason = f" ({missed[0].stem}: {missed[0].reason})" if missed else ""
    return f"adapter {adapter.name} changes nothing in {base.path.name}{made_for}{reason}; try another --base"
