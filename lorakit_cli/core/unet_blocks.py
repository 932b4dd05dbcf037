"""The blocks of a UNet, read off its module names: down, mid and up, and the transformer layers in each."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PARTS = ("down", "mid", "up")

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.|(mid)_block\.")
_LAYER = re.compile(r"\.(attentions|resnets)\.(\d+)(?:\.|$)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module sits: part, block, and the transformer layer whose number applies to it."""

    part: str
    block: int
    layer: int


@dataclass(frozen=True, slots=True)
class UNetBlocks:
    """part -> block -> number of transformer layers."""

    layers: Mapping[str, Mapping[int, int]]

    @classmethod
    def of(cls, modules: Iterable[str]) -> "UNetBlocks":
        """Find the blocks among module names; none where this is no UNet."""
        layers: dict[str, dict[int, int]] = {}
        for module in modules:
            block = _BLOCK.match(module)
            if block:
                part, number = block[1] or block[3], int(block[2] or 0)
                counts = layers.setdefault(part, {})
                layer = _LAYER.search(module)
                count = int(layer[2]) + 1 if layer and layer[1] == "attentions" else 0
                counts[number] = max(counts.get(number, 0), count)
        return cls({part: dict(sorted(layers[part].items())) for part in PARTS if part in layers})

    def locate(self, module: str) -> Place | None:
        """Locate a module, None where it is in no block.

        A resnet goes with the transformer layer of its number; what comes after the last layer (samplers, the
        second resnet of the mid block) goes with the last.
        """
        block = _BLOCK.match(module)
        if not block:
            return None
        part, number = block[1] or block[3], int(block[2] or 0)
        last = max(self.layers[part][number] - 1, 0)
        layer = _LAYER.search(module)
        return Place(part, number, min(int(layer[2]), last) if layer else last)
