"""Block scales: a multiplier per component, block or transformer layer, as the user writes them for an adapter.

`{"pixel": {"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}}}` is keyed by adapter; in
`pixel=JSON` or `pixel=FILE` the adapter stands in front. A missing part is 1.0.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorakit_cli.core.adapter_spec import NAMED
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.block_grammar import ComponentScale, component_json, parse_component, read_entries
from lorakit_cli.core.bound_scales import BoundComponent, BoundScales, bind_component
from lorakit_cli.errors import BlockScalesError, did_you_mean


@dataclass(frozen=True, slots=True)
class BlockScales:
    """The block scales of one adapter, well formed but not yet held against a base."""

    components: Mapping[str, ComponentScale]

    def bind(self, base: BaseIndex, adapter: str) -> BoundScales:
        """Check every name and length against a base. Raises BlockScalesError that lists what exists."""
        where = f"block scales of {adapter}"
        bound: dict[str, float | BoundComponent] = {}
        for name, scale in self.components.items():
            if name not in base.components:
                raise BlockScalesError(
                    f"{where}: the base has no component {name!r}"
                    f"{did_you_mean(name, base.components) or '.'} It has {', '.join(base.components)}"
                )
            if isinstance(scale, Mapping):
                bound[name] = bind_component(f"{where}: {name}", base.components[name], scale)
            else:
                bound[name] = scale
        return BoundScales(bound)

    def as_json(self) -> dict[str, Any]:
        """Give the JSON they were read from."""
        return {name: component_json(scale) for name, scale in self.components.items()}


def parse_block_scales(texts: Sequence[str]) -> dict[str, BlockScales]:
    """Read `--block-scales` values, each inline JSON, a file, or either behind `NAME=`. Raises BlockScalesError."""
    found: dict[str, BlockScales] = {}
    for text in texts:
        named = NAMED.fullmatch(text)
        name, rest = named.groups() if named else (None, text)
        entries = read_entries(rest)
        for adapter, components in ({name: entries} if name else entries).items():
            if adapter in found:
                raise BlockScalesError(f"block scales of {adapter} are given twice")
            found[adapter] = read_block_scales(adapter, components)
    return found


def read_block_scales(adapter: str, entries: object) -> BlockScales:
    """Read the block scales of one adapter, as JSON or TOML gives them. Raises BlockScalesError."""
    where = f"block scales of {adapter}"
    if not isinstance(entries, dict):
        raise BlockScalesError(
            f'{where}: expected components, such as {{"unet": {{"down": 0.5}}}}, not {json.dumps(entries)[:40]}'
        )
    return BlockScales({name: parse_component(f"{where}: {name}", scale) for name, scale in entries.items()})
