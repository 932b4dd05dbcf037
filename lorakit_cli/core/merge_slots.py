"""Where the layers of several adapters meet: the modules of a layout, each with what the adapters change there."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.block_names import block_of
from lorakit_cli.core.block_scales import BlockScales
from lorakit_cli.core.conversion import Slot, shape_of, shares_of, slots_of
from lorakit_cli.core.kind import Shape
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.match import Match
from lorakit_cli.core.new_layer import Place, Share
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.errors import UnsupportedError

_VECTORS = frozenset({"full", "bias", "norm", "norm-bias", "lora-bias"})
_FLAT = 2


class Merged(NamedTuple):
    """An adapter that takes part: its name, file, weight, block scales and the modules of its layers."""

    name: str
    file: LoraFile
    weight: float
    block_scales: BlockScales | None
    matches: tuple[Match, ...]


class Contribution(NamedTuple):
    """What one layer adds to a module: rows of its delta, at a strength of weight x block scale."""

    adapter: str
    file: Path
    share: Share
    strength: float

    @property
    def inner(self) -> int | None:
        """The inner size of two factors that stand for it, None where there are none."""
        kind = self.share.layer.kind
        if kind.product:
            return self.share.layer.rank
        return kind.thin.inner(self.share.layer.shapes) if kind.thin else None


class MergeSlot(NamedTuple):
    """A parameter of a module under its new name, the shape of it, and all that changes it."""

    place: Place
    parameter: str
    contributions: tuple[Contribution, ...]

    @property
    def shape(self) -> Shape:
        """The shape of what changes."""
        return self.place.shape

    @property
    def matrix(self) -> tuple[int, int]:
        """The shape as a matrix: all but the rows taken together."""
        return self.shape[0], prod(self.shape[1:])

    @property
    def is_matrix(self) -> bool:
        """Whether two factors can stand for the change, and not only its values."""
        return len(self.shape) >= _FLAT

    @property
    def block(self) -> str:
        """The block that it lies in."""
        return block_of(self.place.component, self.place.name.parts[0])

    @property
    def adapters(self) -> frozenset[str]:
        """The adapters that change it."""
        return frozenset(part.adapter for part in self.contributions)

    @property
    def rank(self) -> int:
        """The ranks of all that changes it, added up; what has none counts as a whole matrix."""
        whole = min(self.matrix) if self.is_matrix else 0
        return sum(part.share.layer.rank or whole for part in self.contributions)

    @property
    def highest_rank(self) -> int:
        """The highest rank that the sum of all that changes it can have; that of a LoHa is the square of its own."""
        whole = min(self.matrix)
        return min(whole, sum(part.inner or whole for part in self.contributions))


def merge_slots(base: BaseIndex, adapters: Sequence[Merged], target: TargetLayout) -> tuple[MergeSlot, ...]:
    """Bring the layers of adapters together by the modules of a layout. What has strength 0 is left out.

    No change may depend on the base's values. Raises UnsupportedError for what the layout cannot hold, and
    BlockScalesError.
    """
    found: dict[tuple[str, str, str], list[tuple[Slot, Contribution]]] = {}
    named: dict[str, Mapping[str, Slot]] = {}
    for adapter in adapters:
        scales = adapter.block_scales.bind(base, adapter.name) if adapter.block_scales else None
        for match in adapter.matches:
            _require_mergeable(adapter, match, target)
            component = match.component
            if component not in named:
                named[component] = slots_of(base, component, target)
            # The parts of one layer lie in one block.
            block_scale = scales.scale_of(component, match.parameters[0]) if scales else 1.0
            strength = adapter.weight * block_scale
            if not strength:
                continue
            for slot, share in shares_of(match, named[component]):
                key = (component, slot.stem, match.layer.kind.parameter)
                part = Contribution(adapter.name, adapter.file.data, share, strength)
                found.setdefault(key, []).append((slot, part))
    return tuple(_slot(parameter, parts, target) for (_, _, parameter), parts in found.items())


def _slot(parameter: str, parts: Sequence[tuple[Slot, Contribution]], target: TargetLayout) -> MergeSlot:
    slot, first = parts[0]
    shape = shape_of(slot.component, slot.name.parts[0], first.share.layer)
    place = Place(slot.stem, slot.component.name, slot.name, (first.share.total, *shape[1:]), target)
    return MergeSlot(place, parameter, tuple(part for _, part in parts))


def _require_mergeable(adapter: Merged, match: Match, target: TargetLayout) -> None:
    layer = match.layer
    kind = layer.kind
    if kind.name == "embedding":
        raise UnsupportedError(f"{layer.stem} of {adapter.name} is LoRA of an embedding, which no layout here holds")
    if len(layer.delta_shape) >= _FLAT:
        return
    held = "bias" if kind.name == "lora-bias" else kind.name
    if kind.name not in _VECTORS or held not in target.kinds:
        raise UnsupportedError(
            f"{layer.stem} of {adapter.name} is {kind.name} of a vector, which the {target.name} layout cannot hold; "
            "--to kohya does"
        )
