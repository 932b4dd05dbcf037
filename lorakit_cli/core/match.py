"""A layer of an adapter in its place: the parameters of the base whose rows it changes."""

from functools import cached_property
from typing import NamedTuple

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.base_index import BaseComponent
from lorakit_cli.core.lora_file import LoraLayer


class Target(NamedTuple):
    """A base tensor that may change, by component and its name in the file."""

    component: str
    tensor: str

    @property
    def label(self) -> str:
        """What people call it; what is in no component goes by its name in the file."""
        return f"{self.component}.{self.tensor}" if self.component else self.tensor


class Part(NamedTuple):
    """One of the parameters whose rows, stacked in order, are what a layer changes: its rows and where they lie.

    `start` and `stop` are rows of the layer's delta; `into` are rows of the tensor in the file, None for all;
    `swapped`: the halves of these rows stand the other way round in the file; `transposed`: rows are columns there.
    """

    parameter: str
    target: Target
    start: int
    stop: int
    into: tuple[int, int] | None
    swapped: bool
    transposed: bool = False


class Match:
    """A layer, the name it goes by in a component of the base, and the parameters that it changes."""

    def __init__(self, layer: LoraLayer, name: Name, base: BaseComponent, parameters: tuple[str, ...]) -> None:
        self.layer = layer
        self.name = name
        self.base = base
        self.parameters = parameters

    @property
    def component(self) -> str:
        """The component it is in."""
        return self.base.name

    def is_at(self, other: "Match") -> bool:
        """Tell whether another match is for the same rows of the same parameters."""
        here, there = self.name.swapped, other.name.swapped
        return self.base is other.base and self.parameters == other.parameters and here == there

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the base that it changes; not all who match want to know them."""
        parts: list[Part] = []
        start = 0
        for parameter in self.parameters:
            place, shape = self.base.place(parameter), self.base.shape(parameter)
            assert place is not None
            stop = start + (shape[0] if shape else 1)
            target = Target(self.base.name, place.tensor)
            swapped = self.name.swapped != place.swapped
            parts.append(Part(parameter, target, start, stop, place.rows, swapped, place.transposed))
            start = stop
        return tuple(parts)
