"""`lorakit generate`: make pictures with adapters."""

from pathlib import Path
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
from lorakit_cli.commands._output import emit, emit_json, note, progress_bar, warn
from lorakit_cli.commands._preview import show_picture


def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What to draw; <lora:NAME:WEIGHT> tags are applied.", show_default=False),
    ] = None,
    prompt_file: Annotated[
        str | None,
        typer.Option("--prompt-file", metavar="FILE", help="Prompts, one a line; - is stdin.", show_default=False),
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PICTURE",
            help="Make a picture again, of lorakit to the last bit; options beside it win.",
            show_default=False,
        ),
    ] = None,
    changed: Annotated[
        bool, typer.Option("--allow-changed", help="With --from: base and adapters may be others by now.")
    ] = False,
    lora: LoraOpt = None,
    base: BaseOpt = None,
    config: ConfigOpt = None,
    variant: VariantOpt = None,
    scale: Annotated[
        float | None, typer.Option(help="Multiplies the weight of every adapter.", show_default="1.0")
    ] = None,
    block_scales: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JSON|FILE",
            help="Scales per block, keyed by adapter, or NAME=JSON; NAME=MIDD or NAME=1,0,… as web UIs write them.",
            show_default=False,
        ),
    ] = None,
    add_triggers: AddTriggersOpt = False,
    literal: LiteralOpt = False,
    negative: Annotated[str | None, typer.Option(help="What to keep out of the picture.", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.", show_default="the base's")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How closely to follow the prompt.", show_default="the base's")
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option(metavar="N|N-M", help="Seed or range of seeds, repeatable.", show_default="random"),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="Pictures, on seeds in a row.", show_default="1")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Width in pixels.", show_default="the base's")] = None,
    height: Annotated[int | None, typer.Option(help="Height in pixels.", show_default="the base's")] = None,
    scheduler: SchedulerOpt = None,
    scheduler_option: SchedulerOptionsOpt = None,
    auto_scheduler: AutoSchedulerOpt = False,
    clip_skip: ClipSkipOpt = None,
    init_image: InitImageOpt = None,
    strength: StrengthOpt = None,
    mask: MaskOpt = None,
    vae: VaeOpt = None,
    device: Annotated[str, typer.Option(metavar="auto|cuda|mps|cpu", help="Where to compute.")] = "auto",
    dtype: DtypeOpt = "auto",
    offload: OffloadOpt = None,
    low_memory: LowMemoryOpt = False,
    compiled: CompileOpt = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|FOLDER/",
            help="Where to, as .png, .webp or .jpg.",
            show_default="a new name here",
        ),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of .webp and .jpg, from 1 to 100.", show_default="90")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the pictures in the terminal, too.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture.")] = False,
    attach: Annotated[bool, typer.Option("--attach", help="Run adapters through peft instead of fusing them.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse adapters that match only in part.")] = False,
    allow_pickle: AllowPickleOpt = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
    verbose: VerboseOpt = False,
) -> None:
    """Make pictures of PROMPT, each adapter at its weight, and print their paths.

    Example: lorakit generate --lora toy:1.0 --lora pixel:0.5 "toy_face, pixel art, a red heart on a white background"
    """
    from lorakit_cli.core.block_scales import parse_block_scales
    from lorakit_cli.core.generation import Settings
    from lorakit_cli.core.loading import Loading
    from lorakit_cli.core.schedulers import parse_scheduler_options
    from lorakit_cli.service.request import GenerateRequest, prepare

    request = GenerateRequest(
        prompt=prompt,
        base=base,
        adapters=parse_specs(lora),
        scale=1.0 if scale is None else scale,
        scaled=scale is not None,
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
        seeds=seed or (),
        count=count,
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
        out=out,
        overwrite=overwrite,
        strict=strict,
        allow_pickle=allow_pickle,
        dry_run=dry_run,
        auto_scheduler=auto_scheduler,
        prompt_file=prompt_file,
        again=again,
        changed=changed,
        add_triggers=add_triggers,
        quality=quality,
        literal=literal or None,
    )
    prepared = prepare(request)
    if not quiet:
        for text in prepared.warnings:
            warn(text)
        for text in prepared.notes:
            note(text)
    if dry_run:
        from lorakit_cli.commands._plan import plan_lines, settings_lines
        from lorakit_cli.service.dry_run import dry_run_report

        report = dry_run_report(prepared)
        if as_json:
            emit_json("generate-plan", report)
        else:
            seeds = " ".join(str(one) for one in report.seeds)
            plans = [line for plan in report.plans for line in plan_lines(plan)]
            settings = settings_lines(report)
            emit("\n".join([*plans, *settings, f"seeds {seeds}", *(f"would write {path}" for path in report.out)]))
        return
    prepared.names.require_writable()
    if not prepared.plan.base.is_local:
        from lorakit_cli.service.fetching import fetched

        with progress_bar("downloading", quiet=quiet) as progress:
            prepared = prepared.on(fetched(prepared.plan.base, progress))
    from lorakit_cli.service import generating

    with progress_bar("denoising", quiet=quiet) as progress:
        made = generating.generate(prepared, progress, verbose=verbose)
    if not quiet:
        for text in made.warnings[len(prepared.warnings) :]:
            warn(text)
        for text in made.notes[len(prepared.notes) :]:
            note(text)
    if as_json:
        emit_json("generate", made)
        return
    for picture in made.pictures:
        emit(picture.path)
        if show:
            show_picture(Path(picture.path))
    if not quiet:
        note("seed " + " ".join(dict.fromkeys(str(picture.seed) for picture in made.pictures)))
