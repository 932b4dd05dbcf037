"""Show a plan to a person: adapters, what matches, block scales, and what does not match."""

from typing import TYPE_CHECKING

from lorakit_cli.commands._block_tree import block_lines
from lorakit_cli.commands._output import emit, emit_json, printable
from lorakit_cli.core.schedulers import scheduler_words
from lorakit_cli.core.shown import shown
from lorakit_cli.service.plan_report import AdapterPlan, PlanReport, report_plan

if TYPE_CHECKING:
    from lorakit_cli.service.dry_run import DryRunReport
    from lorakit_cli.service.output_request import PreparedOutput

_MOST_UNMATCHED = 20


def emit_plan(schema: str, prepared: "PreparedOutput", *, as_json: bool) -> None:
    """Print what a request for an output would do."""
    plan, out = report_plan(prepared.plan), prepared.request.out
    if as_json:
        emit_json(schema, {"plan": plan, "out": None if out is None else str(out), "warnings": prepared.warnings})
    else:
        emit("\n".join([*plan_lines(plan), *([] if out is None else [printable(f"would write {out}")])]))


def settings_lines(report: "DryRunReport") -> list[str]:
    """Write the settings that are settled, as options, in one line; none where all are left to the base."""
    sides = (("--width", report.width), ("--height", report.height))
    words = [f"{name} {value}" for name, value in sides if value is not None]
    words += scheduler_words(report.scheduler, report.scheduler_options, report.steps, report.guidance)
    return [printable(f"settings {' '.join(words)}")] if words else []


def plan_lines(report: PlanReport) -> list[str]:
    """Write a plan as lines of text."""
    lines = [f"base {printable(report.base)} ({report.architecture})"]
    for adapter in report.adapters:
        lines += _adapter_lines(adapter)
    total = sum(report.changed.values())
    parts = ", ".join(f"{component} {count}" for component, count in report.changed.items())
    lines.append(f"changes {total} tensors" + (f": {parts}" if parts else ""))
    if report.unmatched:
        lines.append(f"without effect: {len(report.unmatched)}")
        for part in report.unmatched[:_MOST_UNMATCHED]:
            near = f" (nearest: {part.nearest})" if part.nearest else ""
            lines.append(f"  {part.adapter}: {printable(shown(part.key))}: {printable(part.reason)}{near}")
        if len(report.unmatched) > _MOST_UNMATCHED:
            lines.append(f"  … and {len(report.unmatched) - _MOST_UNMATCHED} more; --json lists all")
    return lines


def _adapter_lines(adapter: AdapterPlan) -> list[str]:
    low, high = adapter.strengths
    strength = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    ranks = "/".join(str(rank) for rank in adapter.ranks)
    matched = ", ".join(f"{component} {count}" for component, count in adapter.matched.items())
    kind = f"{', '.join(adapter.algorithms)} rank {ranks}"
    lines = [
        f"adapter {adapter.name}:{adapter.weight:g} ({kind}) {printable(adapter.path)}",
        f"  matched {sum(adapter.matched.values())} of {adapter.layers} layers: {matched}; strength {strength}",
    ]
    lines += [f"  {adapter.remark}"] if adapter.remark else []
    return lines + block_lines(adapter.block_scales)
