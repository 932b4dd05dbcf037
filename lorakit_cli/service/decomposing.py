"""Find the singular values of what adapters change, module by module, those of one shape together."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.kinds.norms import frobenius
from lorakit_cli.service.factor_reader import FactorReader
from lorakit_cli.service.lanes import Job, Progress, run_side_by_side
from lorakit_cli.service.low_rank import Factored, factor
from lorakit_cli.service.slot_factors import device_of, inner_size, stacked, too_large

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lorakit_cli.service.tensors import TensorReader

# So many multiplications take two cores some ten seconds, and torch with a GPU two before it begins.
_WORTH_A_GPU = 2e11
# Values of both factors that are worked on at once: 8 MB in fp64, and 64 where a GPU waits for them.
_ELEMENTS, _ELEMENTS_ON_GPU = 1 << 20, 1 << 23
# What a Gram matrix in fp64 leaves of a singular value that is none, relative to the largest.
_SQUARED = 1e-7

# Gives the matrix to decompose for a module.
Total = Callable[[MergeSlot, "TensorReader"], "Tensor"]
# Says what to keep of a module.
RuleOf = Callable[[MergeSlot], RankRule]


@dataclass(frozen=True, slots=True)
class Decomposed:
    """The change of one module as the closest product of the rank that was to be kept.

    `up` is `[rows, rank]`, `down` `[rank, columns]`, `norm` the Frobenius norm of the change, and `tail` that of what
    the rank leaves out: by Eckart and Young (1936) no product of that rank comes closer.
    """

    slot: MergeSlot
    up: NDArray[Any]
    down: NDArray[Any]
    norm: float
    tail: float


class _Batch(NamedTuple):
    """Modules of one shape, whose stacked factors have one inner size; None for one without factors."""

    slots: tuple[MergeSlot, ...]
    inner: int | None


def decompose_each(
    slots: Sequence[MergeSlot],
    reader: FactorReader,
    rule_of: RuleOf,
    use: Callable[[Decomposed], None],
    *,
    total: Total | None = None,
    progress: Progress | None = None,
) -> None:
    """Decompose the sum of all changes of each module, or what `total` gives, and hand each to `use` in some thread.

    Never builds the change of a module that all have factors for. Raises UnsupportedError for one that is not finite.
    """
    gpu = _gpu(slots, total)

    def job(batch: _Batch) -> Job:
        def run() -> int:
            if batch.inner is None:
                (slot,) = batch.slots
                use(_from_matrix(slot, _matrix(slot, reader, total), rule_of(slot)))
            else:
                for one in _from_factors(batch.slots, batch.inner, reader, rule_of, gpu):
                    use(one)
            return len(batch.slots)

        return run

    _run(job, slots, reader, gpu, total, progress)


def spectra(
    slots: Sequence[MergeSlot], reader: FactorReader, total: Total | None = None, progress: Progress | None = None
) -> list[Sequence[float]]:
    """List the singular values of each module's change, the largest first, without those that are nothing."""
    done: dict[int, Sequence[float]] = {}
    gpu = _gpu(slots, total)

    def job(batch: _Batch) -> Job:
        def run() -> int:
            if batch.inner is None:
                from lorakit_cli.service.dense_rank import singular_values

                (slot,) = batch.slots
                values = singular_values(_matrix(slot, reader, total))
                done[id(slot)] = [value for value in values if value > _SQUARED * values[0]]
            else:
                _, found = _factored(batch.slots, batch.inner, reader, gpu)
                done.update(zip(map(id, batch.slots), found, strict=True))
            return len(batch.slots)

        return run

    _run(job, slots, reader, gpu, total, progress)
    return [done[id(slot)] for slot in slots]


def _run(
    job: Callable[[_Batch], Job],
    slots: Sequence[MergeSlot],
    reader: FactorReader,
    gpu: "torch.device | None",
    total: Total | None,
    progress: Progress | None,
) -> None:
    batches = list(_batches(slots, _ELEMENTS_ON_GPU if gpu else _ELEMENTS, total))
    whole = any(batch.inner is None for batch in batches)
    device = reader.tensors.device if whole else gpu or device_of(slots, reader)
    run_side_by_side(map(job, batches), device, progress)


def _gpu(slots: Sequence[MergeSlot], total: Total | None) -> "torch.device | None":
    """Give the GPU that factors are to be decomposed on, None where there is none or it would take longer."""
    inner = [0 if total else inner_size(slot) or 0 for slot in slots]
    if sum(sum(slot.matrix) * size**2 for slot, size in zip(slots, inner, strict=True)) < _WORTH_A_GPU:
        return None
    from lorakit_cli.service.devices import fp64_device

    device = fp64_device()
    return None if device.type == "cpu" else device


def _batches(slots: Sequence[MergeSlot], most: int, total: Total | None) -> Iterator[_Batch]:
    if total:
        yield from (_Batch((slot,), None) for slot in sorted(slots, key=lambda slot: -prod(slot.matrix)))
        return
    alike: dict[tuple[int, int, int], list[MergeSlot]] = {}
    for slot in slots:
        inner = inner_size(slot)
        if inner is None:
            yield _Batch((slot,), None)
        else:
            alike.setdefault((*slot.matrix, inner), []).append(slot)
    # The largest first, so that no thread is left with one at the end.
    for (rows, columns, inner), own in sorted(alike.items(), key=lambda item: -sum(item[0][:2]) * item[0][2]):
        size = max(1, most // ((rows + columns) * inner))
        for begin in range(0, len(own), size):
            yield _Batch(tuple(own[begin : begin + size]), inner)


def _from_factors(
    slots: Sequence[MergeSlot], inner: int, reader: FactorReader, rule_of: RuleOf, gpu: "torch.device | None"
) -> Iterator[Decomposed]:
    found, spectra = _factored(slots, inner, reader, gpu)
    for place, (slot, values) in enumerate(zip(slots, spectra, strict=True)):
        rank = rule_of(slot).count(values)
        up, down = found.balanced(place, rank)
        if gpu:
            up, down = up.cpu().numpy(), down.cpu().numpy()
        yield Decomposed(slot, up, down, math.hypot(*values), math.hypot(*values[rank:]))


def _factored(
    slots: Sequence[MergeSlot], inner: int, reader: FactorReader, gpu: "torch.device | None"
) -> tuple[Factored[Any], list[list[float]]]:
    """Factor modules together, and give the singular values of each, without those that are nothing.

    Raises UnsupportedError for values that are too large.
    """
    rows, columns = slots[0].matrix
    lefts, rights = np.zeros((len(slots), rows, inner)), np.empty((len(slots), inner, columns))
    for place, slot in enumerate(slots):
        stacked(slot, reader, lefts[place], rights[place])
    try:
        found = _factor(lefts, rights, gpu)
    except OverflowError as error:
        sizes = np.einsum("bij,bij->b", lefts, lefts) * np.einsum("bij,bij->b", rights, rights)
        raise too_large(slots[int(np.isfinite(sizes).argmin())]) from error
    both = zip(found.values.tolist(), found.floor.tolist(), strict=True)
    return found, [[value for value in values if value > floor] for values, floor in both]


def _factor(lefts: NDArray[Any], rights: NDArray[Any], gpu: "torch.device | None") -> Factored[Any]:
    if gpu is None:
        return factor(lefts, rights)
    import torch

    return factor(torch.from_numpy(lefts).to(gpu), torch.from_numpy(rights).to(gpu))


def _matrix(slot: MergeSlot, reader: FactorReader, total: Total | None) -> "Tensor":
    """Give the whole change of a module. Raises UnsupportedError where its values do not fit their dtype."""
    from lorakit_cli.service.slot_values import whole

    matrix = (total or whole)(slot, reader.tensors)
    if not math.isfinite(frobenius(matrix)):
        raise too_large(slot)
    return matrix


def _from_matrix(slot: MergeSlot, matrix: "Tensor", rule: RankRule) -> Decomposed:
    from lorakit_cli.service.dense_rank import left_out, truncated_svd

    found = truncated_svd(matrix, rule)
    up, down = found.balanced()
    tail = left_out(matrix, up, down)
    return Decomposed(slot, up.cpu().numpy(), down.cpu().numpy(), math.sqrt(found.total), tail)
