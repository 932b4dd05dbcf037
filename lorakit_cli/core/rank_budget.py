"""Ranks of all layers under one budget of bytes: the singular value that gains the most per byte comes first."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

_MOST_TRIES = 50


class Spectrum(NamedTuple):
    """The singular values of a layer, the largest first, and the bytes that each of them takes."""

    values: Sequence[float]
    cost: int


def ranks_within(spectra: Sequence[Spectrum], budget: int, real_size: Callable[[Sequence[int]], int]) -> list[int]:
    """Choose a rank for each layer, at least 1, such that the whole file is no larger than the budget.

    `real_size` gives the size of the file with some ranks, header included. Raises ValueError with the least size where
    the budget is below it.
    """
    least = [min(1, len(spectrum.values)) for spectrum in spectra]
    smallest = real_size(least)
    if smallest > budget:
        raise ValueError(smallest)
    order = sorted(
        (
            (-value * value / spectrum.cost, place, layer)
            for layer, spectrum in enumerate(spectra)
            for place, value in enumerate(spectrum.values)
            if place
        ),
    )
    room = budget - smallest
    for _ in range(_MOST_TRIES):
        ranks = _filled(spectra, least, order, room)
        over = real_size(ranks) - budget
        if over <= 0:
            return ranks
        # What the header grew by.
        room -= over
    return least


def _filled(
    spectra: Sequence[Spectrum], least: Sequence[int], order: Sequence[tuple[float, int, int]], room: int
) -> list[int]:
    ranks = list(least)
    for _, place, layer in order:
        # Behind one that had no room, those of its layer have none either.
        if ranks[layer] == place and spectra[layer].cost <= room:
            ranks[layer] += 1
            room -= spectra[layer].cost
    return ranks
