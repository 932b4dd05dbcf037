"""The adapter algorithms lorakit knows: one file each, and this list of them."""

from lorakit_cli.core.lora_file import Kind
from lorakit_cli.kinds.lora import LORA

KINDS: tuple[Kind, ...] = (LORA,)
