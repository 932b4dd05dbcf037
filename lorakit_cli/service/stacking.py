"""Sums of changes in exact form: factors side by side (`cat`), or added where one of the two is the same (`linear`)."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lorakit_cli.core.merge_method import MergeSettings
from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.core.tensor_info import BIT_SIZES
from lorakit_cli.errors import UnsupportedError
from lorakit_cli.service.factor_reader import FactorReader
from lorakit_cli.service.lanes import Job, Progress, run_side_by_side
from lorakit_cli.service.low_rank import factor
from lorakit_cli.service.slot_factors import Pair, device_of, dtype_of, inner_size, stacked, thin
from lorakit_cli.service.stored_factors import StoredFactors, compared, quick_norm, store

# From here on down, relative to what was summed, a sum is made in fp64 and looked at closely: fp32 has few digits of it
# left, and squares none.
_LITTLE = 1e-4
# An error of this share of a change is as good as one of all of it.
_ALL = 0.999
# So many modules make a job.
_AT_ONCE = 8

Give = Callable[[MergeSlot, FactorReader, DTypeLike], Pair]


def stack(
    slots: Sequence[MergeSlot], reader: FactorReader, dtype: str | None, progress: Progress | None = None
) -> list[StoredFactors]:
    """Put the factors of each module side by side: their ranks add up, and their product is the sum.

    Weights and scales go into the first factor, in fp32 where it is then stored in 16 bits, else in fp64. Raises
    UnsupportedError for a change that has no factors.
    """
    return _each(slots, reader, dtype, _side_by_side, progress)


def add(
    slots: Sequence[MergeSlot], reader: FactorReader, dtype: str | None, progress: Progress | None = None
) -> list[StoredFactors]:
    """Add the factors of each module where only one of the two differs, so that the rank stays as it is.

    Raises UnsupportedError for a module where both differ: the product of the sums has cross terms.
    """
    return _each(slots, reader, dtype, _added, progress)


def approximate(
    slots: Sequence[MergeSlot],
    reader: FactorReader,
    settings: MergeSettings,
    dtype: str | None,
    progress: Progress | None = None,
) -> list[StoredFactors]:
    """Merge the factors of each module by themselves, and hold the outcome against the exact sum.

    Raises UnsupportedError where they are not alike.
    """
    from lorakit_cli.service.task_arithmetic import merged_factors

    def give(slot: MergeSlot, reader: FactorReader, wide: DTypeLike) -> Pair:
        return merged_factors(slot, reader, settings)

    return _each(slots, reader, dtype, give, progress, exact=False)


def _each(
    slots: Sequence[MergeSlot],
    reader: FactorReader,
    dtype: str | None,
    give: Give,
    progress: Progress | None,
    *,
    exact: bool = True,
) -> list[StoredFactors]:
    done: dict[int, StoredFactors] = {}

    def job(own: Sequence[MergeSlot]) -> Job:
        def run() -> int:
            for slot in own:
                result, pair = _stored(slot, reader, dtype or dtype_of(slot, reader), give)
                done[id(slot)] = result if exact else compared(result, *pair, reader)
            return len(own)

        return run

    run_side_by_side(map(job, _some(slots)), device_of(slots, reader), progress)
    return [done[id(slot)] for slot in slots]


def _stored(slot: MergeSlot, reader: FactorReader, dtype: str, give: Give) -> tuple[StoredFactors, Pair]:
    """Store the factors of a module, none where they come to nothing; give them also as they were before rounding."""
    left, right = give(slot, reader, np.float32 if BIT_SIZES[dtype] < BIT_SIZES["F32"] else np.float64)
    down_squares: NDArray[Any] | None
    norm, bound, down_squares = quick_norm(left, right)
    if norm <= _LITTLE * bound < math.inf:
        left, right = give(slot, reader, np.float64)
        norm, down_squares = _close_norm(left, right), None
    result = store(slot, left, right, dtype, norm, 0.0, down_squares)
    if result.error >= _ALL * norm:
        # What rounding adds to so little is as much as all of it.
        left, right = left[:, :0], right[:0]
        result = store(slot, left, right, dtype, norm, norm)
    return result, (left, right)


def _close_norm(left: NDArray[Any], right: NDArray[Any]) -> float:
    """Give the norm of a product whose terms all but cancel each other, 0 for what rounding leaves of none."""
    found = factor(left[None], right[None])
    return math.hypot(*(value for value in found.values[0].tolist() if value > found.floor[0]))


def _some(slots: Sequence[MergeSlot]) -> Iterator[Sequence[MergeSlot]]:
    for begin in range(0, len(slots), _AT_ONCE):
        yield slots[begin : begin + _AT_ONCE]


def _side_by_side(slot: MergeSlot, reader: FactorReader, wide: DTypeLike) -> Pair:
    inner = inner_size(slot, as_stored=True)
    if inner is None:
        kinds = " + ".join(dict.fromkeys(part.share.layer.kind.name for part in slot.contributions))
        raise UnsupportedError(
            f"{slot.place.stem} is {kinds}, whose change has no factors to put side by side; "
            "--method svd --rank N finds the closest ones and says how close"
        )
    rows, columns = slot.matrix
    left, right = np.zeros((rows, inner), wide), np.empty((inner, columns), wide)
    stacked(slot, reader, left, right)
    return left, right


def _added(slot: MergeSlot, reader: FactorReader, wide: DTypeLike) -> Pair:
    if len(slot.contributions) == 1:
        return _side_by_side(slot, reader, wide)
    if any(not part.share.layer.kind.product or not part.share.covers for part in slot.contributions):
        raise UnsupportedError(
            f"{slot.place.stem}: linear adds factors, which is exact for plain LoRA of one and the same module alone; "
            "use --method cat or svd"
        )
    pairs = [thin(part, reader, wide, scaled=False) for part in slot.contributions]
    scales = [part.share.layer.scale * part.strength for part in slot.contributions]
    ups, downs = zip(*pairs, strict=True)
    if all(np.array_equal(down, downs[0]) for down in downs):
        return _weighted(ups, scales), downs[0]
    if all(np.array_equal(up, ups[0]) for up in ups):
        return ups[0], _weighted(downs, scales)
    raise UnsupportedError(
        f"{slot.place.stem}: {' and '.join(dict.fromkeys(part.adapter for part in slot.contributions))} differ in both "
        "factors, and adding them gives cross terms that are in none of the adapters; --method cat is exact, and svd "
        "the closest of a rank"
    )


def _weighted(factors: Sequence[NDArray[Any]], scales: Sequence[float]) -> NDArray[Any]:
    total: NDArray[Any] = np.stack([factor * scale for factor, scale in zip(factors, scales, strict=True)]).sum(0)
    return total
