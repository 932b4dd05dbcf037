"""What block scales are written in: JSON, inline or a file, down to the number or list of every block named."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lorakit_cli.core.late import late
from lorakit_cli.core.numbers import finite
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import BlockScalesError, PathError, did_you_mean

BlockScale = float | tuple[float, ...]


class Span(NamedTuple):
    """A block by its number, or a run of them, both ends included; `named`: written with `block_` before it."""

    first: int
    last: int
    named: bool

    @property
    def text(self) -> str:
        """What it is written as."""
        number = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"block_{number}" if self.named else number


PartScale = BlockScale | Mapping[Span, BlockScale]
ComponentScale = float | Mapping[str, PartScale]

# A number too long for any model would be counted up to.
_SPAN = late(r"(block_)?([0-9]{1,4})(?:-([0-9]{1,4}))?")


def read_json(text: str) -> Any:
    """Read JSON, inline or a file. Raises BlockScalesError."""
    where = "block scales"
    if not text.lstrip().startswith(("{", "[")):
        where = text
        try:
            text = user_path(text).read_text(encoding="utf-8")
        except (PathError, OSError, ValueError) as error:
            from lorakit_cli.core.block_weights import NAMES

            raise BlockScalesError(
                f"block scales {text[:80]!r} are neither JSON nor a file that can be read{did_you_mean(text, NAMES)}; "
                'write for example \'pixel={"unet": {"down": 0.5}}\''
            ) from error
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BlockScalesError(f"{where}: not valid JSON: {error}") from error


def parse_component(where: str, entry: object) -> ComponentScale:
    """Read the scale of a component: a number, or an object of its parts. Raises BlockScalesError."""
    if not isinstance(entry, dict):
        return _number(where, entry)
    return {part: _parse_part(f"{where}.{part}", value) for part, value in entry.items()}


def component_json(scale: ComponentScale) -> Any:
    """Give the JSON that a component's scale was read from."""
    return {part: _part_json(entry) for part, entry in scale.items()} if isinstance(scale, Mapping) else scale


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return entries


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _number(where: str, value: object) -> float:
    try:
        return finite(value)
    except ValueError as error:
        raise BlockScalesError(f"{where} {error}") from error


def _parse_part(where: str, entry: object) -> PartScale:
    if not isinstance(entry, dict):
        return _parse_block(where, entry)
    blocks: dict[Span, BlockScale] = {}
    for key, value in entry.items():
        span = _parse_span(where, key)
        for other in blocks:
            if span.first <= other.last and other.first <= span.last:
                twice = max(span.first, other.first)
                raise BlockScalesError(f"{where}: {other.text!r} and {key!r} both say something of block {twice}")
        blocks[span] = _parse_block(f"{where}.{key}", value)
    return blocks


def _parse_span(where: str, key: str) -> Span:
    found = _SPAN.fullmatch(key)
    if not found:
        raise BlockScalesError(
            f"{where}: {key!r} is no block; blocks are written block_0, block_1, … in a UNet, elsewhere 0, 1 or 0-9"
        )
    first = int(found[2])
    last = first if found[3] is None else int(found[3])
    if last < first:
        raise BlockScalesError(f"{where}: {key!r} runs backwards; write {found[1] or ''}{last}-{first}")
    return Span(first, last, bool(found[1]))


def _parse_block(where: str, entry: object) -> BlockScale:
    if isinstance(entry, list):
        return tuple(_number(f"{where}[{k}]", value) for k, value in enumerate(entry))
    return _number(where, entry)


def _part_json(entry: PartScale) -> Any:
    return {span.text: value for span, value in entry.items()} if isinstance(entry, Mapping) else entry
