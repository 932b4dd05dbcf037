"""`lorakit merge`: several adapters as one."""

from typing import TYPE_CHECKING, Annotated

import typer

from lorakit_cli.commands._layouts import Dtype, Layout
from lorakit_cli.commands._options import AllowPickleOpt, JsonOpt, LoraOpt, QuietOpt, parse_specs
from lorakit_cli.commands._output import emit, emit_json, printable, progress_bar, size_text, warn
from lorakit_cli.core.block_scales import parse_block_scales
from lorakit_cli.core.merge_method import merge_settings
from lorakit_cli.core.output_place import require_place, require_png
from lorakit_cli.core.rank_rule import rank_rule
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OptionError

if TYPE_CHECKING:
    from lorakit_cli.service.overlap_report import OverlapReport


def merge(
    lora: LoraOpt = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="File to write; a folder for peft.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="cat: exact, ranks add up (default). svd: the closest of a rank (default with --rank, --energy or "
            "--size). linear: where it is exact. ties_svd, dare_linear_svd, dare_ties_svd, magnitude_prune_svd: pruned "
            "changes, reduced. ties, dare_linear, dare_ties, magnitude_prune: pruned factors, as peft has them.",
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="Reduce each layer to this rank.")] = None,
    energy: Annotated[
        float | None, typer.Option("--energy", help="Keep this share of each layer's squared norm, such as 0.95.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="SIZE", help="Keep what a file of this size has room for, such as 20MB."),
    ] = None,
    density: Annotated[
        float | None, typer.Option("--density", help="Share of values that methods with ties, dare, prune keep.")
    ] = None,
    majority_sign: Annotated[
        str | None, typer.Option("--majority-sign", help="ties: total (default) or frequency elects the sign.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="dare: seed of what is drawn; default 0.")] = None,
    block_scales: Annotated[
        list[str] | None,
        typer.Option("--block-scales", metavar="[NAME=]JSON|FILE", help="Scales per block, as in generate."),
    ] = None,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Show what the adapters have in common; needs no --out.")
    ] = False,
    plot: Annotated[
        str | None, typer.Option("--plot", metavar="FILE.png", help="Draw that as a heat map, with --analyze or not.")
    ] = None,
    to: Annotated[Layout | None, typer.Option("--to", help="Layout to write; default: that of the first.")] = None,
    dtype: Annotated[Dtype | None, typer.Option("--dtype", help="Store in this dtype; default: the widest.")] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", "-b", metavar="BASE", help="Base whose modules these are, where keys do not tell."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    allow_pickle: AllowPickleOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Make one adapter of several, whose change is the weighted sum of theirs.

    Example: lorakit merge --lora toy:0.8 --lora pixel:0.5 --out both.safetensors
    """
    rule = rank_rule(rank, energy, None, None, size)
    settings = merge_settings(method, reduces=bool(rule.given), density=density, majority_sign=majority_sign, seed=seed)
    looks = analyze or plot is not None
    if out is None and not looks:
        raise OptionError("say where to: --out FILE, or --analyze to see what the adapters have in common")
    picture = None if plot is None else user_path(plot)
    if picture is not None:
        require_png(picture)
        require_place(picture, [], folder=False, overwrite=overwrite)
    from lorakit_cli.service.merge_request import MergeRequest, prepare_merge

    request = MergeRequest(
        parse_specs(lora),
        None if out is None else user_path(out),
        settings,
        rule,
        parse_block_scales(block_scales or ()),
        to.value if to else None,
        dtype.value if dtype else None,
        base,
        overwrite,
        allow_pickle,
    )
    prepared = prepare_merge(request)
    overlap = None
    if looks:
        from lorakit_cli.service.overlap import analyze as look

        with progress_bar("overlap", quiet=quiet) as progress:
            overlap = look(prepared, progress)
        if picture is not None:
            from lorakit_cli.service.overlap_plot import plot as draw

            draw(overlap, picture, overwrite=overwrite)
        if out is None:
            _show(overlap, as_json=as_json, quiet=quiet)
            return
    from lorakit_cli.service.merging import merge as run

    with progress_bar("layers", quiet=quiet) as progress:
        report = run(prepared, progress)._replace(overlap=overlap)
    if not quiet:
        for remark in report.remarks:
            warn(remark)
    if as_json:
        emit_json("merge", report)
        return
    emit(printable(f"{report.out}: {report.layout}, {report.layers} layers, {size_text(report.size)}"))
    if not quiet:
        from lorakit_cli.commands._ranks import part_lines, whole_line

        parts = ", ".join(f"{each.name}:{each.weight:g}" for each in report.adapters)
        emit(printable(f"  {report.method} of {parts}"))
        emit("\n".join((whole_line(report), *part_lines(report))))
        if overlap:
            _show(overlap, as_json=False, quiet=quiet)


def _show(overlap: "OverlapReport", *, as_json: bool, quiet: bool) -> None:
    if as_json:
        emit_json("overlap", overlap)
        return
    from lorakit_cli.commands._overlap import overlap_lines

    emit("\n".join(overlap_lines(overlap, with_blocks=not quiet)))
    for warning in () if quiet else overlap.warnings:
        warn(warning)
