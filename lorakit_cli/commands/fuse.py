"""`lorakit fuse`: bake adapters into a base."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lorakit_cli.commands._options import AllowPickleOpt, BaseOpt, JsonOpt, LoraOpt, QuietOpt, VariantOpt, parse_specs
from lorakit_cli.commands._output import emit, emit_json, note, progress_bar, warn
from lorakit_cli.core.user_path import user_path


def fuse(
    lora: LoraOpt = None,
    base: BaseOpt = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER|FILE.safetensors", help="Where to.", show_default=False),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Multiplies the weight of every adapter.", show_default="1")
    ] = None,
    block_scales: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JSON|FILE",
            help="Scales per block, keyed by adapter, or NAME=JSON; NAME=MIDD or NAME=1,0,… as web UIs write them.",
            show_default=False,
        ),
    ] = None,
    components: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Change only these components.", show_default="all that match"),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FOLDER|FILE",
            help="Fuse again what an output or its lorakit.json says; --base and --lora NAME=PATH then only say where "
            "they are.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        Literal["fp16", "bf16", "fp32"] | None,
        typer.Option(help="Precision of the output.", show_default="the base's, tensor by tensor"),
    ] = None,
    variant: VariantOpt = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Part files of weights above this size, such as 5GB.", show_default=False),
    ] = None,
    engine: Annotated[
        Literal["auto", "stream", "pipeline"],
        typer.Option(help="Stream from file to file, or through a loaded pipeline."),
    ] = "auto",
    device: Annotated[str, typer.Option(metavar="auto|cuda|mps|cpu", help="Where to compute.")] = "auto",
    verify: Annotated[
        Literal["sample", "full", "off"], typer.Option(help="How much of the result to look at again.")
    ] = "sample",
    no_verify: Annotated[bool, typer.Option("--no-verify", help="The same as --verify off.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    allow_unmatched: Annotated[
        bool, typer.Option("--allow-unmatched", help="Leave out what of an adapter does not fit.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Add an adapter that the base has in it already once more.")
    ] = False,
    allow_pickle: AllowPickleOpt = False,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Then upload it to this repository on the Hub, which is made if missing, private.",
            show_default=False,
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push-to-hub: make it a public one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Bake adapters into a base, each at its weight, and write a pipeline that loads like any other.

    Without --lora: those saved with the base, else what `use` in lorakit.toml names; on the embedded model its own
    `toy` and `pixel`.

    Example: lorakit fuse --lora toy:0.8 --lora pixel:0.5 --out my-model
    """
    from lorakit_cli.core.block_scales import parse_block_scales
    from lorakit_cli.service.fuse_request import FuseRequest, prepare_fuse
    from lorakit_cli.service.pushing import prepare_push, push

    request = FuseRequest(
        out=None if out is None else user_path(str(out)),
        base=base,
        adapters=parse_specs(lora),
        scale=1.0 if scale is None else scale,
        block_scales=parse_block_scales(block_scales or ()),
        components=tuple(name.strip() for name in components.split(",")) if components is not None else (),
        dtype=dtype,
        variant=variant,
        max_shard_size=max_shard_size,
        engine=engine,
        device=device,
        check="off" if no_verify else verify,
        overwrite=overwrite,
        allow_unmatched=allow_unmatched,
        allow_pickle=allow_pickle,
        again=again,
        dry_run=dry_run,
    )
    if recipe:
        from lorakit_cli.service.replaying import replay_request

        said = {"--scale": scale, "--block-scales": block_scales, "--components": components}
        request = replay_request(recipe, request, said | {"--dtype": dtype, "--variant": variant})
    prepared = prepare_fuse(request)
    wanted = prepare_push(push_to_hub, public=public, dry_run=dry_run)
    if not quiet:
        for text in prepared.notes:
            note(text)
        for text in prepared.warnings:
            warn(text)
    if dry_run:
        from lorakit_cli.commands._plan import emit_plan

        emit_plan("fuse-plan", prepared, as_json=as_json)
        if wanted and not as_json:
            emit(f"would push to {wanted.repo}")
        return
    from lorakit_cli.commands._fuse import fuse_lines
    from lorakit_cli.service import fusing

    if not prepared.plan.base.is_local:
        from lorakit_cli.service.fetching import fetched

        with progress_bar("downloading", quiet=quiet) as progress:
            prepared = prepared.on(fetched(prepared.plan.base, progress))
    with progress_bar("fusing", quiet=quiet) as progress:
        report = fusing.fuse(prepared, progress, None if quiet else warn)
    if wanted:
        with progress_bar("pushing", quiet=quiet):
            report = push(prepared, report, wanted)
    if as_json:
        emit_json("fuse", report)
    else:
        emit("\n".join(fuse_lines(report, brief=quiet)))
