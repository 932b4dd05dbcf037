"""A model architecture: what its modules are called, here and in the code it was first published with."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lorakit_cli.core.late import late

Shape = tuple[int, ...]


class Name(NamedTuple):
    """A name that a module goes by, and the modules of diffusers whose rows, stacked in order, are its rows.

    `swapped`: the two halves of its rows stand the other way round (scale and shift of a final layer).
    """

    text: str
    parts: tuple[str, ...]
    swapped: bool = False


class Architecture(NamedTuple):
    """A family of models.

    `classes` are those of the denoiser in diffusers. `marks` is searched in module names flattened with `_` for
    `.`, to see quickly whether the family can be meant at all. `native` writes the original names for the diffusers
    modules of the denoiser that it is given. `parameters` gives, for each published size and each component, the
    parameters and their shapes, with runs of blocks written `transformer_blocks.{0-18}.`. `variants` are the models
    that share a size's shapes, so that no file of tensors tells them apart. One that is not `published` is meant only
    where none of the others is.
    """

    name: str
    denoiser: str
    classes: frozenset[str]
    marks: re.Pattern[str]
    native: Callable[[Sequence[str]], Iterator[Name]]
    parameters: Callable[[], Mapping[str, Mapping[str, Mapping[str, Shape]]]]
    variants: Mapping[str, tuple[str, ...]]
    published: bool = True


_RUN = late(r"\{(\d+)-(\d+)\}")


def expand(table: Mapping[str, Shape]) -> dict[str, Shape]:
    """Write out the runs of a table: `a.{0-2}.b` becomes a.0.b, a.1.b and a.2.b; several runs multiply."""
    whole: dict[str, Shape] = {}
    for name, shape in table.items():
        head, *runs = _RUN.split(name)
        names = [head]
        for first, last, tail in zip(runs[::3], runs[1::3], runs[2::3], strict=True):
            names = [f"{text}{n}{tail}" for text in names for n in range(int(first), int(last) + 1)]
        whole.update((text, shape) for text in names)
    return whole
