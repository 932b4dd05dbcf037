"""Show a saved folder to a person."""

from lorakit_cli.commands._output import printable, size_text
from lorakit_cli.service.save_report import SaveReport


def save_lines(report: SaveReport, *, brief: bool = False) -> list[str]:
    """Write a report as lines of text, `brief`: the output's name alone."""
    if brief:
        return [printable(report.out)]
    what = "adapters" if report.adapters_only else f"{report.architecture} and adapters"
    lines = [printable(f"{report.out}: {what}, {report.files} files, {size_text(report.size)}")]
    for adapter in report.adapters:
        what = f"{sum(adapter.layers.values())} layers in the {adapter.layout} layout"
        lines.append(printable(f"  {adapter.name}:{adapter.weight:g} {what}, {adapter.file}"))
    return lines + ([printable(f"  base {report.base}")] if report.adapters_only else [])
