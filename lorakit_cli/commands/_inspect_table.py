"""Show several inspected files to a person, a line each."""

import shutil
from collections.abc import Sequence
from pathlib import PurePath

from lorakit_cli.commands._output import printable, size_text, table
from lorakit_cli.core.shown import shown
from lorakit_cli.service.inspect_report import InspectReport, UnreadableFile

_HEADER = ["FILE", "MADE FOR", "LAYOUT", "ALGORITHM", "LAYERS", "RANK", "SIZE"]
_NONE = "-"
_LONGEST = {"FILE": 32, "MADE FOR": 24, "LAYOUT": 12, "ALGORITHM": 20, "RANK": 12}
_WIDTH = 120
_LEAST_PROBLEM = 30


def table_lines(reports: Sequence[InspectReport | UnreadableFile], width: int | None = None) -> list[str]:
    """Write files as a table that is `width` wide, the terminal's by default, if its problems can be cut to that."""
    fits = any(isinstance(report, InspectReport) and report.match for report in reports)
    header = [*_HEADER, *(["FITS"] if fits else [])]
    rows = [header, *(_cells(report, fits=fits) for report in reports)]
    lines = table(rows)
    used = max(map(len, lines))
    room = max((width or shutil.get_terminal_size((_WIDTH, 24)).columns) - used - 2, _LEAST_PROBLEM)
    problems = ["PROBLEM", *(_problem(report) for report in reports)]
    return [f"{line:<{used}}  {_cut(problem, room)}" for line, problem in zip(lines, problems, strict=True)]


def _cells(report: InspectReport | UnreadableFile, *, fits: bool) -> list[str]:
    name = PurePath(report.path).name
    if isinstance(report, UnreadableFile):
        cells = [name, *[_NONE] * (len(_HEADER) - 1)]
    else:
        cells = [
            name,
            report.architecture or _NONE,
            report.dialect,
            ", ".join(report.algorithms) or _NONE,
            str(report.layers),
            "/".join(f"{amount.value:g}" for amount in report.ranks if amount.value) or _NONE,
            size_text(report.size),
        ]
    short = [shown(cell, _LONGEST.get(title, len(cell))) for title, cell in zip(_HEADER, cells, strict=True)]
    if not fits:
        return short
    fitting = isinstance(report, InspectReport) and all(match.fits for match in report.match)
    return [*short, "yes" if fitting else "no"]


def _problem(report: InspectReport | UnreadableFile) -> str:
    """Give what matters most about a file: why it cannot be used, else the first of its problems."""
    if isinstance(report, UnreadableFile):
        return report.problem
    if not report.usable:
        return report.verdict
    more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
    return report.problems[0] + more if report.problems else _NONE


def _cut(text: str, room: int) -> str:
    text = printable(text)
    return text if len(text) <= room else text[: room - 1] + "…"
