"""What block scales came out at, block by block, for the eyes of the user."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lorakit_cli.core.blocks import Position
from lorakit_cli.core.bound_scales import OTHER, BoundComponent, BoundScales


class Touched(NamedTuple):
    """What an adapter has in one place: how many layers, and how strongly they act."""

    layers: int
    strength: float


class ResolvedScale(NamedTuple):
    """The scale of a component, or of a run of blocks in it that are alike, or of what stands outside its blocks.

    `place` is what it may be called; `first` and `last` are the numbers of the blocks, `layer` that of a transformer
    layer, None where all of them are meant. `layers` counts those of the adapter there; without any there is no
    strength.
    """

    component: str
    group: str | None
    first: int | None
    last: int | None
    layer: int | None
    place: str
    scale: float
    strength: float | None
    layers: int


def resolve(scales: BoundScales, touched: Mapping[tuple[str, Position | None], Touched]) -> tuple[ResolvedScale, ...]:
    """List the scales of an adapter: of every component that is named or touched, every block, runs joined.

    `touched` says where the adapter has layers, by component and the place that `position_of` gives.
    """
    rows: list[ResolvedScale] = []
    for component in dict.fromkeys((*scales.components, *(component for component, _ in touched))):
        scale = scales.components.get(component, 1.0)
        own = {position: found for (name, position), found in touched.items() if name == component and position}
        if isinstance(scale, BoundComponent):
            rows += _blocks(component, scale, own)
            rows += _outside(component, scale, own)
        else:
            rows.append(_row(component, None, None, None, None, component, scale, touched.get((component, None))))
    return tuple(rows)


def position_of(scales: BoundScales, component: str, module: str) -> Position | None:
    """Give the place of a module, or of one of its parameters, None where its component has one number."""
    scale = scales.components.get(component)
    return scale.blocks.locate(module) if isinstance(scale, BoundComponent) else None


def together(parts: Iterable[Touched | None]) -> Touched | None:
    """Add up what an adapter has in several places of one strength."""
    found = [part for part in parts if part]
    return Touched(sum(part.layers for part in found), found[0].strength) if found else None


def _row(
    component: str,
    group: str | None,
    first: int | None,
    last: int | None,
    layer: int | None,
    place: str,
    scale: float,
    touched: Touched | None,
) -> ResolvedScale:
    strength, layers = (touched.strength, touched.layers) if touched else (None, 0)
    return ResolvedScale(component, group, first, last, layer, place, scale, strength, layers)


def _blocks(component: str, bound: BoundComponent, own: Mapping[Position, Touched]) -> Iterator[ResolvedScale]:
    """Yield a row for each run of blocks that have one scale and are all touched or none of them."""
    for group, counts in bound.blocks.groups.items():
        run: list[int] = []
        for block in counts:
            if run and _sort(bound, own, group, block) != _sort(bound, own, group, run[-1]):
                yield from _run(component, bound, own, group, run)
                run = []
            run.append(block)
        yield from _run(component, bound, own, group, run)


def _positions(bound: BoundComponent, group: str, block: int) -> list[Position]:
    return [Position(group, block, layer) for layer in range(max(bound.blocks.groups[group][block], 1))]


def _sort(bound: BoundComponent, own: Mapping[Position, Touched], group: str, block: int) -> object:
    """Give what blocks have in common that are shown in one row; one with several scales is like no other."""
    places = _positions(bound, group, block)
    scales = {bound.values[place] for place in places}
    return (scales.pop(), any(place in own for place in places)) if len(scales) == 1 else block


def _run(
    component: str, bound: BoundComponent, own: Mapping[Position, Touched], group: str, run: list[int]
) -> Iterator[ResolvedScale]:
    blocks = bound.blocks
    places = [place for block in run for place in _positions(bound, group, block)]
    name = f"{component}.{group}"
    if not blocks.is_single(group):
        name += f".{blocks.block_name(run[0], run[-1])}"
    if len({bound.values[place] for place in places}) == 1:
        touched = together(own.get(place) for place in places)
        yield _row(component, group, run[0], run[-1], None, name, bound.values[places[0]], touched)
        return
    for place in places:
        where = f"{name}.{place.layer}"
        yield _row(component, group, run[0], run[-1], place.layer, where, bound.values[place], own.get(place))


def _outside(component: str, bound: BoundComponent, own: Mapping[Position, Touched]) -> Iterator[ResolvedScale]:
    """Yield a row for each name that was given outside the blocks, and one for the others if there is a use for it."""
    rest = []
    for name in bound.blocks.outside:
        place = Position(name)
        if name in bound.named:
            yield _row(component, name, None, None, None, f"{component}.{name}", bound.values[place], own.get(place))
        else:
            rest.append(place)
    touched = together(own.get(place) for place in rest)
    if rest and (touched or OTHER in bound.named):
        scale = bound.values[rest[0]]
        yield _row(component, OTHER, None, None, None, f"{component}.{OTHER}", scale, touched)
