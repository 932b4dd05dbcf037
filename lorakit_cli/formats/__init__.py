"""The layouts of key names lorakit knows: one file each, and this list of them."""

from lorakit_cli.core.lora_file import KeyFormat
from lorakit_cli.formats.diffusers import DIFFUSERS
from lorakit_cli.formats.kohya import KOHYA

FORMATS: tuple[KeyFormat, ...] = (DIFFUSERS, KOHYA)
