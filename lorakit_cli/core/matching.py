"""Match an adapter's layers with a base's parameters, by direction: every module's names are written and looked up."""

from collections.abc import Iterable, Iterator, Mapping

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.fitting import fits
from lorakit_cli.core.kind import ANY, Shape
from lorakit_cli.core.lora_file import LoraFile, LoraLayer
from lorakit_cli.core.match import Match
from lorakit_cli.core.record import Record
from lorakit_cli.core.shown import shown

# Finding near names costs a comparison with every module of the base, so only the first few unmatched get one.
_NEAREST_FOR = 5


class Unmatched(Record):
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
    for component, names in _written(base, file):
        # Most of what the base has is in no file of adapters.
        for stem, name in [entry for entry in names if entry[0] in stems]:
            for layer in stems[stem]:
                if component.name not in layer.components:
                    continue
                parameters, shape = _parameters(component, layer, name)
                if shape is None or not fits(layer.delta_shape, shape):
                    reasons.setdefault(id(layer), _misfit(layer, parameters, shape))
                    continue
                match = Match(layer, name, component, parameters)
                earlier = found.get(id(layer))
                if earlier:
                    if not earlier.is_at(match):
                        reasons[id(layer)] = f"fits both {_place(earlier)} and {_place(match)}"
                    continue
                keys = [(component.name, parameter) for parameter in parameters]
                others = [taken[key] for key in keys if key in taken]
                if others and others[0] != stem:
                    reasons[id(layer)] = f"changes the same tensor as {shown(others[0])}"
                    continue
                for key in keys:
                    taken[key] = stem
                found[id(layer)] = match
    # A layer that fits two places fits none for certain.
    doubtful = {number for number in found if reasons.get(number, "").startswith("fits both")}
    sure = found.keys() - doubtful
    matches = tuple(found[id(layer)] for layer in file.layers if id(layer) in sure)
    left = [layer for layer in file.layers if id(layer) not in sure and not layer.optional]
    return matches, tuple(_left_over(base, adapter, file, left, reasons, _NEAREST_FOR if hints else 0))


def _written(base: BaseIndex, file: LoraFile) -> Iterator[tuple[BaseComponent, Iterable[tuple[str, Name]]]]:
    """Write the names of the components that the file may be for, in its layouts."""
    possible = {name for components in {layer.components for layer in file.layers} for name in components}
    layouts = file.formats
    for component in base.components.values():
        if component.name in possible:
            for layout in layouts:
                yield component, layout.write(component.name, component.names)


def _parameters(component: BaseComponent, layer: LoraLayer, name: Name) -> tuple[tuple[str, ...], Shape | None]:
    """Give the parameters whose rows a layer changes, and the shape of them all.

    There are none where one is missing, and there is no shape where they differ in width.
    """
    parameters: list[str] = []
    shapes: list[Shape] = []
    own = layer.kind.parameter
    for module in name.parts:
        parameter = f"{module}.{own}"
        shape = component.find(parameter)
        if shape is None and own == "weight":
            parameter, shape = module, component.find(module)
        if shape is None:
            return (), None
        parameters.append(parameter)
        shapes.append(shape)
    first = shapes[0]
    if len(shapes) == 1:
        return tuple(parameters), first
    if len({shape[1:] for shape in shapes}) > 1:
        return tuple(parameters), None
    rows = sum(shape[0] if shape else 1 for shape in shapes)
    return tuple(parameters), (rows, *first[1:]) if first else ()


def _misfit(layer: LoraLayer, parameters: tuple[str, ...], whole: Shape | None) -> str:
    """Say why a layer cannot be added to its parameters."""
    if not parameters:
        return f"the base's module has no {layer.kind.parameter}"
    if whole is None:
        return "the base's parts differ in width"
    written = ", ".join("any" if size == ANY else str(size) for size in layer.delta_shape[:8])
    return f"wrong shape: the layer changes [{written}], the base has {list(whole)}"


def _place(match: Match) -> str:
    return f"{match.component}.{match.parameters[0]}"


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
            stems = stems or [stem for _, names in _written(base, file) for stem, _ in names]
            nearest = difflib.get_close_matches(layer.stem, stems, 1, 0.8)
        yield Unmatched(adapter, layer.stem, reasons.get(id(layer), reason), nearest[0] if nearest else None)
    for key in file.unknown_keys:
        yield Unmatched(adapter, key, "not a known part of an adapter", loose=True)
