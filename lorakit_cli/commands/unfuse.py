"""`lorakit unfuse`: give the base of a fused pipeline back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit_cli.commands._options import AllowPickleOpt, JsonOpt, QuietOpt, parse_specs
from lorakit_cli.commands._output import emit, emit_json, printable, progress_bar, size_text, warn

if TYPE_CHECKING:
    from lorakit_cli.service.unfuse_report import UnfuseReport

from lorakit_cli.core.user_path import user_path


def unfuse(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Output of `lorakit fuse`, a folder or a single file.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER|FILE.safetensors", help="Where to.", show_default=False)
    ],
    base: Annotated[
        str | None,
        typer.Option("--base", "-b", metavar="BASE", help="Where the base is now, if it moved.", show_default=False),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora", "-l", metavar="NAME=PATH", help="Where an adapter is now, if it moved.", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    allow_pickle: AllowPickleOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Give the base of a fused pipeline back: exactly, if it is at hand; else by subtracting the adapters.

    Base and adapters are found by the hashes in its lorakit.json. Subtracting leaves rounding behind; how much at most
    is said.

    Example: lorakit unfuse my-model --out my-base
    """
    from lorakit_cli.service.unfuse_request import UnfuseRequest, prepare_unfuse
    from lorakit_cli.service.unfusing import unfuse as run

    prepared = prepare_unfuse(
        UnfuseRequest(source, user_path(str(out)), base, parse_specs(lora), overwrite, allow_pickle)
    )
    if not quiet:
        for text in prepared.warnings:
            warn(text)
    with progress_bar("unfusing", quiet=quiet) as progress:
        report = run(prepared, progress, None if quiet else warn)
    if as_json:
        emit_json("unfuse", report)
    else:
        emit("\n".join([report.out] if quiet else _lines(report)))


def _lines(report: "UnfuseReport") -> list[str]:
    names, size = " and ".join(report.adapters), size_text(report.size)
    bound = report.error_bound
    if bound is None:
        return [printable(f"{report.out}: {report.base} to the last bit, without {names}, {size}")]
    return [
        printable(f"{report.out}: {report.source} less {names}, {size}"),
        printable(
            f"  every value within {bound.absolute:.2g} of the base's, and within {bound.relative:.2%} of the largest "
            f"of its tensor ({bound.tensor})"
        ),
    ]
