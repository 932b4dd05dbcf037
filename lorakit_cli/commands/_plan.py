"""Show a plan to a person: adapters, what matches, block scales, and what does not match."""

from lorakit_cli.commands._output import printable
from lorakit_cli.core.shown import shown
from lorakit_cli.service.plan_report import AdapterPlan, PlanReport

_MOST_UNMATCHED = 20


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
    return lines + [f"  block scale {scale.place} {scale.scale:g}" for scale in adapter.block_scales]
