"""The layout that a new adapter gets where none is asked for: that of the adapter it is made from."""

from pathlib import Path

from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.formats.targets import TARGETS
from lorakit_cli.service.written_adapter import PEFT

# Layouts that are only read, and what their programs read as well.
_INSTEAD = {"onetrainer": "kohya", "lycoris": "kohya"}


def layout_for(file: LoraFile, asked: str | None, out: Path | None) -> TargetLayout:
    """Give the layout asked for, else the adapter's own, or its nearest kin where that is not written."""
    own = file.formats[0].name
    if asked is None and own == PEFT and (out is None or out.suffix.lower() == ".safetensors"):
        return TARGETS["diffusers"]
    return TARGETS[asked or (own if own in TARGETS else _INSTEAD.get(own, "diffusers"))]
