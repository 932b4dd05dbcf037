"""The `<lora:NAME:WEIGHT>` tags of a prompt, as other programs write them."""

import re
from contextlib import suppress

from lorakit_cli.core.adapter_spec import NAME, AdapterSpec, is_plain, name_from
from lorakit_cli.core.numbers import finite
from lorakit_cli.errors import AdapterSpecError

_TAG = re.compile(r"<(?:lora|lyco):([^<>]+)>", re.IGNORECASE)
_BEGUN = re.compile(r"<(?:lora|lyco):[^<>]{0,60}", re.IGNORECASE)
_FOREIGN = re.compile(r"<(?:lora|lyco):([^<>:]{1,200})((?::[^<>]{0,200})?)>")


def split_tags(prompt: str) -> tuple[str, list[AdapterSpec]]:
    """Take the tags out of a prompt and read them as adapter specs. Raises AdapterSpecError."""
    specs = [AdapterSpec.parse(_with_name(tag.strip())) for tag in _TAG.findall(prompt)]
    text = _without(_TAG, prompt) if specs else prompt
    if begun := _BEGUN.search(text):
        raise AdapterSpecError(f"the prompt has a tag without an end, {begun[0]!r}; one is written <lora:NAME:WEIGHT>")
    return text, specs


def _with_name(tag: str) -> str:
    """Put what the library calls a file in the place of its name, by which the web UIs know it."""
    name, colon, rest = tag.partition(":")
    if not name or "=" in name or NAME.fullmatch(name) or not is_plain(name):
        return tag
    return name_from(f"{name}.safetensors") + colon + rest


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
