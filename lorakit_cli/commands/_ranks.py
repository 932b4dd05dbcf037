"""Ranks, energies and errors by component and block, as a table."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lorakit_cli.commands._output import printable, table

if TYPE_CHECKING:
    from lorakit_cli.service.merge_report import MergeReport, ResizeReport

# Below this an error is what fp64 leaves of none.
_NONE = 1e-12


def whole_line(report: "ResizeReport | MergeReport") -> str:
    """Say what it came to in all."""
    text = f"  rank {ranks_text(report.rank_before)} to {ranks_text(report.rank_after)}"
    if report.energy < 1:
        text += f", {energy_text(report.energy)} of the squared norm kept"
    rest = [(report.unchanged, "norms and biases besides"), (report.zero, "layers came to nothing and are gone")]
    more = "".join(f"; {count} {what}" for count, what in rest if count)
    return printable(f"{text}, error {error_text(report.error)}{more}; made for {report.architecture}")


def part_lines(report: "ResizeReport | MergeReport") -> Iterator[str]:
    """Give a row for each component and, indented, for each of its blocks."""
    rows = [["", "layers", "rank", "energy", "error"]]
    for component in report.components:
        for part in (component, *(block for block in report.blocks if block.component == component.component)):
            name = part.component if part.block is None else f"  {part.block}"
            ranks = f"{ranks_text(part.rank_before)} to {ranks_text(part.rank_after)}"
            rows.append([name, str(part.layers), ranks, energy_text(part.energy), error_text(part.error)])
    yield from (f"  {line}" for line in table(rows))


def ranks_text(ranks: tuple[int, int]) -> str:
    """Write a rank, or the lowest and the highest of several."""
    low, high = ranks
    return str(low) if low == high else f"{low}-{high}"


def energy_text(energy: float) -> str:
    """Write a share; 100 % is only what is all of it."""
    return "100 %" if energy == 1 else f"{min(100 * energy, 99.9999):.6g} %"


def error_text(error: float) -> str:
    """Write a relative error."""
    return "0" if error < _NONE else f"{error:.1e}" if error < 1e-3 else f"{100 * error:.3g} %"
