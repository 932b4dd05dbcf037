"""Block scales: a multiplier per component, block or transformer layer, from JSON to a number for each module.

`{"pixel": {"unet": {"down": 0.9, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}}}` is keyed by adapter; in
`pixel=JSON` or `pixel=FILE` the adapter stands in front. A missing part is 1.0.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorakit_cli.core.adapter_spec import NAMED
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.numbers import finite
from lorakit_cli.core.unet_blocks import Place, UNetBlocks
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import BlockScalesError, PathError, did_you_mean

BlockScale = float | tuple[float, ...]
PartScale = BlockScale | Mapping[int, BlockScale]
ComponentScale = float | Mapping[str, PartScale]

_BLOCK = re.compile(r"block_(\d{1,4})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ResolvedScale:
    """What one place of the base came out at, for the eyes of the user."""

    place: str
    scale: float


@dataclass(frozen=True, slots=True)
class BlockScales:
    """The block scales of one adapter, well formed but not yet held against a base."""

    components: Mapping[str, ComponentScale]

    def bind(self, base: BaseIndex, adapter: str) -> "BoundScales":
        """Check every name and length against a base. Raises BlockScalesError that lists what exists."""
        blocks: dict[str, UNetBlocks] = {}
        for name, scale in self.components.items():
            if name not in base.components:
                raise BlockScalesError(
                    f"block scales of {adapter}: the base has no component {name!r}"
                    f"{did_you_mean(name, base.components) or '.'} It has {', '.join(base.components)}"
                )
            if isinstance(scale, Mapping):
                blocks[name] = UNetBlocks.of(base.components[name].modules)
                _check_component(f"block scales of {adapter}: {name}", scale, blocks[name])
        return BoundScales(self, blocks)

    def as_json(self) -> dict[str, Any]:
        """Give the JSON they were read from."""
        return {
            name: {part: _part_json(entry) for part, entry in scale.items()} if isinstance(scale, Mapping) else scale
            for name, scale in self.components.items()
        }


@dataclass(frozen=True, slots=True)
class BoundScales:
    """Block scales that are known to fit a base."""

    scales: BlockScales
    blocks: Mapping[str, UNetBlocks]

    def scale_of(self, component: str, module: str) -> float:
        """Give the scale of a module, 1.0 where nothing was said about it."""
        scale = self.scales.components.get(component, 1.0)
        if not isinstance(scale, Mapping):
            return scale
        place = self.blocks[component].locate(module)
        return _at(scale, place) if place else 1.0

    def resolved(self) -> list[ResolvedScale]:
        """List the scale of every component named, block by block, layer by layer where a list says so."""
        rows: list[ResolvedScale] = []
        for component, scale in self.scales.components.items():
            if not isinstance(scale, Mapping):
                rows.append(ResolvedScale(component, scale))
                continue
            for part, counts in self.blocks[component].layers.items():
                for block, count in counts.items():
                    name = f"{component}.{part}" if part == "mid" else f"{component}.{part}.block_{block}"
                    values = [_at(scale, Place(part, block, layer)) for layer in range(max(count, 1))]
                    if len(set(values)) == 1:
                        rows.append(ResolvedScale(name, values[0]))
                    else:
                        rows.extend(ResolvedScale(f"{name}.{k}", value) for k, value in enumerate(values))
        return rows


def parse_block_scales(texts: Sequence[str]) -> dict[str, BlockScales]:
    """Read `--block-scales` values, each inline JSON, a file, or either behind `NAME=`. Raises BlockScalesError."""
    found: dict[str, BlockScales] = {}
    for text in texts:
        named = NAMED.fullmatch(text)
        name, rest = named.groups() if named else (None, text)
        entries = _read(rest)
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
    return BlockScales(
        {
            name: {part: _parse_part(f"{where}: {name}.{part}", value) for part, value in scale.items()}
            if isinstance(scale, dict)
            else _number(scale, f"{where}: {name}")
            for name, scale in entries.items()
        }
    )


def _read(text: str) -> dict[str, Any]:
    where = "block scales"
    if not text.lstrip().startswith(("{", "[")):
        where = text
        try:
            text = user_path(text).read_text(encoding="utf-8")
        except (PathError, OSError, ValueError) as error:
            raise BlockScalesError(
                f"block scales {text[:80]!r} are neither JSON nor a file that can be read; "
                'write for example \'pixel={"unet": {"down": 0.5}}\''
            ) from error
    try:
        entries = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BlockScalesError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(entries, dict):
        raise BlockScalesError(f"{where}: expected a JSON object, not {json.dumps(entries)[:40]}")
    return entries


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return entries


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _number(value: object, where: str) -> float:
    try:
        return finite(value)
    except ValueError as error:
        raise BlockScalesError(f"{where} {error}") from error


def _parse_part(where: str, entry: object) -> PartScale:
    if not isinstance(entry, dict):
        return _parse_block(where, entry)
    blocks: dict[int, BlockScale] = {}
    for key, value in entry.items():
        number = _BLOCK.fullmatch(key)
        if not number:
            raise BlockScalesError(f"{where}: {key!r} is no block; blocks are written block_0, block_1, …")
        blocks[int(number.group(1))] = _parse_block(f"{where}.{key}", value)
    return blocks


def _parse_block(where: str, entry: object) -> BlockScale:
    if isinstance(entry, list):
        return tuple(_number(value, f"{where}[{k}]") for k, value in enumerate(entry))
    return _number(entry, where)


def _part_json(entry: PartScale) -> Any:
    return {f"block_{block}": value for block, value in entry.items()} if isinstance(entry, Mapping) else entry


def _check_component(where: str, scale: Mapping[str, PartScale], blocks: UNetBlocks) -> None:
    if not blocks.layers:
        raise BlockScalesError(f"{where} has no down, mid and up blocks; give it one number")
    for part, entry in scale.items():
        if part not in blocks.layers:
            raise BlockScalesError(f"{where} has no part {part!r}; it has {', '.join(blocks.layers)}")
        counts = blocks.layers[part]
        if not isinstance(entry, Mapping):
            if isinstance(entry, tuple) and part != "mid":
                raise BlockScalesError(
                    f'{where}.{part}: a list belongs to one block, such as {{"block_0": [...]}}; '
                    f"the blocks are {_list_blocks(counts)}"
                )
            _check_length(f"{where}.{part}", entry, counts[0] if part == "mid" else 0)
            continue
        for block, value in entry.items():
            if part == "mid" or block not in counts:
                exists = "the mid block takes one number or one list" if part == "mid" else _list_blocks(counts)
                raise BlockScalesError(f"{where}.{part} has no block_{block}; {exists}")
            _check_length(f"{where}.{part}.block_{block}", value, counts[block])


def _list_blocks(counts: Mapping[int, int]) -> str:
    return "it has " + ", ".join(f"block_{block} ({count} transformer layers)" for block, count in counts.items())


def _check_length(where: str, value: BlockScale, count: int) -> None:
    if isinstance(value, tuple) and len(value) != count:
        wanted = f"takes one number or a list of {count}" if count else "has no transformer layers, so takes one number"
        raise BlockScalesError(f"{where} {wanted}, but the list has {len(value)}")


def _at(scale: Mapping[str, PartScale], place: Place) -> float:
    entry = scale.get(place.part, 1.0)
    value = entry.get(place.block, 1.0) if isinstance(entry, Mapping) else entry
    return value[place.layer] if isinstance(value, tuple) else value
