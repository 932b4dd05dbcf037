"""What `extract` found and wrote, as a report."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lorakit_cli.core.block_names import block_of, block_order
from lorakit_cli.core.model_pairs import Pairs
from lorakit_cli.service.differing import Difference, Models

if TYPE_CHECKING:
    from lorakit_cli.service.extracting import ExtractRequest


class ExtractedBlock(NamedTuple):
    """A block of the model: its layers, their ranks, and how much of their difference is in the adapter.

    `norm` is the Frobenius norm of the difference of its layers, `error` that of what is missing, relative to it;
    `energy` is the kept share of the norm's square.
    """

    component: str
    block: str
    layers: int
    ranks: tuple[int, int]
    norm: float
    energy: float
    error: float


class NotCaptured(NamedTuple):
    """A parameter that differs and is not in the adapter: the norm of its difference, also relative to the base's."""

    component: str
    parameter: str
    norm: float
    relative: float | None
    reason: str


class ExtractReport(NamedTuple):
    """What was written.

    `full` counts what was kept whole as differences; `exact` how many layers were decomposed without iterations.
    """

    base: str
    tuned: str
    out: str
    layout: str
    layers: int
    full: int
    equal: int
    exact: int
    size: int
    error: float
    energy: float
    blocks: tuple[ExtractedBlock, ...]
    not_captured: tuple[NotCaptured, ...]
    warnings: tuple[str, ...]


def extract_report(
    models: Models, request: "ExtractRequest", found: Sequence[Difference], shared: Pairs, looked_at: int, size: int
) -> ExtractReport:
    """Describe what was extracted, block by block in the order a model runs through them."""
    layers = [each for each in found if each.up is not None]
    whole = [each for each in found if each.diff is not None]
    left = [each for each in found if each.reason]
    blocks: dict[tuple[str, str], list[Difference]] = {}
    for each in layers:
        key = each.pair.component, block_of(each.pair.component, each.pair.module)
        blocks.setdefault(key, []).append(each)
    order = sorted(blocks, key=lambda key: block_order(*key))
    error = _error([*layers, *whole, *left])
    return ExtractReport(
        base=models.before.label,
        tuned=models.after.label,
        out=str(request.out),
        layout=request.to,
        layers=len(layers),
        full=len(whole),
        equal=looked_at - len(found),
        exact=sum(each.exact for each in layers),
        size=size,
        error=error,
        energy=1 - error**2,
        blocks=tuple(_block(component, name, blocks[component, name]) for component, name in order),
        not_captured=tuple(_not_captured(each) for each in sorted(left, key=lambda each: -each.norm)),
        warnings=tuple(_warnings(shared)),
    )


def _block(component: str, name: str, layers: Sequence[Difference]) -> ExtractedBlock:
    ranks = [each.down.shape[0] for each in layers if each.down is not None]
    error = _error(layers)
    norm = math.sqrt(sum(each.norm**2 for each in layers))
    return ExtractedBlock(component, name, len(layers), (min(ranks), max(ranks)), norm, 1 - error**2, error)


def _error(differences: Sequence[Difference]) -> float:
    whole = sum(each.norm**2 for each in differences)
    return math.sqrt(sum(each.left_out**2 for each in differences) / whole) if whole else 0.0


def _not_captured(each: Difference) -> NotCaptured:
    relative = each.norm / each.base_norm if each.base_norm else None
    return NotCaptured(each.pair.component, each.pair.parameter, each.norm, relative, each.reason or "")


def _warnings(shared: Pairs) -> Iterator[str]:
    for names, which in ((shared.only_before, "base"), (shared.only_after, "tuned model")):
        if names:
            yield f"only the {which} has {', '.join(names)}, which was left out"
