"""What `generate` would do, as a report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorakit_cli.service.plan_report import PlanReport, report_plan
from lorakit_cli.service.request import Prepared


@dataclass(frozen=True, slots=True)
class DryRunReport:
    """The plans, the settings (None: left to the pipeline) and the files that would be written.

    `plan` and `prompt` are those of the first picture; with several prompts, `plans` has each that there is.
    """

    plan: PlanReport
    plans: tuple[PlanReport, ...]
    prompt: str
    prompts: tuple[str, ...]
    width: int | None
    height: int | None
    steps: int | None
    guidance: float | None
    scheduler: str | None
    scheduler_options: Mapping[str, Any]
    seeds: tuple[int, ...]
    out: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def dry_run_report(prepared: Prepared) -> DryRunReport:
    """Describe a prepared request."""
    first = prepared.pictures[0]
    settings = first.settings
    plans = tuple(report_plan(weights.plan) for weights in prepared.weights)
    return DryRunReport(
        plans[0],
        plans,
        first.prompt,
        tuple(dict.fromkeys(picture.prompt for picture in prepared.pictures)),
        settings.width,
        settings.height,
        settings.steps,
        settings.guidance,
        settings.scheduler,
        settings.scheduler_options,
        tuple(dict.fromkeys(picture.seed for picture in prepared.pictures)),
        tuple(str(path) for path in prepared.names.paths),
        prepared.warnings,
        prepared.notes,
    )
