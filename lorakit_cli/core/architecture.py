"""A model architecture: what its modules are called, here and in the code it was first published with."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from lorakit_cli.core.late import late
from lorakit_cli.core.record import Record

Shape = tuple[int, ...]
Entry = TypeVar("Entry")


class Name(NamedTuple):
    """A name that a module goes by, and the modules of diffusers whose rows, stacked in order, are its rows.

    `swapped`: the two halves of its rows stand the other way round (scale and shift of a final layer).
    """

    text: str
    parts: tuple[str, ...]
    swapped: bool = False


class Architecture(Record):
    """A family of models.

    `classes` are those of the denoiser in diffusers. `marks` is searched in module names flattened with `_` for
    `.`, to see quickly whether the family can be meant at all. `native` writes the original names for the diffusers
    modules of the denoiser that it is given. `parameters` gives, for each published size and each component, the
    parameters and their shapes, with runs of blocks written `transformer_blocks.{0-18}.`. `variants` are the models
    that share a size's shapes, so that no file of tensors tells them apart. One that is not `published` is meant only
    where none of the others is. What stands behind `unchanged` in a module's name, `native` takes over as it is.
    `widths` gives for each size what `row_widths` does, where it is known without the parameters.
    """

    name: str
    denoiser: str
    classes: frozenset[str]
    marks: re.Pattern[str]
    native: Callable[[Sequence[str]], Iterator[Name]]
    parameters: Callable[[], Mapping[str, Mapping[str, Mapping[str, Shape]]]]
    variants: Mapping[str, tuple[str, ...]]
    published: bool = True
    unchanged: str | None = None
    widths: Callable[[], Mapping[str, frozenset[int]]] | None = None

    def sizes_of(self, widths: set[int]) -> list[str]:
        """List the sizes in which there are rows of all these widths."""
        known = self.widths() if self.widths else {size: row_widths(own) for size, own in self.parameters().items()}
        return [size for size, own in known.items() if widths <= own]


def row_widths(components: Mapping[str, Mapping[str, Shape]]) -> frozenset[int]:
    """Collect how many values the rows of a model's parameters have."""
    shapes = {shape for table in components.values() for shape in table.values()}
    return frozenset(math.prod(shape[1:]) for shape in shapes if len(shape) > 1)


_RUN = late(r"\{(\d+)-(\d+)\}")


def expand(table: Mapping[str, Entry]) -> dict[str, Entry]:
    """Write out the runs of a table: `a.{0-2}.b` becomes a.0.b, a.1.b and a.2.b; several runs multiply."""
    whole: dict[str, Entry] = {}
    for name, entry in table.items():
        if "{" not in name:
            whole[name] = entry
            continue
        head, *runs = _RUN.split(name)
        names = [head]
        for first, last, tail in zip(runs[::3], runs[1::3], runs[2::3], strict=True):
            ends = [f"{n}{tail}" for n in range(int(first), int(last) + 1)]
            names = [text + end for text in names for end in ends]
        whole |= dict.fromkeys(names, entry)
    return whole


def expand_before(mark: str, table: Mapping[str, Entry]) -> dict[str, Entry]:
    """Write out the runs that stand before a mark in a name, and leave those behind it."""
    whole: dict[str, Entry] = {}
    heads: dict[str, dict[str, None]] = {}
    for name, entry in table.items():
        head, found, tail = name.partition(mark)
        if head not in heads:
            heads[head] = expand({head: None})
        for text in heads[head]:
            whole[text + found + tail] = entry
    return whole
