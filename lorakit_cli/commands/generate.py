"""`lorakit generate`: make pictures with adapters."""

from typing import Annotated, Literal

import typer

from lorakit_cli.commands._options import AllowPickleOpt, BaseOpt, JsonOpt, LoraOpt, QuietOpt, VerboseOpt, parse_specs
from lorakit_cli.commands._output import emit, emit_json, note, progress_bar, warn


def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw; <lora:NAME:WEIGHT> tags are applied.")],
    lora: LoraOpt = None,
    base: BaseOpt = None,
    scale: Annotated[float, typer.Option(help="Multiplies the weight of every adapter.")] = 1.0,
    block_scales: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JSON|FILE",
            help="Scales per block, keyed by adapter, or NAME=JSON; NAME=MIDD or NAME=1,0,… as web UIs write them.",
            show_default=False,
        ),
    ] = None,
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
    device: Annotated[str, typer.Option(metavar="auto|cuda|mps|cpu", help="Where to compute.")] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"], typer.Option(help="Precision of the weights.")
    ] = "auto",
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE.png|FOLDER/", help="Where to.", show_default="a new name here"),
    ] = None,
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
    from lorakit_cli.service.request import GenerateRequest, prepare

    request = GenerateRequest(
        prompt=prompt,
        base=base,
        adapters=parse_specs(lora),
        scale=scale,
        block_scales=parse_block_scales(block_scales or ()),
        negative=negative,
        settings=Settings(width, height, steps, guidance),
        seeds=seed or (),
        count=count,
        loading=Loading(device, dtype, attach),
        out=out,
        overwrite=overwrite,
        strict=strict,
        allow_pickle=allow_pickle,
        dry_run=dry_run,
    )
    prepared = prepare(request)
    if not quiet:
        for text in prepared.warnings:
            warn(text)
    if dry_run:
        from lorakit_cli.commands._plan import plan_lines
        from lorakit_cli.service.dry_run import dry_run_report

        report = dry_run_report(prepared)
        if as_json:
            emit_json("generate-plan", report)
        else:
            seeds = " ".join(str(one) for one in report.seeds)
            emit(
                "\n".join([*plan_lines(report.plan), f"seeds {seeds}", *(f"would write {path}" for path in report.out)])
            )
        return
    prepared.names.require_writable()
    from lorakit_cli.service import generating

    with progress_bar("denoising", quiet=quiet) as progress:
        made = generating.generate(prepared, progress, verbose=verbose)
    if as_json:
        emit_json("generate", made)
        return
    for picture in made.pictures:
        emit(picture.path)
    if not quiet:
        note("seed " + " ".join(str(picture.seed) for picture in made.pictures))
