"""`lorakit inspect`: say what an adapter file is, and whether it fits."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lorakit_cli.commands._options import AllowPickleOpt, BasesOpt, JsonOpt, QuietOpt
from lorakit_cli.commands._output import emit, emit_json, error, progress_bar
from lorakit_cli.errors import LorakitError


def inspect(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE…", help="Adapter files, folders of them, library names, or what is on the Hub."),
    ],
    base: BasesOpt = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key with the layer it belongs to.")] = False,
    scan: Annotated[
        bool, typer.Option("--scan", help="Read every value: find NaN, infinity and layers of zeros.")
    ] = False,
    strength: Annotated[
        bool, typer.Option("--strength", help="Show how much each block changes, relative to the first --base.")
    ] = False,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE.png", help="Draw the strengths as a picture too.", show_default=False),
    ] = None,
    hashes: Annotated[
        bool, typer.Option("--hash", help="Hash the whole file, as CivitAI and kohya's tools do.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture.")] = False,
    allow_pickle: AllowPickleOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Say what adapter files are, whether they fit a base, and what is wrong with them.

    Reads headers only, unless --scan, --strength or --hash ask for more. Leaves with 0 if every file is a usable
    adapter and fits every --base, else with 1.

    Example: lorakit inspect lora.safetensors --base demo
    """
    from lorakit_cli.service.closer_looks import Looks
    from lorakit_cli.service.inspect_report import InspectReport
    from lorakit_cli.service.inspecting import inspect_sources

    looks = Looks(
        keys=keys,
        scan=scan,
        strength=strength,
        plot=None if plot is None else Path(plot),
        overwrite=overwrite,
        hashes=hashes,
        progress=partial(progress_bar, quiet=quiet),
    )
    report = inspect_sources(files, base or (), looks, allow_pickle=allow_pickle)
    if as_json:
        emit_json("inspect", report)
    elif isinstance(report, InspectReport):
        from lorakit_cli.commands._inspect import file_lines

        emit("\n".join(file_lines(report)))
    else:
        from lorakit_cli.commands._inspect_table import table_lines

        emit("\n".join(table_lines(report.files)))
    if isinstance(report, InspectReport):
        against = "" if report.usable else f"{report.path}: {report.verdict}"
    else:
        bad = sum(not (isinstance(one, InspectReport) and one.usable) for one in report.files)
        against = f"{bad} of {len(report.files)} files cannot be used as they are" if bad else ""
    if against:
        error(against)
        raise typer.Exit(LorakitError.exit_code)
