"""The layouts of key names lorakit knows: one file each, and the list of them in `known`.

Most files are in kohya's, so that the others are loaded when they are asked for.
"""

from collections.abc import Collection, Sequence
from operator import methodcaller
from typing import TYPE_CHECKING

from lorakit_cli.core.key_format import KeyFormat
from lorakit_cli.formats.kohya import KOHYA

if TYPE_CHECKING:
    FORMATS: tuple[KeyFormat, ...]

# What starts so is kohya's before any other layout sees it.
_KOHYA = methodcaller("startswith", ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_"))


def formats_for(keys: Collection[str]) -> Sequence[KeyFormat]:
    """List the layouts that these keys may be in."""
    return (KOHYA,) if all(map(_KOHYA, keys)) else __getattr__("FORMATS")


def __getattr__(name: str) -> tuple[KeyFormat, ...]:
    """Give FORMATS, all of them. Raises AttributeError for any other name."""
    if name != "FORMATS":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from lorakit_cli.formats import known

    return known.FORMATS
