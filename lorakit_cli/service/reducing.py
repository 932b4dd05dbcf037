"""Bring the summed changes of modules to a lower rank: to the closest product there is, module by module."""

from collections.abc import Callable, Sequence

import torch

from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.service.decomposing import Decomposed, Total, decompose_each
from lorakit_cli.service.lanes import Progress
from lorakit_cli.service.slot_values import dtype_of
from lorakit_cli.service.stored_factors import StoredFactors, compared, store
from lorakit_cli.service.tensors import TensorReader

# Says how many of a module's singular values, the largest first, are kept.
Count = Callable[[MergeSlot, Sequence[float]], int]


def reduce_rank(
    slots: Sequence[MergeSlot],
    reader: TensorReader,
    count: Count,
    dtype: torch.dtype | None,
    *,
    most: int | None = None,
    total: Total | None = None,
    progress: Progress | None = None,
) -> list[StoredFactors]:
    """Give each module's change at the rank that `count` says, in the order of the modules, rounded to `dtype`.

    `dtype` None is what its factors are stored in. `most`: `count` asks for no more than that. `total` gives another
    change than the sum of all; errors are those against the sum all the same.
    """
    done: dict[int, StoredFactors] = {}

    def use(found: Decomposed) -> None:
        slot, rank = found.slot, count(found.slot, found.values)
        up, down = found.balanced(rank)
        result = store(slot, up, down, dtype or dtype_of(slot, reader), found.norm, found.tail(rank))
        done[id(slot)] = compared(result, up, down, reader) if total else result

    decompose_each(slots, reader, use, most=most, total=total, progress=progress)
    return [done[id(slot)] for slot in slots]


def spectra(
    slots: Sequence[MergeSlot], reader: TensorReader, total: Total | None = None, progress: Progress | None = None
) -> list[Sequence[float]]:
    """List the singular values of each module's change, the largest first."""
    done: dict[int, Sequence[float]] = {}

    def use(found: Decomposed) -> None:
        done[id(found.slot)] = found.values

    decompose_each(slots, reader, use, total=total, progress=progress)
    return [done[id(slot)] for slot in slots]
