"""The adapter algorithms lorakit knows: one file each, and the list of them in `known`.

Most files are plain LoRA, so that the others are loaded when they are asked for.
"""

from collections.abc import Collection, Sequence
from operator import methodcaller
from typing import TYPE_CHECKING

from lorakit_cli.core.kind import ALPHA, Kind
from lorakit_cli.kinds.lora import LORA

if TYPE_CHECKING:
    KINDS: tuple[Kind, ...]

# Of each of these ends every algorithm but LoRA wants something beside it.
_ENDS = (".lora_down.weight", ".lora_up.weight", ".lora_A.weight", ".lora_B.weight", f".{ALPHA}")
_PLAIN = methodcaller("endswith", _ENDS)


def kinds_for(keys: Collection[str]) -> Sequence[Kind]:
    """List the algorithms that layers of these keys may be of."""
    return (LORA,) if all(map(_PLAIN, keys)) else __getattr__("KINDS")


def __getattr__(name: str) -> tuple[Kind, ...]:
    """Give KINDS, all of them. Raises AttributeError for any other name."""
    if name != "KINDS":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from lorakit_cli.kinds import known

    return known.KINDS
