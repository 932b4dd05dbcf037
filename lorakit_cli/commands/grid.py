"""`lorakit grid`: many pictures side by side that differ in one, two or three ways."""

from typing import Annotated

import typer

from lorakit_cli.commands._options import (
    AddTriggersOpt,
    AllowPickleOpt,
    AutoSchedulerOpt,
    BaseOpt,
    ClipSkipOpt,
    CompileOpt,
    ConfigOpt,
    DtypeOpt,
    InitImageOpt,
    JsonOpt,
    LiteralOpt,
    LoraOpt,
    LowMemoryOpt,
    MaskOpt,
    OffloadOpt,
    QuietOpt,
    SchedulerOpt,
    SchedulerOptionsOpt,
    StrengthOpt,
    VaeOpt,
    VariantOpt,
    VerboseOpt,
    parse_specs,
)
from lorakit_cli.commands._output import emit, emit_json, note, printable, progress_bar, warn


def grid(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FOLDER", help="Where to; taken up again where it is such a grid.")
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What to draw, unless an axis says it.", show_default=False)
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            "-a",
            metavar="NAME=VALUES",
            help="What differs: columns, then rows, then sections. NAME is an adapter (its weight), seed, prompt, "
            "negative, lora, weight, scale, a setting such as steps, or block:ADAPTER.BLOCK.",
            show_default=False,
        ),
    ] = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="An axis of base, each adapter alone, all, and all but each.")
    ] = False,
    lora: LoraOpt = None,
    base: BaseOpt = None,
    config: ConfigOpt = None,
    variant: VariantOpt = None,
    scale: Annotated[float, typer.Option(help="Multiplies the weight of every adapter.")] = 1.0,
    block_scales: Annotated[
        list[str] | None,
        typer.Option(metavar="JSON|FILE", help="Scales per block, keyed by adapter, or NAME=JSON.", show_default=False),
    ] = None,
    add_triggers: AddTriggersOpt = False,
    literal: LiteralOpt = False,
    negative: Annotated[str | None, typer.Option(help="What to keep out of the picture.", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.", show_default="the base's")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How closely to follow the prompt.", show_default="the base's")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all cells, unless an axis says it.")] = 0,
    width: Annotated[int | None, typer.Option(help="Width in pixels.", show_default="the base's")] = None,
    height: Annotated[int | None, typer.Option(help="Height in pixels.", show_default="the base's")] = None,
    scheduler: SchedulerOpt = None,
    scheduler_option: SchedulerOptionsOpt = None,
    auto_scheduler: AutoSchedulerOpt = False,
    clip_skip: ClipSkipOpt = None,
    init_image: InitImageOpt = None,
    strength: StrengthOpt = None,
    mask: MaskOpt = None,
    cell: Annotated[
        int | None,
        typer.Option(
            min=16, metavar="PIXELS", help="Longest side of a picture on the sheet.", show_default="160 to 512"
        ),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Also write index.html, one page with all pictures in it.")
    ] = False,
    vae: VaeOpt = None,
    offload: OffloadOpt = None,
    low_memory: LowMemoryOpt = False,
    compiled: CompileOpt = False,
    device: Annotated[str, typer.Option(metavar="auto|cuda|mps|cpu", help="Where to compute.")] = "auto",
    dtype: DtypeOpt = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Draw all pictures of a grid anew.")] = False,
    attach: Annotated[bool, typer.Option("--attach", help="Run adapters through peft instead of fusing them.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse adapters that match only in part.")] = False,
    allow_pickle: AllowPickleOpt = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
    verbose: VerboseOpt = False,
) -> None:
    """Draw PROMPT once for every combination of values, into one labelled sheet.

    Example: lorakit grid --axis toy=0,0.5,1 --axis seed=1-3 --html --out sweep "toy_face, a red heart"
    """
    from lorakit_cli.commands._grid import distance_lines, plan_lines, planned
    from lorakit_cli.core.block_scales import parse_block_scales
    from lorakit_cli.core.generation import Settings
    from lorakit_cli.core.loading import Loading
    from lorakit_cli.core.schedulers import parse_scheduler_options
    from lorakit_cli.service.grids.grid_request import GridRequest, prepare_grid
    from lorakit_cli.service.request import GenerateRequest

    template = GenerateRequest(
        prompt=prompt or "",
        base=base,
        adapters=parse_specs(lora),
        scale=scale,
        block_scales=parse_block_scales(block_scales or ()),
        negative=negative,
        settings=Settings(
            width=width,
            height=height,
            steps=steps,
            guidance=guidance,
            scheduler=scheduler,
            scheduler_options=parse_scheduler_options(scheduler_option or ()),
            clip_skip=clip_skip,
            init_image=init_image,
            mask=mask,
            strength=strength,
        ),
        loading=Loading(
            device=device,
            dtype=dtype,
            attach=attach,
            vae=vae,
            config=config,
            offload=offload,
            low_memory=low_memory,
            compiled=compiled,
        ),
        variant=variant,
        strict=strict,
        allow_pickle=allow_pickle,
        dry_run=dry_run,
        add_triggers=add_triggers,
        literal=literal or None,
        auto_scheduler=auto_scheduler,
    )
    request = GridRequest(template, out, tuple(axis or ()), ablate, seed, cell, html, overwrite)
    prepared = prepare_grid(request)
    if not quiet:
        for text in prepared.warnings:
            warn(text)
        for text in prepared.notes:
            note(text)
    if dry_run:
        if as_json:
            emit_json("grid-plan", planned(prepared))
        else:
            emit("\n".join(plan_lines(prepared)))
        return
    from lorakit_cli.service.grids import drawing

    with progress_bar("denoising", quiet=quiet) as progress:
        report = drawing.draw_grid(prepared, progress, verbose=verbose)
    if as_json:
        emit_json("grid", report)
        return
    emit("\n".join([*distance_lines(report), *(printable(path) for path in (report.sheet, report.page) if path)]))
    if not quiet:
        kept = f", kept {report.kept} that were there" if report.kept else ""
        note(f"drew {report.drawn} pictures{kept}")
