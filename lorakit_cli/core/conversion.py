"""Write an adapter's layers in another layout: the same changes under other names, byte for byte where that can be.

A layer over fused rows (qkv) is split by rows: every part keeps `down` whole and its own rows of `up`. Layers over
parts are joined into one over the fused rows. Both are exact.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.held import component_of, is_matrix, unheld
from lorakit_cli.core.joined_layer import join
from lorakit_cli.core.lora_file import LoraFile, LoraLayer
from lorakit_cli.core.match import Match
from lorakit_cli.core.new_layer import NewLayer, Place, Share, rename
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.errors import UnsupportedError


class Slot(NamedTuple):
    """A module under the name that the new layout has for it."""

    component: BaseComponent
    name: Name
    stem: str


def convert_layers(
    file: LoraFile, base: BaseIndex, matches: Sequence[Match], target: TargetLayout
) -> tuple[NewLayer, ...]:
    """Give the layers of an adapter in another layout.

    Raises UnsupportedError for what the layout cannot hold, with the reason.
    """
    _require_held(base, matches, target)
    slots = {name: slots_of(base, name, target) for name in dict.fromkeys(component_of(match) for match in matches)}
    shares: dict[tuple[str, str, str], list[tuple[Slot, Share]]] = {}
    for match in matches:
        component = component_of(match)
        for slot, share in shares_of(match, slots[component]):
            shares.setdefault((component, slot.stem, match.layer.kind.name), []).append((slot, share))
    return tuple(_new_layer(file, parts, target) for parts in shares.values())


def _require_held(base: BaseIndex, matches: Sequence[Match], target: TargetLayout) -> None:
    for match, reason in unheld(base, matches, target):
        hint = " (--to-lora --rank N approximates such layers)" if is_matrix(match) else ""
        raise UnsupportedError(f"the {target.name} layout {reason}{hint}")


def slots_of(base: BaseIndex, name: str, target: TargetLayout) -> dict[str, Slot]:
    """Give for each module of a component the name that the new layout has for it: the widest, then the first."""
    component = base.components[name]
    chosen: dict[str, Name] = {module: Name(module, (module,)) for module in component.modules}
    if component.architecture and target.native(component):
        widest: dict[str, Name] = {}
        for entry in component.names:
            if entry.text not in chosen:
                for module in entry.parts:
                    if module not in widest or len(entry.parts) > len(widest[module].parts):
                        widest[module] = entry
        chosen |= widest
    write = target.stem(base, component)
    made = {entry.text: Slot(component, entry, write(entry.text)) for entry in chosen.values()}
    return {module: made[entry.text] for module, entry in chosen.items()}


def shares_of(match: Match, slots: Mapping[str, Slot]) -> Iterator[tuple[Slot, Share]]:
    """Part a layer among the names of the new layout; parts that stay together stay in one share.

    Raises UnsupportedError where the layout has its parts in another order.
    """
    layer = match.layer
    own = slots[match.name.parts[0]]
    if own.name.parts == match.name.parts:
        rows = sum(shape_of(own.component, module, layer)[0] for module in own.name.parts)
        yield own, Share(layer, 0, rows, rows, 0, rows, match.name.swapped != own.name.swapped)
        return
    parts = list(zip(match.name.parts, match.parts, strict=True))
    while parts:
        slot = slots[parts[0][0]]
        together = [(module, part) for module, part in parts if slots[module] is slot]
        parts = [entry for entry in parts if entry not in together]
        sizes = [shape_of(slot.component, module, layer)[0] for module in slot.name.parts]
        first = slot.name.parts.index(together[0][0])
        order = slot.name.parts[first : first + len(together)]
        if order != tuple(module for module, _ in together):
            raise UnsupportedError(f"{layer.stem} covers {', '.join(order)} in another order than {slot.name.text}")
        start, stop = together[0][1].start, together[-1][1].stop
        swapped = match.name.swapped != slot.name.swapped
        yield slot, Share(layer, start, stop, match.parts[-1].stop, sum(sizes[:first]), sum(sizes), swapped)


def shape_of(component: BaseComponent, module: str, layer: LoraLayer) -> tuple[int, ...]:
    """Give the shape of the parameter of a module that a layer changes. Raises UnsupportedError."""
    for parameter in (f"{module}.{layer.kind.parameter}", module):
        shape = component.find(parameter)
        if shape is not None:
            return shape or (1,)
    raise UnsupportedError(f"the model has no {module}.{layer.kind.parameter}, which {layer.stem} would change")


def _new_layer(file: LoraFile, parts: Sequence[tuple[Slot, Share]], target: TargetLayout) -> NewLayer:
    slot, share = parts[0]
    shape = shape_of(slot.component, slot.name.parts[0], share.layer)
    place = Place(slot.stem, slot.component.name, slot.name, (share.total, *shape[1:]), target)
    if len(parts) == 1 and share.stop - share.start == share.total:
        return rename(file, place, share)
    return join(file, place, [part for _, part in parts])
