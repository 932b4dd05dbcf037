"""`lorakit list-adapters`: show every adapter that a name reaches."""

from typing import TYPE_CHECKING

from lorakit_cli.commands._options import AllowPickleOpt, BaseOpt, JsonOpt, LoraOpt, parse_specs
from lorakit_cli.commands._output import emit, emit_json, emit_table, note, printable, size_text
from lorakit_cli.core.late import late

if TYPE_CHECKING:
    from lorakit_cli.service.listing import ListedAdapter

# A commit is known by its first digits.
_COMMIT = late(r"@([0-9a-f]{7})[0-9a-f]{33}")


def list_adapters(
    lora: LoraOpt = None, base: BaseOpt = None, allow_pickle: AllowPickleOpt = False, as_json: JsonOpt = False
) -> None:
    """Show the adapters of the library; with --base or --lora also what each touches in the base.

    One that is elsewhere and was not downloaded yet is listed as such, and not asked for unless --lora names it.

    Example: lorakit list-adapters --base demo
    """
    from lorakit_cli.service import listing

    report = listing.list_adapters(base, parse_specs(lora), allow_pickle=allow_pickle)
    for text in report.notes:
        note(text)
    if as_json:
        components = report.components if report.base else None
        emit_json("list-adapters", {"base": report.base, "adapters": report.adapters, "components": components})
        return
    header = ["NAME", "MADE FOR", "ALGORITHM", "RANK", "SIZE", "TRIGGERS", "FROM", "SOURCE"]
    if report.base:
        header.insert(6, "TOUCHES")
    emit_table([header, *(_row(adapter, with_base=bool(report.base)) for adapter in report.adapters)])
    for component, names in report.components.items():
        emit(printable(f"{component}: {', '.join(names)}"))


def _row(adapter: "ListedAdapter", *, with_base: bool) -> list[str]:
    touches = ", ".join(f"{component} {count}" for component, count in (adapter.touches or {}).items())
    return [
        adapter.name,
        adapter.architecture or "-",
        ", ".join(adapter.algorithms) + (f" (few steps: {adapter.few_step})" if adapter.few_step else "") or "-",
        "/".join(str(rank) for rank in adapter.ranks) or "-",
        "not downloaded" if adapter.cached is False else size_text(adapter.size),
        ", ".join(adapter.triggers) or "-",
        *([touches or ("-" if adapter.touches is None else "nothing")] if with_base else []),
        adapter.origin,
        _COMMIT.sub(r"@\1", adapter.source) + (f" ({adapter.problem})" if adapter.problem else ""),
    ]
