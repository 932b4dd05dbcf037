"""Keep the largest values of a tensor, exactly as many as asked for, in less time than it takes to sort them.

A sample tells nearly where the smallest of them lies; only the values around that place are ordered, and counting the
rest proves that it is the right one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# So many values are looked at in a time, which stay in a processor's cache; a GPU is asked as seldom as can be.
_AT_ONCE, _AT_ONCE_ON_GPU = 1 << 18, 1 << 26
_SAMPLE = 1 << 14
# How far the sample may be off, in standard deviations of what it estimates.
_DEVIATIONS = 4


class _Edge(NamedTuple):
    """The size of the smallest value to keep, and the places of those of this very size that are kept."""

    size: float
    places: Tensor


def keep_largest(values: Tensor, count: int) -> Tensor:
    """Set all but so many of the values to 0, in place, by their size; of equal ones the first stay."""
    flat = values.reshape(-1)
    if count < len(flat):
        edge = _edge(flat, count) if count else _Edge(float("inf"), torch.empty(0, dtype=torch.long))
        kept = flat[edge.places]
        for part in _parts(flat):
            # Of what is no larger than this nothing stays.
            part.copy_(torch.nn.functional.hardshrink(part, edge.size))
        flat[edge.places] = kept
    return flat.view(values.shape)


def _parts(flat: Tensor) -> Iterator[Tensor]:
    size = _AT_ONCE if flat.device.type == "cpu" else _AT_ONCE_ON_GPU
    for begin in range(0, len(flat), size):
        yield flat[begin : begin + size]


def _edge(flat: Tensor, count: int) -> _Edge:
    if len(flat) > 4 * _SAMPLE:
        lowest, highest = _around(flat, count)
        found = _between(flat, count, lowest, highest)
        if found:
            return found
    found = _between(flat, count, 0.0, float("inf"))
    assert found
    return found


def _around(flat: Tensor, count: int) -> tuple[float, float]:
    """Give two sizes between which the last of the largest lies, unless chance or a pattern is against it."""
    # No multiple of a number of columns.
    sample = flat[:: len(flat) // _SAMPLE | 1].abs().sort().values
    share = 1 - count / len(flat)
    wide = _DEVIATIONS * (len(sample) * share * (1 - share)) ** 0.5 + 2
    place, last = share * len(sample), len(sample) - 1
    return float(sample[max(int(place - wide), 0)]), float(sample[min(int(place + wide), last)])


def _between(flat: Tensor, count: int, lowest: float, highest: float) -> _Edge | None:
    """Find the edge among the values between two sizes; None where it is not there."""
    above = begin = 0
    inside: list[Tensor] = []
    for part in _parts(flat):
        sizes = part.abs()
        above += int(torch.count_nonzero(sizes > highest))
        inside.append(((sizes >= lowest) & (sizes <= highest)).nonzero()[:, 0].add_(begin))
        begin += len(part)
    places = torch.cat(inside)
    wanted = count - above
    if not 0 < wanted <= len(places):
        return None
    sizes = flat[places].abs()
    size = sizes.kthvalue(len(sizes) - wanted + 1).values
    equal = places[sizes == size]
    return _Edge(float(size), equal[: wanted - int(torch.count_nonzero(sizes > size))])
