"""Block scales that fit a base: the number of every place in it."""

from collections.abc import Mapping
from typing import Any

from lorakit_cli.core.base_index import BaseComponent
from lorakit_cli.core.block_grammar import BlockScale, PartScale
from lorakit_cli.core.blocks import Blocks, Position, blocks_of
from lorakit_cli.core.record import Record
from lorakit_cli.errors import BlockScalesError, did_you_mean

OTHER = "other"
"""What stands outside all blocks and was not named."""


class BoundComponent(Record):
    """The scale of every place in a component; `named` lists the groups and names that something was said of."""

    blocks: Blocks
    values: Mapping[Position, float]
    named: tuple[str, ...]

    def scale_of(self, module: str) -> float:
        """Give the scale of a module or of one of its parameters."""
        return self.values[self.blocks.locate(module)]


class BoundScales(Record):
    """Block scales that are known to fit a base; a component that is not among them has 1."""

    components: Mapping[str, float | BoundComponent]

    def scale_of(self, component: str, module: str) -> float:
        """Give the scale of a module or of one of its parameters, 1.0 where nothing was said about it."""
        scale = self.components.get(component, 1.0)
        return scale.scale_of(module) if isinstance(scale, BoundComponent) else scale


def bind_component(where: str, component: BaseComponent, parts: Mapping[str, PartScale]) -> BoundComponent:
    """Hold the parts of a component's scale against its blocks. Raises BlockScalesError that lists what exists."""
    blocks = blocks_of(component)
    given: dict[str, PartScale] = {}
    for name, entry in parts.items():
        part = blocks.shortened(name)
        if part in given:
            raise BlockScalesError(f"{where}: {part} is given twice, once as {name}")
        if part not in (*blocks.groups, *blocks.outside, OTHER):
            raise _no_such_part(where, name, blocks)
        given[part] = entry
    values: dict[Position, float] = {}
    for group in blocks.groups:
        values |= _group(f"{where}.{group}", blocks, group, given.get(group, 1.0))
    outside: dict[str, Any] = {name: given[name] for name in (*blocks.outside, OTHER) if name in given}
    for name, entry in outside.items():
        if not isinstance(entry, float):
            raise BlockScalesError(f"{where}.{name} is no block and has none, so takes one number")
    values |= {Position(name): outside.get(name, outside.get(OTHER, 1.0)) for name in blocks.outside}
    return BoundComponent(blocks, values, tuple(given))


def _no_such_part(where: str, name: str, blocks: Blocks) -> BlockScalesError:
    near = did_you_mean(name, [*blocks.groups, *blocks.outside]) or "."
    groups = ", ".join(f"{group}{_extent(blocks, group)}" for group in blocks.groups)
    outside = f"{', '.join(blocks.outside)}; {OTHER} means the rest of these"
    exists = f"{groups}, and outside of them {outside}" if groups else f"no blocks, only {outside}"
    return BlockScalesError(f"{where} has no part {name!r}{near} It has {exists}")


def _extent(blocks: Blocks, group: str) -> str:
    numbers = list(blocks.groups[group])
    return f" ({blocks.block_name(numbers[0], numbers[-1])})" if blocks.stack else ""


def _group(where: str, blocks: Blocks, group: str, entry: PartScale) -> dict[Position, float]:
    """Give every place of a group its number. Raises BlockScalesError."""
    counts = blocks.groups[group]
    places = blocks.positions(group)
    if isinstance(entry, Mapping):
        return dict.fromkeys(places, 1.0) | _spans(where, blocks, group, entry)
    if not isinstance(entry, tuple):
        return dict.fromkeys(places, entry)
    if not blocks.stack and not blocks.is_single(group):
        raise BlockScalesError(
            f'{where}: a list belongs to one block, such as {{"block_0": [...]}}; the blocks are {_listed(counts)}'
        )
    if len(entry) != (len(places) if blocks.stack else counts[0]):
        raise _wrong_length(where, entry, len(places) if blocks.stack else counts[0])
    return dict(zip(places, entry, strict=True))


def _spans(where: str, blocks: Blocks, group: str, entry: Mapping[Any, BlockScale]) -> dict[Position, float]:
    counts = blocks.groups[group]
    values: dict[Position, float] = {}
    for span, scale in entry.items():
        if blocks.is_single(group):
            raise BlockScalesError(f"{where} has no {span.text}; the mid block takes one number or one list")
        missing = next((number for number in range(span.first, span.last + 1) if number not in counts), None)
        if missing is not None or span.named is blocks.stack:
            exists = _numbers(blocks, group) if blocks.stack else _listed(counts)
            of = "" if missing is None or span.first == span.last else f"{blocks.block_name(missing, missing)} of "
            raise BlockScalesError(f"{where} has no {of}{span.text}; it has {exists}")
        for number in range(span.first, span.last + 1):
            own = [Position(group, number, layer) for layer in range(max(counts[number], 1))]
            if isinstance(scale, tuple) and len(scale) != counts[number]:
                raise _wrong_length(f"{where}.{span.text}", scale, counts[number], blocks)
            values |= zip(own, scale, strict=True) if isinstance(scale, tuple) else dict.fromkeys(own, scale)
    return values


def _numbers(blocks: Blocks, group: str) -> str:
    numbers = list(blocks.groups[group])
    return f"the blocks {blocks.block_name(numbers[0], numbers[-1])}"


def _listed(counts: Mapping[int, int]) -> str:
    return ", ".join(f"block_{block} ({count} transformer layers)" for block, count in counts.items())


def _wrong_length(where: str, scale: tuple[float, ...], count: int, blocks: Blocks | None = None) -> BlockScalesError:
    lacks = "is one block" if blocks and blocks.stack else "has no transformer layers"
    wanted = f"takes one number or a list of {count}" if count else f"{lacks}, so takes one number"
    return BlockScalesError(f"{where} {wanted}, but the list has {len(scale)}")
