"""`lorakit resize`: an adapter at lower ranks, as close to what it was as they allow."""

from typing import Annotated

import typer

from lorakit_cli.commands._layouts import Dtype, Layout
from lorakit_cli.commands._options import AllowPickleOpt, JsonOpt, QuietOpt
from lorakit_cli.commands._output import emit, emit_json, printable, progress_bar, size_text, warn
from lorakit_cli.core.rank_rule import rank_rule
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OptionError


def resize(
    source: Annotated[str, typer.Argument(metavar="FILE", help="Adapter file, PEFT folder or library name.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="File to write; a folder for peft.")],
    rank: Annotated[int | None, typer.Option("--rank", help="Keep so many singular values of each layer.")] = None,
    energy: Annotated[
        float | None, typer.Option("--energy", help="Keep this share of each layer's squared norm, such as 0.95.")
    ] = None,
    error: Annotated[
        float | None, typer.Option("--error", help="Leave each layer this relative error at most, such as 0.01.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Keep singular values above the largest of the layer / RATIO.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="SIZE", help="Keep what a file of this size has room for, such as 20MB."),
    ] = None,
    to: Annotated[Layout | None, typer.Option("--to", help="Layout to write; default: as it is.")] = None,
    dtype: Annotated[Dtype | None, typer.Option("--dtype", help="Store in this dtype; default: as it is.")] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", "-b", metavar="BASE", help="Base whose modules these are, where keys do not tell."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    allow_pickle: AllowPickleOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Bring an adapter to lower ranks, layer by layer as close to it as they allow.

    Exactly one of --rank, --energy, --error, --ratio and --size says how low.

    Example: lorakit resize toy --rank 4 --out toy_lean.safetensors
    """
    rule = rank_rule(rank, energy, error, ratio, size)
    if not rule.given:
        raise OptionError("say how low: --rank 16, --energy 0.95, --error 0.01, --ratio 4 or --size 20MB")
    from lorakit_cli.service.resizing import ResizeRequest
    from lorakit_cli.service.resizing import resize as run

    layout, stored = to.value if to else None, dtype.value if dtype else None
    request = ResizeRequest(source, user_path(out), rule, layout, stored, base, overwrite, allow_pickle)
    with progress_bar("layers", quiet=quiet) as progress:
        report = run(request, progress)
    if report.left_out and not quiet:
        warn(f"left out {len(report.left_out)} keys that are no part of its change, such as {report.left_out[0][:200]}")
    if as_json:
        emit_json("resize", report)
        return
    sizes = f"{size_text(report.size_before)} to {size_text(report.size)}"
    emit(printable(f"{report.out}: {report.layout}, {report.layers} layers, {sizes}"))
    if not quiet:
        from lorakit_cli.commands._ranks import part_lines, whole_line

        emit("\n".join((whole_line(report), *part_lines(report))))
