"""An axis of a grid, `NAME=VALUES`: what changes from cell to cell, and the values it takes."""

import types
import typing
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from functools import partial

from lorakit_cli.core import axis_values
from lorakit_cli.core.axis_values import AxisValue
from lorakit_cli.core.generation import Settings
from lorakit_cli.errors import OptionError, did_you_mean

MOST_AXES = 3
_GRAMMAR = "an axis is written NAME=VALUES, for example toy=0,0.5,1"
_BLOCK = "block:"


class AxisKind(Enum):
    """What an axis changes."""

    SEED = "seed"
    PROMPT = "prompt"
    NEGATIVE = "negative"
    LORA = "lora"
    WEIGHT = "weight"
    SCALE = "scale"
    SETTING = "setting"
    ADAPTER = "adapter"
    BLOCK = "block"
    ABLATION = "ablation"


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis; `target` is the setting, the adapter, or adapter and block that it changes."""

    name: str
    kind: AxisKind
    target: str
    values: tuple[AxisValue, ...]


_Reader = Callable[[str, str], list[AxisValue]]
_whole = partial(axis_values.numbers, whole=True)
_PLAIN: dict[AxisKind, _Reader] = {
    AxisKind.SEED: axis_values.seeds,
    AxisKind.PROMPT: axis_values.texts,
    AxisKind.NEGATIVE: partial(axis_values.texts, empty=True),
    AxisKind.LORA: axis_values.adapters,
    AxisKind.WEIGHT: axis_values.numbers,
    AxisKind.SCALE: axis_values.numbers,
}


def axis_names() -> list[str]:
    """List what an axis may be called, besides the name of an adapter and `block:ADAPTER.BLOCK`."""
    return [*(kind.value for kind in _PLAIN), *_setting_readers()]


def parse_axis(text: str, adapters: Collection[str]) -> Axis:
    """Read an axis; `adapters` are the names that may be one. Raises OptionError."""
    name, equals, rest = text.partition("=")
    name = name.strip()
    if not equals or not name or not rest:
        raise OptionError(f"--axis {text[:80]!r}: {_GRAMMAR}")
    kind, target, read = _meaning(name, adapters)
    values = read(name, rest)
    seen: set[object] = set()
    for value in values:
        if value.value in seen:
            raise OptionError(f"--axis {name} has the value {value.text[:80]} twice")
        seen.add(value.value)
    return Axis(name, kind, target, tuple(values))


def ablation(adapters: Sequence[str]) -> Axis:
    """Give the axis that leaves adapters out: none of them, each alone, all, and all but each.

    Values are the sets of names that take part; none is there twice.
    """
    everyone = frozenset(adapters)
    sets = {"base": frozenset[str]()} | {name: frozenset({name}) for name in adapters}
    if len(adapters) > 1:
        sets["all"] = everyone
    if len(adapters) > 2:
        sets |= {f"without {name}": everyone - {name} for name in adapters}
    return Axis("ablation", AxisKind.ABLATION, "", tuple(AxisValue(text, part) for text, part in sets.items()))


def require_few(axes: Sequence[Axis]) -> None:
    """Raise OptionError for more axes than a sheet has directions, two that change the same, or too many cells."""
    if len(axes) > MOST_AXES:
        raise OptionError(f"{len(axes)} axes are given; a grid has columns, rows and sections, so {MOST_AXES} at most")
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"--axis {name} is given twice; put all its values into one")
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > axis_values.MOST:
        raise OptionError(f"the grid would have {count} cells; {axis_values.MOST} are the most")


def _meaning(name: str, adapters: Collection[str]) -> tuple[AxisKind, str, _Reader]:
    for kind, read in _PLAIN.items():
        if name == kind.value:
            return kind, "", read
    settings = _setting_readers()
    if name in settings:
        return AxisKind.SETTING, name, settings[name]
    if name.startswith(_BLOCK):
        target = name.removeprefix(_BLOCK)
        adapter, dot, block = target.partition(".")
        if not (adapter and dot and all(block.split("."))):
            raise OptionError(f"--axis {name}: a block is written block:ADAPTER.BLOCK, for example block:pixel.up")
        if adapter not in adapters and adapter != AxisKind.LORA.value:
            raise OptionError(f"--axis {name}: no adapter is called {adapter!r}{_listed(adapter, adapters)}")
        return AxisKind.BLOCK, target, axis_values.numbers
    if name in adapters:
        return AxisKind.ADAPTER, name, axis_values.numbers
    near = did_you_mean(name, [*axis_names(), *adapters]) or "."
    raise OptionError(
        f"there is no axis {name[:80]!r}{near} The axes are {', '.join(axis_names())}, block:ADAPTER.BLOCK and the "
        f"adapters {', '.join(adapters)}"
    )


def _listed(name: str, adapters: Collection[str]) -> str:
    return (did_you_mean(name, adapters) or ".") + f" The adapters are {', '.join(adapters)}"


def _setting_readers() -> dict[str, _Reader]:
    """Give a reader for each setting of a picture that one value can be written for."""
    readers: dict[type, _Reader] = {int: _whole, float: axis_values.numbers, str: axis_values.words}
    hints = typing.get_type_hints(Settings)
    found: dict[str, _Reader] = {}
    for field in fields(Settings):
        hint = hints[field.name]
        choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = [kind for kind in choices if kind in readers]
        if kinds:
            found[field.name] = readers[kinds[0]]
    return found
