"""What adapters have in common, as tables."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lorakit_cli.commands._output import printable, table

if TYPE_CHECKING:
    from lorakit_cli.service.overlap_report import OverlapReport, PairOverlap


def overlap_lines(report: "OverlapReport", *, with_blocks: bool) -> Iterator[str]:
    """Give the adapters with the weights that are suggested, then each pair in all, by component and by block."""
    names = ", ".join(f"{each.name}:{each.weight:g}" for each in report.adapters)
    yield printable(f"overlap of {names} in {report.architecture}")
    rows = [["", "weight", "norm", "suggested"]]
    rows += [[each.name, f"{each.weight:g}", f"{each.norm:.4g}", f"{each.suggested:.3g}"] for each in report.adapters]
    yield from (f"  {line}" for line in table(rows))
    yield printable(f"  together {report.together:.4g}, with nothing in common {report.independent:.4g}")
    yield printable(f"  suggested: {report.rule}")
    parts = [*report.pairs, *report.components, *(report.blocks if with_blocks else ())]
    rows = [["", "layers", "cosine", "outputs", "inputs", "by chance"]]
    for pair in report.pairs:
        own = [part for part in parts if (part.one, part.other) == (pair.one, pair.other)]
        rows += [_row(part) for part in sorted(own, key=lambda part: _place(report, part))]
    if report.pairs:
        yield from (f"  {line}" for line in table(rows))


def _place(report: "OverlapReport", part: "PairOverlap") -> tuple[int, int]:
    """Put each component in front of its blocks."""
    if part.component is None:
        return -1, -1
    names = list(dict.fromkeys(each.component for each in report.components))
    blocks = list(dict.fromkeys((each.component, each.block) for each in report.blocks))
    return names.index(part.component), -1 if part.block is None else blocks.index((part.component, part.block))


def _row(part: "PairOverlap") -> list[str]:
    name = (
        f"    {part.block}" if part.block else f"  {part.component}" if part.component else f"{part.one}, {part.other}"
    )
    cosine = "-" if part.cosine is None else f"{part.cosine:+.3f}"
    shares = ("-" if share is None else f"{100 * share:.3g} %" for share in (part.outputs, part.inputs, part.by_chance))
    return [name, str(part.layers), cosine, *shares]
