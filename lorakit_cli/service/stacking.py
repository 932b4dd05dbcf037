"""Sums of changes in exact form: factors side by side (`cat`), or added where one of the two is the same (`linear`)."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lorakit_cli.core.merge_method import MergeSettings
from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.errors import UnsupportedError
from lorakit_cli.service.lanes import Job, Progress, run_side_by_side
from lorakit_cli.service.slot_values import dtype_of, inner_size, stacked, thin
from lorakit_cli.service.stored_factors import StoredFactors, compared, quick_norm, store
from lorakit_cli.service.task_arithmetic import merged_factors
from lorakit_cli.service.tensors import TensorReader

# What rounding leaves of a sum that is none, relative to what was summed.
_NOTHING = 1e-7
_WIDE = torch.float64
# So many modules make a job.
_AT_ONCE = 8

Give = Callable[[MergeSlot, TensorReader, torch.dtype], tuple[Tensor, Tensor]]


def stack(
    slots: Sequence[MergeSlot], reader: TensorReader, dtype: torch.dtype | None, progress: Progress | None = None
) -> list[StoredFactors]:
    """Put the factors of each module side by side: their ranks add up, and their product is the sum.

    Weights and scales go into the first factor, in fp32 where it is then stored in 16 bits, else in fp64. Raises
    UnsupportedError for a change that has no factors.
    """
    return _each(slots, reader, dtype, _side_by_side, progress)


def add(
    slots: Sequence[MergeSlot], reader: TensorReader, dtype: torch.dtype | None, progress: Progress | None = None
) -> list[StoredFactors]:
    """Add the factors of each module where only one of the two differs, so that the rank stays as it is.

    Raises UnsupportedError for a module where both differ: the product of the sums has cross terms.
    """
    return _each(slots, reader, dtype, _added, progress)


def approximate(
    slots: Sequence[MergeSlot],
    reader: TensorReader,
    settings: MergeSettings,
    dtype: torch.dtype | None,
    progress: Progress | None = None,
) -> list[StoredFactors]:
    """Merge the factors of each module by themselves, and hold the outcome against the exact sum.

    Raises UnsupportedError where they are not alike.
    """

    def give(slot: MergeSlot, reader: TensorReader, wide: torch.dtype) -> tuple[Tensor, Tensor]:
        return merged_factors(slot, reader, settings)

    return _each(slots, reader, dtype, give, progress, exact=False)


def _each(
    slots: Sequence[MergeSlot],
    reader: TensorReader,
    dtype: torch.dtype | None,
    give: Give,
    progress: Progress | None,
    *,
    exact: bool = True,
) -> list[StoredFactors]:
    done: dict[int, StoredFactors] = {}

    def job(own: Sequence[MergeSlot]) -> Job:
        def run() -> int:
            for slot in own:
                stored = dtype or dtype_of(slot, reader)
                left, right = give(slot, reader, torch.float32 if stored.itemsize < torch.float32.itemsize else _WIDE)
                found = quick_norm(left, right)
                if found.norm <= _NOTHING * found.bound:
                    left, right = left[:, :0], right[:0]
                    result = store(slot, left, right, stored, 0.0, 0.0)
                else:
                    result = store(slot, left, right, stored, found.norm, 0.0, found.down_squares)
                done[id(slot)] = result if exact else compared(result, left, right, reader)
            return len(own)

        return run

    run_side_by_side(map(job, _some(slots)), reader.device, progress)
    return [done[id(slot)] for slot in slots]


def _some(slots: Sequence[MergeSlot]) -> Iterator[Sequence[MergeSlot]]:
    for begin in range(0, len(slots), _AT_ONCE):
        yield slots[begin : begin + _AT_ONCE]


def _side_by_side(slot: MergeSlot, reader: TensorReader, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    inner = inner_size(slot, as_stored=True)
    if inner is None:
        kinds = " + ".join(dict.fromkeys(part.share.layer.kind.name for part in slot.contributions))
        raise UnsupportedError(
            f"{slot.place.stem} is {kinds}, whose change has no factors to put side by side; "
            "--method svd --rank N finds the closest ones and says how close"
        )
    rows, columns = slot.matrix
    left = torch.zeros(rows, inner, dtype=wide, device=reader.device)
    right = left.new_empty(inner, columns)
    stacked(slot, reader, left, right)
    return left, right


def _added(slot: MergeSlot, reader: TensorReader, wide: torch.dtype) -> tuple[Tensor, Tensor]:
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
    if all(_same(down, downs[0]) for down in downs):
        return _weighted(ups, scales), downs[0]
    if all(_same(up, ups[0]) for up in ups):
        return ups[0], _weighted(downs, scales)
    raise UnsupportedError(
        f"{slot.place.stem}: {' and '.join(dict.fromkeys(part.adapter for part in slot.contributions))} differ in both "
        "factors, and adding them gives cross terms that are in none of the adapters; --method cat is exact, and svd "
        "the closest of a rank"
    )


def _weighted(tensors: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    return torch.stack([tensor * scale for tensor, scale in zip(tensors, scales, strict=True)]).sum(0)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.equal(one, other))
