"""Names of modules in two codes side by side: tables of them, and how they are written out for a base."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lorakit_cli.core.architecture import Name


class Renames(NamedTuple):
    """The modules below one prefix: their name in the original code, and in diffusers.

    `{}` in both prefixes stands for the number of a block. `parts` gives for each original name the modules of
    diffusers whose rows, stacked in order, are its rows, separated by spaces. The original names in `swapped` have
    the two halves of their rows the other way round. Modules that are called the same are left out.
    """

    native: str
    diffusers: str
    parts: Mapping[str, str]
    swapped: frozenset[str] = frozenset()

    def numbers(self, modules: Iterable[str]) -> list[str]:
        """List the numbers of the blocks that the modules are in; one empty number where there are no blocks."""
        if "{}" not in self.diffusers:
            return [""]
        block = re.compile(re.escape(self.diffusers).replace(r"\{\}", r"(\d+)"))
        return sorted({found[1] for module in modules if (found := block.match(module))}, key=int)

    def names(self, number: str) -> Iterator[Name]:
        """Write the names in one block."""
        native, diffusers = self.native.format(number), self.diffusers.format(number)
        for text, parts in self.parts.items():
            yield Name(native + text, tuple(diffusers + part for part in parts.split(" ")), text in self.swapped)


def write(tables: Iterable[Renames], modules: Sequence[str]) -> Iterator[Name]:
    """Write the original names whose parts are all among the modules."""
    known = frozenset(modules)
    for table in tables:
        for number in table.numbers(modules):
            yield from (name for name in table.names(number) if known.issuperset(name.parts))


def numbered(parts: Mapping[str, str]) -> dict[str, str]:
    """Add a name for each part of a fused module: `qkv.0` for the first of qkv, and so on.

    So OneTrainer stores the parts that it trains apart, under the name of the whole.
    https://github.com/Nerogar/OneTrainer/tree/master/modules/util/convert/lora
    """
    fused = {text: whole.split() for text, whole in parts.items() if " " in whole}
    return {**parts, **{f"{text}.{n}": part for text, whole in fused.items() for n, part in enumerate(whole)}}


def scaled(norms: Mapping[str, str]) -> dict[str, str]:
    """Add for each norm the name of its one parameter, which the original code calls `scale` and not `weight`."""
    return {**norms, **{f"{text}.scale": part for text, part in norms.items()}}
