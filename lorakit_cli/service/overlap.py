"""Measure how much adapters have in common, from the Gram matrices of their factors.

With factors side by side, `L` and `R`, all inner products `<up_i down_i, up_j down_j>` are sums over blocks of
`(L^T L) * (R R^T)`, and the principal angles between the spaces that two adapters write to are the singular values of
a block of `L^T L` whose own blocks have been made identities (Björck and Golub, 1973). No change is ever built.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorakit_cli.core.block_names import block_order
from lorakit_cli.core.bytes_done import BytesDone, Progress
from lorakit_cli.core.merge_slots import Contribution, MergeSlot
from lorakit_cli.service.factor_reader import FactorReader
from lorakit_cli.service.lanes import Job, run_side_by_side
from lorakit_cli.service.merge_places import meeting_places
from lorakit_cli.service.merge_request import PreparedMerge
from lorakit_cli.service.overlap_report import AdapterNorm, OverlapReport, PairOverlap
from lorakit_cli.service.slot_factors import device_of, inner_size, thin, too_large

# From here on two changes are said to go the same way, or against each other.
_NOTABLE = 0.3
# So many times the change of another is said to drown it.
_DROWNS = 3.0
# So much of the squares of its terms is what rounding leaves of a change whose terms cancel each other.
_CANCELLED = 1e-13
# Directions below this, relative to the largest, are rounding.
_NOTHING = 1e-10
_RULE = (
    "all weights times one factor, such that the sum is as large as it would be if the adapters had nothing in common: "
    "the root of their summed squared norms"
)


class _Angles(NamedTuple):
    outputs: float
    inputs: float
    by_chance: float


class _Measured(NamedTuple):
    """One module: the inner products of all adapters that change it, and of each pair the angles, if it has factors."""

    slot: MergeSlot
    names: tuple[str, ...]
    products: Sequence[Sequence[float]]
    angles: dict[tuple[str, str], _Angles]


def analyze(prepared: PreparedMerge, progress: Progress | None = None) -> OverlapReport:
    """Measure what the adapters of a merge have in common, at their weights and block scales.

    `progress` is called with layers done and layers in all. Raises MatchError where their layers cannot be placed in
    one model, UnsupportedError for changes that depend on a base, LoraFileError.
    """
    request = prepared.request
    places = meeting_places(prepared.adapters, request.base, prepared.target, allow_pickle=request.allow_pickle)
    slots = [slot for slot in places.slots if slot.is_matrix]
    measured: list[_Measured] = []
    lock = Lock()
    with FactorReader() as reader:

        def job(slot: MergeSlot) -> Job:
            def run() -> int:
                found = _measure(slot, reader)
                with lock:
                    measured.append(found)
                return 1

            return run

        # What cannot be told by its factors takes torch.
        whole = any(inner_size(slot) is None for slot in slots)
        device = reader.tensors.device if whole else device_of(slots, reader)
        run_side_by_side(map(job, slots), device, BytesDone(len(slots), progress))
    # As they lie in the model, not as threads came to an end.
    order = {id(slot): place for place, slot in enumerate(slots)}
    measured.sort(key=lambda one: order[id(one.slot)])
    return _report(prepared, places.name, measured)


def _measure(slot: MergeSlot, reader: FactorReader) -> _Measured:
    own: dict[str, list[Contribution]] = {}
    for part in slot.contributions:
        own.setdefault(part.adapter, []).append(part)
    names = tuple(own)
    if inner_size(slot) is None:
        flat = np.stack([_whole(slot, parts, reader) for parts in own.values()])
        products = flat @ flat.T
        if not np.isfinite(products).all():
            raise too_large(slot)
        return _Measured(slot, names, products.tolist(), {})
    lefts, rights, ends = _side_by_side(slot, own, reader)
    squares = lefts.mT @ lefts, rights @ rights.mT
    joint = squares[0] * squares[1]
    if not np.isfinite(joint).all():
        raise too_large(slot)
    inner = [[float(joint[one, other].sum()) for other in ends] for one in ends]
    for place, span in enumerate(ends):
        # What an adapter's own terms cancel to may be rounding alone, and less than nothing.
        lengths = np.sqrt(squares[0].diagonal()[span] * squares[1].diagonal()[span]).sum()
        if inner[place][place] <= _CANCELLED * lengths**2:
            inner = [[0.0 if place in (i, j) else x for j, x in enumerate(row)] for i, row in enumerate(inner)]
    angles: dict[tuple[str, str], _Angles] = {}
    if len(names) > 1:
        bases = [[_orthonormal(square[span, span]) for span in ends] for square in squares]
        for one, other in combinations(range(len(names)), 2):
            shares = []
            for square, turned in zip(squares, bases, strict=True):
                cosines = turned[one].mT @ square[ends[one], ends[other]] @ turned[other]
                shares.append(float((cosines**2).sum()) / max(min(cosines.shape), 1))
            ranks = max(bases[0][one].shape[1], bases[0][other].shape[1])
            chance = sum(ranks / size for size in slot.matrix) / 2
            angles[names[one], names[other]] = _Angles(shares[0], shares[1], min(chance, 1.0))
    return _Measured(slot, names, inner, angles)


def _side_by_side(
    slot: MergeSlot, own: dict[str, list[Contribution]], reader: FactorReader
) -> tuple[NDArray[Any], NDArray[Any], list[slice]]:
    """Give the factors of all adapters side by side, and which columns are whose."""
    lefts: list[NDArray[Any]] = []
    rights: list[NDArray[Any]] = []
    ends: list[slice] = []
    begin = 0
    for parts in own.values():
        end = begin
        for part in parts:
            up, down = thin(part, reader)
            left = np.zeros((slot.matrix[0], up.shape[1]))
            left[part.share.offset : part.share.offset + up.shape[0]] = up
            lefts.append(left)
            rights.append(down)
            end += up.shape[1]
        ends.append(slice(begin, end))
        begin = end
    return np.concatenate(lefts, 1), np.concatenate(rights), ends


def _whole(slot: MergeSlot, parts: Sequence[Contribution], reader: FactorReader) -> NDArray[Any]:
    from lorakit_cli.service.slot_values import change_of

    changes = (change_of(slot, part, reader.tensors).flatten().cpu().numpy() * part.strength for part in parts)
    total: NDArray[Any] = np.sum(list(changes), axis=0)
    return total


def _orthonormal(square: NDArray[Any]) -> NDArray[Any]:
    """Give what turns factors of this Gram matrix into orthonormal ones of the same space."""
    values, vectors = np.linalg.eigh(square)
    there = values > _NOTHING * max(values[-1], np.finfo(values.dtype).tiny)
    turned: NDArray[Any] = vectors[:, there] / np.sqrt(values[there])
    return turned


def _report(prepared: PreparedMerge, architecture: str, measured: Sequence[_Measured]) -> OverlapReport:
    adapters = prepared.adapters
    squares = {adapter.name: 0.0 for adapter in adapters}
    total = 0.0
    for one in measured:
        total += sum(map(sum, one.products))
        for place, name in enumerate(one.names):
            squares[name] += one.products[place][place]
    together, independent = math.sqrt(max(total, 0.0)), math.sqrt(sum(squares.values()))
    factor = independent / together if together > 1e-6 * independent else 1.0
    norms = tuple(
        AdapterNorm(each.name, each.weight, math.sqrt(squares[each.name]), each.weight * factor) for each in adapters
    )
    names = list(combinations([adapter.name for adapter in adapters], 2))
    components = sorted({one.slot.place.component for one in measured}, key=lambda name: block_order(name, ""))
    blocks = sorted({(one.slot.place.component, one.slot.block) for one in measured}, key=lambda key: block_order(*key))
    pairs = tuple(_pair(*pair, None, None, measured) for pair in names)
    by_component = tuple(
        _pair(*pair, component, None, [one for one in measured if one.slot.place.component == component])
        for component in components
        for pair in names
    )
    by_block = tuple(
        _pair(*pair, *key, [one for one in measured if (one.slot.place.component, one.slot.block) == key])
        for key in blocks
        for pair in names
    )
    warnings = (*_interference(pairs, by_block), *_drowned(norms))
    return OverlapReport(architecture, norms, pairs, by_component, by_block, together, independent, _RULE, warnings)


def _pair(one: str, other: str, component: str | None, block: str | None, measured: Sequence[_Measured]) -> PairOverlap:
    """Sum up a pair over modules."""
    shared = [each for each in measured if one in each.names and other in each.names]
    inner = first = second = 0.0
    for each in shared:
        i, j = each.names.index(one), each.names.index(other)
        inner += each.products[i][j]
        first += each.products[i][i]
        second += each.products[j][j]
    size = math.sqrt(first) * math.sqrt(second)
    cosine = max(-1.0, min(1.0, inner / size)) if size else None
    # A module names its adapters in the order that they were given in.
    angles = [each.angles[one, other] for each in shared if (one, other) in each.angles]
    means = [sum(column) / len(angles) for column in zip(*angles, strict=True)] if angles else [None] * 3
    return PairOverlap(one, other, component, block, len(shared), cosine, *means)


def _interference(pairs: Sequence[PairOverlap], blocks: Sequence[PairOverlap]) -> Iterator[str]:
    """Name the pairs that go the same way, or against each other, and the blocks where they do so the most."""
    for pair in pairs:
        own = [
            block
            for block in blocks
            if (block.one, block.other) == (pair.one, pair.other)
            and block.cosine is not None
            and abs(block.cosine) >= _NOTABLE
        ]
        own.sort(key=lambda block: -abs(block.cosine or 0))
        for same in (True, False):
            found = [block for block in own if ((block.cosine or 0) > 0) == same]
            if found:
                listed = ", ".join(f"{block.component} {block.block} ({block.cosine:+.2f})" for block in found[:5])
                more = f" and {len(found) - 5} more" if len(found) > 5 else ""
                what = "change the same, so that their sum overdoes it" if same else "undo each other in part"
                yield f"{pair.one} and {pair.other} {what}: {listed}{more}"


def _drowned(norms: Sequence[AdapterNorm]) -> Iterator[str]:
    for one, other in combinations(sorted(norms, key=lambda each: -each.norm), 2):
        if other.norm and one.norm > _DROWNS * other.norm:
            yield f"at these weights {one.name} changes {one.norm / other.norm:.1f} times as much as {other.name}"
