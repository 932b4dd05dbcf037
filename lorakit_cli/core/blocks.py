"""The blocks of a component, read off its module names: groups of numbered blocks, and what stands outside them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseComponent
from lorakit_cli.core.record import Record
from lorakit_cli.core.stacks import outside_name, stack_of, unwrapped
from lorakit_cli.core.unet_blocks import PARTS, count_layers, locate_in


class Position(NamedTuple):
    """Where a module sits: a group, the block of it, and which number of a list for that block is its own.

    What stands outside all groups has its first name alone.
    """

    group: str
    block: int | None = None
    layer: int = 0


class Blocks(Record):
    """The blocks of a component.

    `groups` gives for each block of a group how many numbers a list for it has, 0 where it takes one number only;
    `outside` names what is in no block. In a `stack` a list belongs to the whole group, one number for each block;
    elsewhere a block's number has `mark` before it. `shortened` gives the name of a group in full as its own.
    """

    groups: Mapping[str, Mapping[int, int]]
    outside: tuple[str, ...]
    locate: Callable[[str], Position]
    stack: bool = True
    mark: str = ""
    digits: int = 1
    shortened: Callable[[str], str] = str

    def positions(self, group: str) -> list[Position]:
        """List the places of a group, in the order of the model."""
        counts = self.groups[group]
        return [Position(group, block, layer) for block, count in counts.items() for layer in range(max(count, 1))]

    def is_single(self, group: str) -> bool:
        """Tell whether a group is one block that goes by the group's name, as the middle of a UNet does."""
        return not self.stack and group == "mid"

    def block_name(self, first: int, last: int) -> str:
        """Write a block, or a run of blocks, as in `3`, `0-9` or `block_1`."""
        name = f"{self.mark}{first:0{self.digits}}"
        return name if first == last else f"{name}-{last:0{self.digits}}"


def blocks_of(component: BaseComponent) -> Blocks:
    """Read the blocks off a component's module names."""
    layers = count_layers(component.modules)
    return _unet(component, layers) if layers else _stacks(component)


def _unet(component: BaseComponent, layers: Mapping[str, Mapping[int, int]]) -> Blocks:
    def locate(module: str) -> Position:
        place = locate_in(layers, module)
        return Position(*place) if place else Position(module.partition(".")[0])

    groups = {part: layers[part] for part in PARTS if part in layers}
    return Blocks(groups, _outside(component, locate), locate, stack=False, mark="block_")


def _stacks(component: BaseComponent) -> Blocks:
    groups: dict[str, dict[int, int]] = {}
    for module in component.modules:
        stack = stack_of(component.name, module)
        if stack:
            groups.setdefault(stack[0], {})[stack[1]] = 0

    def locate(module: str) -> Position:
        stack = stack_of(component.name, module)
        # Whoever asks has the name of a parameter, with which a numbered layer looks like a block.
        known = stack is not None and stack[1] in groups.get(stack[0], ())
        return Position(*stack) if stack and known else Position(outside_name(component.name, module))

    ordered = {group: dict(sorted(counts.items())) for group, counts in groups.items()}
    return Blocks(ordered, _outside(component, locate), locate, shortened=partial(unwrapped, component.name))


def _outside(component: BaseComponent, locate: Callable[[str], Position]) -> tuple[str, ...]:
    found = (locate(module) for module in component.modules)
    return tuple(dict.fromkeys(position.group for position in found if position.block is None))
