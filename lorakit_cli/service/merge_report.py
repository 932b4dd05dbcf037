"""What `merge` and `resize` made, as a report: by component and block, how much of the change is left and how exact."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lorakit_cli.core.block_names import block_order
from lorakit_cli.service.overlap_report import OverlapReport


class LayerResult(NamedTuple):
    """One module: its ranks before, added up, and after, and norms as in StoredFactors."""

    component: str
    block: str
    rank_before: int
    rank_after: int
    norm: float
    tail: float
    error: float
    whole: float


class PartResult(NamedTuple):
    """What became of the layers of a component, or of one of its blocks.

    Ranks are the lowest and the highest. `energy` is the share of the squared Frobenius norm that the ranks kept;
    `error` the relative Frobenius error of what is stored, rounding included, against the exact sum.
    """

    component: str
    block: str | None
    layers: int
    rank_before: tuple[int, int]
    rank_after: tuple[int, int]
    energy: float
    error: float


class MergedAdapter(NamedTuple):
    """An adapter that took part: its weight, the layers it has and those of them that none of the others touches."""

    name: str
    path: str
    weight: float
    sha256: str
    layers: int
    alone: int


class MergeReport(NamedTuple):
    """What `merge` wrote.

    `unchanged` counts sums of what is no matrix (norms, biases), `zero` layers that cancel out and are gone; `remarks`
    say what is unusual, `overlap` what the adapters have in common, where that was asked for.
    """

    out: str
    method: str
    architecture: str
    layout: str
    adapters: tuple[MergedAdapter, ...]
    layers: int
    unchanged: int
    zero: int
    size: int
    rank_before: tuple[int, int]
    rank_after: tuple[int, int]
    energy: float
    error: float
    components: tuple[PartResult, ...]
    blocks: tuple[PartResult, ...]
    remarks: tuple[str, ...]
    overlap: OverlapReport | None = None


class ResizeReport(NamedTuple):
    """What `resize` wrote.

    `unchanged` layers are no matrices (norms, biases) and stay as they are; `zero` are gone. The keys of `left_out` are
    no part of its change.
    """

    source: str
    out: str
    architecture: str
    layout: str
    layers: int
    unchanged: int
    zero: int
    size_before: int
    size: int
    rank_before: tuple[int, int]
    rank_after: tuple[int, int]
    energy: float
    error: float
    components: tuple[PartResult, ...]
    blocks: tuple[PartResult, ...]
    left_out: tuple[str, ...]


def by_component(layers: Sequence[LayerResult]) -> tuple[PartResult, ...]:
    """Sum layers up by component."""
    names = sorted({layer.component for layer in layers}, key=lambda name: block_order(name, ""))
    return tuple(together(name, None, [layer for layer in layers if layer.component == name]) for name in names)


def by_block(layers: Sequence[LayerResult]) -> tuple[PartResult, ...]:
    """Sum layers up by block, in the order a model runs through them."""
    blocks: dict[tuple[str, str], list[LayerResult]] = {}
    for layer in layers:
        blocks.setdefault((layer.component, layer.block), []).append(layer)
    return tuple(together(*key, blocks[key]) for key in sorted(blocks, key=lambda key: block_order(*key)))


def together(component: str, block: str | None, layers: Sequence[LayerResult]) -> PartResult:
    """Sum layers up."""
    norm, whole = _root(layer.norm for layer in layers), _root(layer.whole for layer in layers)
    energy = 1 - (_root(layer.tail for layer in layers) / norm) ** 2 if norm else 1.0
    error = _root(layer.error for layer in layers) / whole if whole else 0.0
    before, after = _ends(layer.rank_before for layer in layers), _ends(layer.rank_after for layer in layers)
    return PartResult(component, block, len(layers), before, after, max(energy, 0.0), error)


def _ends(ranks: Iterable[int]) -> tuple[int, int]:
    found = sorted(ranks) or [0]
    return found[0], found[-1]


def _root(norms: Iterable[float]) -> float:
    return math.hypot(*norms)
