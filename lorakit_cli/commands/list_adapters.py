"""`lorakit list-adapters`: show every adapter that a name reaches."""

from typing import TYPE_CHECKING

from lorakit_cli.commands._options import BaseOpt, JsonOpt, LoraOpt, parse_specs
from lorakit_cli.commands._output import emit, emit_json, printable

if TYPE_CHECKING:
    from lorakit_cli.service.listing import ListedAdapter


def list_adapters(lora: LoraOpt = None, base: BaseOpt = None, as_json: JsonOpt = False) -> None:
    """Show the adapters of the library; with --base or --lora also what each touches in the base.

    Example: lorakit list-adapters --base demo
    """
    from lorakit_cli.service import listing

    report = listing.list_adapters(base, parse_specs(lora))
    if as_json:
        emit_json("list-adapters", report)
        return
    header = ["NAME", "MADE FOR", "ALGORITHM", "RANK", "SIZE", "TRIGGERS", "FROM", "SOURCE"]
    if report.base:
        header.insert(6, "TOUCHES")
    rows = [header, *(_row(adapter, with_base=bool(report.base)) for adapter in report.adapters)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        emit("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(adapter: "ListedAdapter", *, with_base: bool) -> list[str]:
    touches = ", ".join(f"{component} {count}" for component, count in (adapter.touches or {}).items())
    cells = [
        adapter.name,
        adapter.architecture or "-",
        ", ".join(adapter.algorithms) or "-",
        "/".join(str(rank) for rank in adapter.ranks) or "-",
        _size(adapter.size),
        ", ".join(adapter.triggers) or "-",
        *([touches or "nothing"] if with_base else []),
        adapter.origin,
        adapter.source + (f" ({adapter.problem})" if adapter.problem else ""),
    ]
    return [printable(cell) for cell in cells]


def _size(size: int | None) -> str:
    if size is None:
        return "-"
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
