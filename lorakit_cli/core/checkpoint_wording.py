"""How a checkpoint in one file keeps a component of a pipeline, for writing one."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.checkpoint_layout import NOTHING


def dotted(text: str, parameter: str) -> str:
    """Name a parameter of a module in the usual way; a tensor that is no module's has its own name only."""
    return f"{text}.{parameter}" if parameter else text


@dataclass(frozen=True, slots=True)
class Wording:
    """The names that the tensors of a component have in a checkpoint, and the form in which it keeps them.

    A tensor is called `prefix` and its native name: `native` writes the names of modules, `parameter` makes of one of
    these and `weight`, `bias` or nothing the name of a tensor. The native names in `transposed` are kept transposed;
    matrices that `convolutions` matches whole are kept as 1x1 convolutions. The component's tensors that `needless`
    matches are not kept.
    """

    component: str
    prefix: str
    native: Callable[[Sequence[str]], Iterator[Name]]
    parameter: Callable[[str, str], str] = dotted
    transposed: frozenset[str] = frozenset()
    convolutions: re.Pattern[str] = NOTHING
    needless: re.Pattern[str] = NOTHING
