"""The text in which the A1111 web UI says how a picture was made; most viewers and sites read it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lorakit_cli.core.late import late

_NEGATIVE = "Negative prompt:"
# Fewer than these in the last line, and it is a line of the prompt.
_FEWEST = 3
_LONGEST = 1_000_000
_ENTRY = late(r'\s*(\w[\w \-/]{0,80}):\s*("(?:\\.|[^\\"]){1,20000}"|[^,]*)(?:,|$)')


@dataclass(frozen=True, slots=True)
class Infotext:
    """A prompt with its tags, the negative prompt, and the parameters by their names, unquoted."""

    prompt: str
    negative: str
    parameters: Mapping[str, str]


def write_infotext(prompt: str, negative: str, parameters: Mapping[str, object]) -> str:
    """Write the text; parameters that are None are left out."""
    lines = [prompt, *([f"{_NEGATIVE} {negative}"] if negative else [])]
    entries = (f"{name}: {_quoted(str(value))}" for name, value in parameters.items() if value is not None)
    return "\n".join([*lines, ", ".join(entries)])


def parse_infotext(text: str) -> Infotext:
    """Read such a text; one without parameters is a prompt alone. Raises ValueError for one that is too long."""
    if len(text) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST // 1000} kB")
    *lines, last = text.strip().split("\n")
    entries = _ENTRY.findall(last)
    if len(entries) < _FEWEST:
        lines, entries = [*lines, last], []
    parts: tuple[list[str], list[str]] = [], []
    for line in (line.strip() for line in lines):
        if line.startswith(_NEGATIVE):
            parts[1].append(line.removeprefix(_NEGATIVE).strip())
        else:
            parts[1 if parts[1] else 0].append(line)
    prompt, negative = ("\n".join(part) for part in parts)
    return Infotext(prompt, negative, {name: _unquoted(value) for name, value in entries})


def _quoted(value: str) -> str:
    """Quote what would end the value, or be taken for the next one."""
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
