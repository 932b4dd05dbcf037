"""`lorakit convert`: write an adapter in the layout that another program reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit_cli.commands._layouts import Dtype, Layout
from lorakit_cli.commands._options import AllowPickleOpt, JsonOpt, QuietOpt
from lorakit_cli.commands._output import emit, emit_json, printable, size_text, warn
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OptionError

if TYPE_CHECKING:
    from lorakit_cli.service.convert_report import ConvertReport


def convert(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="Adapter file, PEFT folder, library name, or what is on the Hub.")
    ],
    to: Annotated[Layout, typer.Option("--to", help="Layout to write.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; a folder for peft.", show_default=False)],
    base: Annotated[
        str | None,
        typer.Option("--base", "-b", metavar="BASE", help="Base whose modules these are, where keys do not tell."),
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option("--dtype", help="Store in this dtype; default: as it is.")] = None,
    to_lora: Annotated[
        bool, typer.Option("--to-lora", help="Approximate what the layout cannot hold by LoRA of --rank.")
    ] = False,
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Rank for --to-lora.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing OUT.")] = False,
    allow_pickle: AllowPickleOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Write an adapter in another layout without changing what it does.

    Example: lorakit convert toy --to kohya --out toy_kohya.safetensors
    """
    from lorakit_cli.service.converting import ConvertRequest
    from lorakit_cli.service.converting import convert as run

    if to_lora != (rank is not None):
        raise OptionError("--to-lora and --rank N go together")
    target, stored = user_path(str(out)), dtype.value if dtype else None
    request = ConvertRequest(source, to.value, target, base, stored, rank, overwrite, allow_pickle)
    report = run(request)
    if report.left_out and not quiet:
        warn(f"left out {len(report.left_out)} keys that are no part of its change, such as {report.left_out[0][:200]}")
    if as_json:
        emit_json("convert", report)
        return
    emit(printable(f"{report.out}: {report.layout}, {report.written} layers, {size_text(report.size)}"))
    if not quiet:
        emit(printable(f"  from {report.dialect}, {report.layers} layers of {report.architecture}: {_how(report)}"))
        for entry in report.approximated:
            emit(printable(f"  {entry.layer}: {entry.algorithm} as rank {entry.rank}, error {entry.error:.2%}"))


def _how(report: "ConvertReport") -> str:
    if report.approximated:
        worst = max(entry.error for entry in report.approximated)
        return f"{len(report.approximated)} layers approximated, the worst by {worst:.2%}"
    if report.error:
        return f"values rounded to {report.dtype}, by at most {report.error:.1e} of the largest"
    parts = [f"{count} {what}" for count, what in ((report.split, "split"), (report.joined, "joined")) if count]
    return "the same changes to the last bit" + (f" ({', '.join(parts)})" if parts else "")
