"""The blocks of a UNet, read off its module names: down, mid and up, and the transformer layers in each."""

import re
from collections.abc import Iterable, Mapping

PARTS = ("down", "mid", "up")

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.|(mid)_block\.")
_LAYER = re.compile(r"\.(attentions|resnets)\.(\d+)(?:\.|$)")


def unet_block(module: str) -> tuple[str, int] | None:
    """Give the part of a UNet that a module is in and the number of its block, None where it is in no block."""
    block = _BLOCK.match(module)
    return (block[1] or block[3], int(block[2] or 0)) if block else None


def count_layers(modules: Iterable[str]) -> dict[str, dict[int, int]]:
    """Count the transformer layers: part -> block -> how many there are; nothing where this is no UNet."""
    layers: dict[str, dict[int, int]] = {}
    for module in modules:
        block = unet_block(module)
        if block:
            part, number = block
            counts = layers.setdefault(part, {})
            layer = _LAYER.search(module)
            count = int(layer[2]) + 1 if layer and layer[1] == "attentions" else 0
            counts[number] = max(counts.get(number, 0), count)
    return {part: dict(sorted(layers[part].items())) for part in PARTS if part in layers}


def locate_in(layers: Mapping[str, Mapping[int, int]], module: str) -> tuple[str, int, int] | None:
    """Give part, block and transformer layer of a module, None where it is in no block.

    A resnet goes with the transformer layer of its number; what comes after the last layer (samplers, the second
    resnet of the mid block) goes with the last.
    """
    block = unet_block(module)
    if not block:
        return None
    part, number = block
    last = max(layers[part][number] - 1, 0)
    layer = _LAYER.search(module)
    return part, number, min(int(layer[2]), last) if layer else last
