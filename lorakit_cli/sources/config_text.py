"""Write a lorakit.toml that reads as it was meant."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from lorakit_cli.sources.library import LibraryEntry


def config_text(base: str, entries: Iterable[LibraryEntry]) -> str:
    """Write a library that uses all its adapters, at their own weights, on a base."""
    known = list(entries)
    lines = [f"base = {_text(base)}", f"use = {_value([entry.name for entry in known])}"]
    for entry in known:
        lines += ["", f"[adapters.{entry.name}]", f"source = {_text(entry.source)}"]
        lines += [] if entry.weight is None else [f"weight = {entry.weight!r}"]
        lines += [f"triggers = {_value(list(entry.triggers))}"] if entry.triggers else []
        lines += [f"base = {_text(entry.base)}"] if entry.base else []
        lines += [f"block_scales = {_value(entry.block_scales.as_json())}"] if entry.block_scales else []
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_text(key)} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
    """Write text as TOML does: as JSON, but for one character that JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
