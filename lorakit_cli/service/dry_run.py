"""What `generate` would do, as a report."""

from dataclasses import dataclass

from lorakit_cli.service.plan_report import PlanReport, report_plan
from lorakit_cli.service.request import Prepared


@dataclass(frozen=True, slots=True)
class DryRunReport:
    """The plan, the settings (None: left to the pipeline) and the files that would be written."""

    plan: PlanReport
    prompt: str
    width: int | None
    height: int | None
    steps: int | None
    guidance: float | None
    seeds: tuple[int, ...]
    out: tuple[str, ...]
    warnings: tuple[str, ...]


def dry_run_report(prepared: Prepared) -> DryRunReport:
    """Describe a prepared request."""
    first = prepared.pictures[0]
    settings = first.settings
    return DryRunReport(
        report_plan(prepared.plan),
        first.prompt,
        settings.width,
        settings.height,
        settings.steps,
        settings.guidance,
        tuple(picture.seed for picture in prepared.pictures),
        tuple(str(path) for path in prepared.names.paths),
        prepared.warnings,
    )
