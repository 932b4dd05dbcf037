"""`lorakit list-adapters`: show every adapter that a name reaches."""

from typing import TYPE_CHECKING

from lorakit_cli.commands._options import AllowPickleOpt, BaseOpt, JsonOpt, LoraOpt, parse_specs
from lorakit_cli.commands._output import emit, emit_json, size_text, table

if TYPE_CHECKING:
    from lorakit_cli.service.listing import ListedAdapter


def list_adapters(
    lora: LoraOpt = None, base: BaseOpt = None, allow_pickle: AllowPickleOpt = False, as_json: JsonOpt = False
) -> None:
    """Show the adapters of the library; with --base or --lora also what each touches in the base.

    Example: lorakit list-adapters --base demo
    """
    from lorakit_cli.service import listing

    report = listing.list_adapters(base, parse_specs(lora), allow_pickle=allow_pickle)
    if as_json:
        emit_json("list-adapters", report)
        return
    header = ["NAME", "MADE FOR", "ALGORITHM", "RANK", "SIZE", "TRIGGERS", "FROM", "SOURCE"]
    if report.base:
        header.insert(6, "TOUCHES")
    for line in table([header, *(_row(adapter, with_base=bool(report.base)) for adapter in report.adapters)]):
        emit(line)


def _row(adapter: "ListedAdapter", *, with_base: bool) -> list[str]:
    touches = ", ".join(f"{component} {count}" for component, count in (adapter.touches or {}).items())
    return [
        adapter.name,
        adapter.architecture or "-",
        ", ".join(adapter.algorithms) or "-",
        "/".join(str(rank) for rank in adapter.ranks) or "-",
        size_text(adapter.size),
        ", ".join(adapter.triggers) or "-",
        *([touches or "nothing"] if with_base else []),
        adapter.origin,
        adapter.source + (f" ({adapter.problem})" if adapter.problem else ""),
    ]
