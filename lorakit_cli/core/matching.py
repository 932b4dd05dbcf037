"""Match an adapter's layers with a base's parameters, by direction: every module's names are written and looked up."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.kind import ANY, Shape
from lorakit_cli.core.lora_file import LoraFile, LoraLayer
from lorakit_cli.core.shown import shown

# Finding near names costs a comparison with every module of the base, so only the first few unmatched get one.
_NEAREST_FOR = 5


class Target(NamedTuple):
    """A base tensor that may change, by component and its name in the file."""

    component: str
    tensor: str


class Part(NamedTuple):
    """One of the parameters whose rows, stacked in order, are what a layer changes: its rows and where they lie.

    `start` and `stop` are rows of the layer's delta; `into` are rows of the tensor in the file, None for all;
    `swapped`: the halves of these rows stand the other way round in the file; `transposed`: rows are columns there.
    """

    parameter: str
    target: Target
    start: int
    stop: int
    into: tuple[int, int] | None
    swapped: bool
    transposed: bool = False


class Match(NamedTuple):
    """A layer, the name it goes by, and the parts of the base that it changes."""

    layer: LoraLayer
    name: Name
    parts: tuple[Part, ...]


class Unmatched(NamedTuple):
    """A layer of an adapter that changes nothing in this base, or a key that is part of no layer, and why.

    `loose`: it is such a key, and `stem` is all of it.
    """

    adapter: str
    stem: str
    reason: str
    nearest: str | None = None
    loose: bool = False


def match_layers(
    base: BaseIndex, adapter: str, file: LoraFile, *, hints: bool = True
) -> tuple[tuple[Match, ...], tuple[Unmatched, ...]]:
    """Give the layers of a named adapter that fit the base, and of all else why it has no effect.

    With `hints` the first of these get the nearest name that the base has, which takes a moment to find.
    """
    stems: dict[str, list[LoraLayer]] = {}
    for layer in file.layers:
        stems.setdefault(layer.stem, []).append(layer)
    found: dict[int, Match] = {}
    reasons: dict[int, str] = {}
    taken: dict[tuple[str, str], str] = {}
    for component, stem, name in _written(base, file):
        for layer in stems.get(stem, ()):
            if component.name not in layer.components:
                continue
            parts, shapes = _parts(component, layer, name)
            reason = _misfit(layer, parts, shapes)
            if reason:
                reasons.setdefault(id(layer), reason)
                continue
            earlier = found.get(id(layer))
            if earlier:
                if earlier.parts != parts:
                    reasons[id(layer)] = f"fits both {_places(earlier.parts)} and {_places(parts)}"
                continue
            other = next((taken[key] for part in parts if (key := _key(part)) in taken), stem)
            if other != stem:
                reasons[id(layer)] = f"changes the same tensor as {shown(other)}"
                continue
            taken |= {_key(part): stem for part in parts}
            found[id(layer)] = Match(layer, name, parts)
    # A layer that fits two places fits none for certain.
    doubtful = {number for number in found if reasons.get(number, "").startswith("fits both")}
    sure = found.keys() - doubtful
    matches = tuple(found[id(layer)] for layer in file.layers if id(layer) in sure)
    left = [layer for layer in file.layers if id(layer) not in sure and not layer.optional]
    return matches, tuple(_left_over(base, adapter, file, left, reasons, _NEAREST_FOR if hints else 0))


def _written(base: BaseIndex, file: LoraFile) -> Iterator[tuple[BaseComponent, str, Name]]:
    possible = {name for components in {layer.components for layer in file.layers} for name in components}
    layouts = file.formats
    for component in base.components.values():
        if component.name in possible:
            for layout in layouts:
                for stem, name in layout.write(component.name, component.names):
                    yield component, stem, name


def _parts(component: BaseComponent, layer: LoraLayer, name: Name) -> tuple[tuple[Part, ...], list[Shape]]:
    """Place the rows of what a layer changes, and give their shapes; none where a parameter is missing."""
    parts: list[Part] = []
    shapes: list[Shape] = []
    start = 0
    kind_of_parameter = layer.kind.parameter
    for module in name.parts:
        parameter = f"{module}.{kind_of_parameter}"
        place = component.place(parameter)
        if place is None and kind_of_parameter == "weight":
            parameter, place = module, component.place(module)
        if place is None:
            return (), []
        shape = place.shape(component.tensors[place.tensor].info.shape)
        stop = start + (shape[0] if shape else 1)
        target = Target(component.name, place.tensor)
        parts.append(Part(parameter, target, start, stop, place.rows, name.swapped != place.swapped, place.transposed))
        shapes.append(shape)
        start = stop
    return tuple(parts), shapes


def _misfit(layer: LoraLayer, parts: tuple[Part, ...], shapes: Sequence[Shape]) -> str | None:
    """Say why a layer cannot be added to its parts, None where it can."""
    if not parts:
        return f"the base's module has no {layer.kind.parameter}"
    if len(shapes) > 1 and len({shape[1:] for shape in shapes}) > 1:
        return "the base's parts differ in width"
    whole = (parts[-1].stop, *shapes[0][1:]) if shapes[0] else ()
    if fits(layer.delta_shape, whole):
        return None
    written = ", ".join("any" if size == ANY else str(size) for size in layer.delta_shape[:8])
    return f"wrong shape: the layer changes [{written}], the base has {list(whole)}"


@lru_cache(maxsize=4096)
def fits(delta: Shape, base: Shape) -> bool:
    """Tell whether a change of one shape can be added to a parameter of another.

    A linear layer and a 1x1 convolution stand for each other, and a change may come flattened to two dimensions.
    """
    ours, theirs = _squeezed(delta), _squeezed(base)
    if len(ours) == 2 and len(theirs) > 2:
        theirs = (theirs[0], math.prod(theirs[1:]))
    return _same(ours, theirs) or _same(delta, base)


def _same(delta: Shape, base: Shape) -> bool:
    return len(delta) == len(base) and all(a in (ANY, b) for a, b in zip(delta, base, strict=True))


def _squeezed(shape: Shape) -> Shape:
    return shape[:2] if len(shape) > 2 and set(shape[2:]) == {1} else shape


def _key(part: Part) -> tuple[str, str]:
    return part.target.component, part.parameter


def _places(parts: tuple[Part, ...]) -> str:
    return f"{parts[0].target.component}.{parts[0].parameter}"


def _left_over(
    base: BaseIndex, adapter: str, file: LoraFile, left: list[LoraLayer], reasons: Mapping[int, str], hints: int
) -> Iterator[Unmatched]:
    """Say of all that found no place why it has no effect; the first few get the nearest name."""
    # Most files have a place for all.
    import difflib

    stems: list[str] = []
    for count, layer in enumerate(left):
        known = any(component in base.components for component in layer.components)
        reason = "no such module in the base" if known else f"the base has no {layer.component}"
        nearest: list[str] = []
        if known and id(layer) not in reasons and count < hints:
            stems = stems or [stem for _, stem, _ in _written(base, file)]
            nearest = difflib.get_close_matches(layer.stem, stems, 1, 0.8)
        yield Unmatched(adapter, layer.stem, reasons.get(id(layer), reason), nearest[0] if nearest else None)
    for key in file.unknown_keys:
        yield Unmatched(adapter, key, "not a known part of an adapter", loose=True)
