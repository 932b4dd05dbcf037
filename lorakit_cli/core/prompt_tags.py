"""The `<lora:NAME:WEIGHT>` tags of a prompt, as other programs write them."""

import re

from lorakit_cli.core.adapter_spec import AdapterSpec

_TAG = re.compile(r"<lora:([^<>]+)>")


def split_tags(prompt: str) -> tuple[str, list[AdapterSpec]]:
    """Take the tags out of a prompt and read them as adapter specs. Raises AdapterSpecError."""
    specs = [AdapterSpec.parse(tag.strip()) for tag in _TAG.findall(prompt)]
    if not specs:
        return prompt, []
    text = re.sub(r"\s{2,}", " ", _TAG.sub(" ", prompt))
    text = re.sub(r"\s+,", ",", text)
    return re.sub(r"(,\s*)+$|^(\s*,)+", "", text.strip()).strip(), specs
