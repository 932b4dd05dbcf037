"""The `<lora:NAME:WEIGHT>` tags of a prompt, as other programs write them."""

import re
from contextlib import suppress

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.numbers import finite

_TAG = re.compile(r"<lora:([^<>]+)>")
_FOREIGN = re.compile(r"<(?:lora|lyco):([^<>:]{1,200})((?::[^<>]{0,200})?)>")


def split_tags(prompt: str) -> tuple[str, list[AdapterSpec]]:
    """Take the tags out of a prompt and read them as adapter specs. Raises AdapterSpecError."""
    specs = [AdapterSpec.parse(tag.strip()) for tag in _TAG.findall(prompt)]
    return (_without(_TAG, prompt), specs) if specs else (prompt, [])


def split_foreign_tags(prompt: str) -> tuple[str, list[tuple[str, float]]]:
    """Take the tags out of a prompt of another program, whatever its adapters are called: name and weight of each."""
    tags = []
    for name, rest in _FOREIGN.findall(prompt):
        weight = 1.0
        with suppress(ValueError):
            weight = finite(float(rest.removeprefix(":").split(":")[0]))
        tags.append((name.strip(), weight))
    return (_without(_FOREIGN, prompt), tags) if tags else (prompt, [])


def _without(tag: re.Pattern[str], prompt: str) -> str:
    """Take out what matches, and the spaces and commas that are then too many."""
    text = re.sub(r"[^\S\n]{2,}", " ", tag.sub(" ", prompt))
    text = re.sub(r"[^\S\n]+,", ",", text)
    return re.sub(r"(,\s*)+$|^(\s*,)+", "", text.strip()).strip()
