"""Show a fused pipeline to a person."""

from lorakit_cli.commands._output import printable, size_text
from lorakit_cli.service.fuse_report import FuseReport
from lorakit_cli.service.verify_report import VerifyReport

_MOST_BLOCKS, _MOST_DEVIATIONS = 40, 20


def fuse_lines(report: FuseReport, *, brief: bool = False) -> list[str]:
    """Write a report as lines of text, `brief`: the output's name alone."""
    if brief:
        return [printable(report.out)]
    total = sum(report.changed.values())
    parts = ", ".join(f"{component} {count}" for component, count in report.changed.items()) or "nothing"
    lines = [
        printable(f"{report.out}: {report.architecture}, {total} tensors changed ({parts}), {size_text(report.size)}")
    ]
    for adapter in report.adapters:
        layers = sum(adapter.layers.values())
        lines.append(printable(f"  {adapter.name}:{adapter.weight:g} {layers} layers, {adapter.file}"))
    lines += [f"  change {block.component}.{block.block} {block.change:.2%}" for block in report.blocks[:_MOST_BLOCKS]]
    lines += check_lines(report.check) if report.check else []
    return lines + ([printable(f"  pushed {report.pushed}")] if report.pushed else [])


def check_lines(report: VerifyReport) -> list[str]:
    """Write what a look at an output came to as lines of text."""
    how = "to the last bit" if report.exact else "but for the rounding of another kind of device"
    lines = [
        f"  verified ({report.level}): {report.unchanged} tensors are the base's, byte by byte; {report.replayed} sums "
        f"made again, {report.values} values {'equal ' + how if report.sound else 'compared'}"
    ]
    lines += [f"  {kept.name}: {kept.part:.2%} of its change is left after rounding" for kept in report.survival]
    return lines


def problem_lines(report: VerifyReport) -> list[str]:
    """Write what is wrong with an output as lines of text."""
    lines = [f"  {printable(problem)}" for problem in report.problems]
    for one in report.deviations[:_MOST_DEVIATIONS]:
        by = "" if one.ulps is None else f", by up to {one.ulps} units in the last place"
        count = f" ({one.differing} of {one.values} values differ{by})" if one.differing else ""
        lines.append(printable(f"  {one.tensor}: {one.reason}{count}"))
    more = len(report.deviations) - _MOST_DEVIATIONS
    return lines + ([f"  … and {more} more; --json lists all"] if more > 0 else [])
