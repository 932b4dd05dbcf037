"""Adapters whose change depends on the base's values: what makes plain LoRA of them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.merge_slots import Merged
from lorakit_cli.core.shown import shown
from lorakit_cli.errors import UnsupportedError

_SUFFIX = ".safetensors"


def require_plain_changes(adapters: Sequence[Merged], base: str | None) -> None:
    """Refuse what is not to be had without the base's values. Raises UnsupportedError with the commands that help."""
    for adapter in adapters:
        layer = next((layer for layer in adapter.file.layers if layer.kind.needs_base), None)
        if layer:
            raise UnsupportedError(
                f"{shown(layer.stem)} of {adapter.file.path} is {layer.kind.name}, whose change depends on the base's "
                f"values; two commands make plain LoRA of it: {' and then '.join(_commands(adapter.file, base))}"
            )


def _commands(file: LoraFile, base: str | None) -> tuple[str, str]:
    """Give the commands that fuse an adapter in full precision, and take the difference, whatever its ranks."""
    stem, base = file.path.stem, base or "BASE"
    fused = f"{stem}-fused" + (_SUFFIX if base.lower().endswith(_SUFFIX) else "")
    pickle = [] if file.data == file.path else ["--allow-pickle"]
    fuse = ["fuse", "--base", base, "--lora", _as_path(file.path), "--dtype", "fp32", "--out", fused, *pickle]
    extract = ["extract", "--base", base, "--tuned", fused, "--energy", "0.99", "--out", f"{stem}-lora{_SUFFIX}"]
    return shlex.join(["lorakit", *fuse]), shlex.join(["lorakit", *extract])


def _as_path(path: Path) -> str:
    """Write a path such that it is no library name, nor a name in front of another."""
    return str(path) if path.is_absolute() else f"./{path}"
