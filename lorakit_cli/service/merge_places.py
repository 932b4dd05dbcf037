"""The modules where adapters meet, in the one model that all are for."""

from collections.abc import Sequence
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.merge_slots import Merged, MergeSlot, merge_slots
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.service.placing import undecided
from lorakit_cli.service.placing_together import place_together
from lorakit_cli.service.plain_changes import require_plain_changes


class MeetingPlaces(NamedTuple):
    """The base, its name or names, and the modules with all that changes them."""

    base: BaseIndex
    name: str
    slots: tuple[MergeSlot, ...]


def meeting_places(
    adapters: Sequence[Merged], base: str | None, target: TargetLayout, *, allow_pickle: bool = False
) -> MeetingPlaces:
    """Find the modules of adapters, whose matches are looked for here, in a layout.

    Where several models may be meant, what comes out must not depend on which of them it is. Raises MatchError,
    UnsupportedError, BlockScalesError.
    """
    found: list[tuple[BaseIndex, tuple[MergeSlot, ...]]] = []
    require_plain_changes(adapters, base)
    placed = place_together([adapter.file for adapter in adapters], base, allow_pickle=allow_pickle)
    for together in placed:
        own = [adapter._replace(matches=matches) for adapter, matches in zip(adapters, together.matches, strict=True)]
        found.append((together.base, merge_slots(together.base, own, target)))
    names = list(dict.fromkeys(together.name for together in placed))
    first = found[0]
    if any(_outcome(slots) != _outcome(first[1]) for _, slots in found[1:]):
        raise undecided(adapters[0].file, [f"its layers fit {' and '.join(names)}"])
    return MeetingPlaces(first[0], " or ".join(names), first[1])


def _outcome(slots: Sequence[MergeSlot]) -> list[object]:
    return [
        (slot.place.component, slot.place.stem, slot.place.name, slot.shape, slot.parameter, slot.contributions)
        for slot in slots
    ]
