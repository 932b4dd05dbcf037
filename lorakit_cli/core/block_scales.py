"""Block scales: a multiplier per component, block or transformer layer, as the user writes them for an adapter.

`{"pixel": {"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}}}` is keyed by adapter; in
`pixel=JSON` or `pixel=FILE` the adapter stands in front. A missing part is 1.0. In place of an adapter's object there
may be block weights, `"MIDD"` or `"1,0,0,…"`; behind `pixel=` what can only be such is not looked for as a file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorakit_cli.core.adapter_spec import NAMED
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.block_grammar import ComponentScale, component_json, parse_component, read_json
from lorakit_cli.core.bound_scales import BoundComponent, BoundScales, bind_component
from lorakit_cli.errors import BlockScalesError, did_you_mean

if TYPE_CHECKING:
    from lorakit_cli.core.block_weights import BlockWeights

_EXAMPLE = '{"pixel": {"unet": {"down": 0.5}}}'


@dataclass(frozen=True, slots=True)
class BlockScales:
    """The block scales of one adapter, well formed but not yet held against a base.

    They go by component, or they are block weights.
    """

    components: Mapping[str, ComponentScale]
    weights: "BlockWeights | None" = None

    def bind(self, base: BaseIndex, adapter: str) -> BoundScales:
        """Check every name and length against a base. Raises BlockScalesError that lists what exists."""
        where = f"block scales of {adapter}"
        if self.weights:
            # Few have any.
            from lorakit_cli.core.block_numbering import bind_weights

            return BoundScales(bind_weights(where, self.weights, base))
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

    def as_json(self) -> dict[str, Any] | str:
        """Give the JSON they were read from, block weights as text."""
        if self.weights:
            return self.weights.text
        return {name: component_json(scale) for name, scale in self.components.items()}


def parse_block_scales(texts: Sequence[str]) -> dict[str, BlockScales]:
    """Read `--block-scales` values, each inline JSON, a file, or behind `NAME=` either of them or block weights.

    Raises BlockScalesError.
    """
    found: dict[str, BlockScales] = {}
    for text in texts:
        named = NAMED.fullmatch(text)
        entries = {named[1]: _read_one(named[2])} if named else _read_one(text)
        if isinstance(entries, str | list):
            raise BlockScalesError(
                f"block scales {text[:60]!r} belong to an adapter; write for example pixel={text[:60]}"
            )
        if not isinstance(entries, dict):
            raise BlockScalesError(f"block scales: expected an object, such as {_EXAMPLE}, not {_short(entries)}")
        for adapter, components in entries.items():
            if adapter in found:
                raise BlockScalesError(f"block scales of {adapter} are given twice")
            found[adapter] = read_block_scales(adapter, components)
    return found


def read_block_scales(adapter: str, entries: object) -> BlockScales:
    """Read the block scales of one adapter, as JSON or TOML gives them. Raises BlockScalesError."""
    where = f"block scales of {adapter}"
    if isinstance(entries, str | list):
        from lorakit_cli.core.block_weights import list_block_weights, parse_block_weights

        if isinstance(entries, str):
            return BlockScales({}, parse_block_weights(where, entries))
        return BlockScales({}, list_block_weights(where, entries))
    if not isinstance(entries, dict):
        raise BlockScalesError(
            f'{where}: expected components, such as {{"unet": {{"down": 0.5}}}}, not {_short(entries)}'
        )
    return BlockScales({name: parse_component(f"{where}: {name}", scale) for name, scale in entries.items()})


def _read_one(text: str) -> Any:
    """Read JSON, a file, or block weights."""
    if text.startswith(("{", "[")):
        return read_json(text)
    from lorakit_cli.core.block_weights import is_block_weights

    return text if is_block_weights(text) else read_json(text)


def _short(entries: object) -> str:
    return json.dumps(entries)[:40]
