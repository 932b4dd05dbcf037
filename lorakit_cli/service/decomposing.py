"""Find the singular values of what adapters change, module by module, those of one shape together."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.service.dense_rank import decompose
from lorakit_cli.service.lanes import Job, Progress, run_side_by_side
from lorakit_cli.service.low_rank import factor
from lorakit_cli.service.slot_values import inner_size, stacked, whole
from lorakit_cli.service.tensors import TensorReader

# Values of both factors that are worked on at once: 8 MB in fp64, and enough of them to keep a GPU at work.
_ELEMENTS, _ELEMENTS_ON_GPU = 1 << 20, 1 << 26
# What rounding leaves of a singular value that is none, relative to the largest.
_NOTHING = 1e-14

# Gives the matrix to decompose for a module.
Total = Callable[[MergeSlot, TensorReader], Tensor]


@dataclass(frozen=True, slots=True)
class Decomposed:
    """The change of one module by its singular values, the largest first, without those that are nothing.

    `norm` is the Frobenius norm of the change, `rest` that of what lies beyond `values`, where only the first were
    looked for. `balanced(rank)` gives the closest `[rows, rank]` and `[rank, columns]`.
    """

    slot: MergeSlot
    values: Sequence[float]
    norm: float
    rest: float
    balanced: Callable[[int], tuple[Tensor, Tensor]]

    def tail(self, rank: int) -> float:
        """Give the norm of what a rank leaves out: by Eckart and Young (1936) no product of that rank comes closer."""
        return math.hypot(self.rest, *self.values[rank:])


class _Batch(NamedTuple):
    """Modules of one shape, whose stacked factors have one inner size; None for one without factors."""

    slots: tuple[MergeSlot, ...]
    inner: int | None


def decompose_each(
    slots: Sequence[MergeSlot],
    reader: TensorReader,
    use: Callable[[Decomposed], None],
    *,
    most: int | None = None,
    total: Total | None = None,
    progress: Progress | None = None,
) -> None:
    """Decompose the sum of all changes of each module, or what `total` gives, and hand each to `use` in some thread.

    `most`: more singular values than these are not asked for, where finding all takes longer. Never builds the change
    of a module that all have factors for.
    """
    batches = _batches(slots, reader.device) if total is None else [_Batch((slot,), None) for slot in slots]

    def job(batch: _Batch) -> Job:
        def run() -> int:
            if batch.inner is None:
                (slot,) = batch.slots
                use(_from_matrix(slot, (total or whole)(slot, reader), most))
            else:
                for one in _from_factors(batch.slots, batch.inner, reader):
                    use(one)
            return len(batch.slots)

        return run

    run_side_by_side(map(job, batches), reader.device, progress)


def _batches(slots: Sequence[MergeSlot], device: torch.device) -> Iterator[_Batch]:
    alike: dict[tuple[int, int, int], list[MergeSlot]] = {}
    for slot in slots:
        inner = inner_size(slot)
        if inner is None:
            yield _Batch((slot,), None)
        else:
            alike.setdefault((*slot.matrix, inner), []).append(slot)
    # The largest first, so that no thread is left with one at the end.
    for (rows, columns, inner), own in sorted(alike.items(), key=lambda item: -sum(item[0][:2]) * item[0][2]):
        most = _ELEMENTS if device.type == "cpu" else _ELEMENTS_ON_GPU
        size = max(1, most // ((rows + columns) * inner))
        for begin in range(0, len(own), size):
            yield _Batch(tuple(own[begin : begin + size]), inner)


def _from_factors(slots: Sequence[MergeSlot], inner: int, reader: TensorReader) -> Iterator[Decomposed]:
    rows, columns = slots[0].matrix
    lefts = torch.zeros(len(slots), rows, inner, dtype=torch.float64, device=reader.device)
    rights = lefts.new_empty(len(slots), inner, columns)
    for place, slot in enumerate(slots):
        stacked(slot, reader, lefts[place], rights[place])
    found = factor(lefts, rights)
    values, floors = found.values.tolist(), found.floor.tolist()
    for place, slot in enumerate(slots):
        own = [value for value in values[place] if value > floors[place]]

        def balanced(rank: int, place: int = place) -> tuple[Tensor, Tensor]:
            return found.balanced(place, rank)

        yield Decomposed(slot, own, math.hypot(*own), 0.0, balanced)


def _from_matrix(slot: MergeSlot, matrix: Tensor, most: int | None) -> Decomposed:
    norm = float(matrix.norm())
    left, found, right = decompose(matrix, most)
    values: list[float] = found.tolist()
    rest = 0.0 if len(values) == min(matrix.shape) else math.sqrt(max(norm**2 - math.hypot(*values) ** 2, 0.0))
    own = [value for value in values if value > _NOTHING * values[0]]

    def balanced(rank: int) -> tuple[Tensor, Tensor]:
        root = found[:rank].sqrt()
        return left[:, :rank] * root, root[:, None] * right[:rank]

    return Decomposed(slot, own, norm, rest, balanced)
