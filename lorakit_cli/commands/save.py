"""`lorakit save`: keep a base and adapters side by side."""

from pathlib import Path
from typing import Annotated

import typer

from lorakit_cli.commands._options import AllowPickleOpt, BaseOpt, JsonOpt, LoraOpt, QuietOpt, VariantOpt, parse_specs
from lorakit_cli.commands._output import emit, emit_json, note, progress_bar, warn
from lorakit_cli.core.user_path import user_path


def save(
    lora: LoraOpt = None,
    base: BaseOpt = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Where to.", show_default=False)
    ] = None,
    scale: Annotated[float, typer.Option(help="Multiplies the weight of every adapter.")] = 1.0,
    block_scales: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JSON|FILE",
            help="Scales per block, keyed by adapter, or NAME=JSON; NAME=MIDD or NAME=1,0,… as web UIs write them.",
            show_default=False,
        ),
    ] = None,
    variant: VariantOpt = None,
    adapters_only: Annotated[
        bool, typer.Option("--adapters-only", help="Refer to the base instead of copying it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    allow_unmatched: Annotated[
        bool, typer.Option("--allow-unmatched", help="Leave out what of an adapter does not fit.")
    ] = False,
    allow_pickle: AllowPickleOpt = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Keep a base and adapters side by side, unfused, in a folder that is a base itself.

    Used as --base, it brings its adapters along, each at its weight. Without --lora: those saved with the base, else
    what `use` in lorakit.toml names; on the embedded model its own `toy` and `pixel`.

    Example: lorakit save --lora toy:0.8 --lora pixel:0.5 --out my-set
    """
    from lorakit_cli.core.block_scales import parse_block_scales
    from lorakit_cli.service.save_request import SaveRequest, prepare_save

    request = SaveRequest(
        out=None if out is None else user_path(str(out)),
        base=base,
        adapters=parse_specs(lora),
        scale=scale,
        block_scales=parse_block_scales(block_scales or ()),
        variant=variant,
        adapters_only=adapters_only,
        overwrite=overwrite,
        allow_unmatched=allow_unmatched,
        allow_pickle=allow_pickle,
        dry_run=dry_run,
    )
    prepared = prepare_save(request)
    if not quiet:
        for text in prepared.notes:
            note(text)
        for text in prepared.warnings:
            warn(text)
    if dry_run:
        from lorakit_cli.commands._plan import emit_plan

        emit_plan("save-plan", prepared, as_json=as_json)
        return
    from lorakit_cli.commands._save import save_lines
    from lorakit_cli.service import saving

    if not (adapters_only or prepared.plan.base.is_local):
        from lorakit_cli.service.fetching import fetched

        with progress_bar("downloading", quiet=quiet) as progress:
            prepared = prepared.on(fetched(prepared.plan.base, progress))
    with progress_bar("saving", quiet=quiet) as progress:
        report = saving.save(prepared, progress, None if quiet else warn)
    if as_json:
        emit_json("save", report)
    else:
        emit("\n".join(save_lines(report, brief=quiet)))
