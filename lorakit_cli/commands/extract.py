"""`lorakit extract`: turn a fine-tune into an adapter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorakit_cli.commands._options import AllowPickleOpt, JsonOpt, QuietOpt
from lorakit_cli.commands._output import emit, emit_json, printable, progress_bar, size_text, warn
from lorakit_cli.core.user_path import user_path

if TYPE_CHECKING:
    from lorakit_cli.service.extract_report import ExtractReport, NotCaptured

_MOST = 5


def extract(
    base: Annotated[str, typer.Option("--base", "-b", metavar="BASE", help="The model before.", show_default=False)],
    tuned: Annotated[str, typer.Option("--tuned", "-t", metavar="MODEL", help="The model after.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.", show_default=False)],
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Rank of every layer.")] = None,
    energy: Annotated[float | None, typer.Option("--energy", help="Share of each layer's squares to keep.")] = None,
    error: Annotated[float | None, typer.Option("--error", help="Relative error that each layer may have.")] = None,
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Keep singular values above the largest divided by this.")
    ] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="20MB", help="Size that the file must keep to.")] = None,
    to: Annotated[Literal["diffusers", "kohya", "comfy"], typer.Option("--to", help="Layout to write.")] = "diffusers",
    dtype: Annotated[Literal["fp16", "bf16", "fp32"], typer.Option("--dtype", help="Store in this dtype.")] = "fp16",
    components: Annotated[
        str | None,
        typer.Option("--components", metavar="NAME,NAME", help="Only these.", show_default="all that both have"),
    ] = None,
    min_diff: Annotated[
        float, typer.Option("--min-diff", help="Leave out layers in which no value changes by more.")
    ] = 0.0,
    keep_full: Annotated[
        bool, typer.Option("--keep-full", help="Keep what has no factors (norms, biases, embeddings) whole.")
    ] = False,
    variant: Annotated[
        str | None,
        typer.Option("--variant", help="Take weights of this variant, such as fp16, in folders.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="auto|cuda|cpu", help="Where to compute.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    allow_pickle: AllowPickleOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Write how a tuned model differs from its base as an adapter, the closest of its ranks.

    Example: lorakit extract --base demo --tuned my-model --rank 16 --out extracted.safetensors
    """
    from lorakit_cli.core.rank_rule import rank_rule
    from lorakit_cli.service.extracting import ExtractRequest
    from lorakit_cli.service.extracting import extract as run

    request = ExtractRequest(
        base=base,
        tuned=tuned,
        out=user_path(str(out)),
        rule=rank_rule(rank, energy, error, ratio, size),
        to=to,
        dtype=dtype,
        components=tuple(name.strip() for name in components.split(",")) if components else (),
        min_diff=min_diff,
        keep_full=keep_full,
        overwrite=overwrite,
        allow_pickle=allow_pickle,
        variant=variant,
        device=device,
    )
    with progress_bar("extracting", quiet=quiet) as progress:
        report = run(request, progress)
    if not quiet:
        for text in report.warnings:
            warn(text)
    if as_json:
        emit_json("extract", report)
        return
    emit(printable(f"{report.out}: {report.layout}, {report.layers + report.full} layers, {size_text(report.size)}"))
    if not quiet:
        emit("\n".join(printable(line) for line in _lines(report)))


def _lines(report: "ExtractReport") -> list[str]:
    whole = f", {_count(report.full, 'parameter')} kept whole" if report.full else ""
    lines = [
        f"  {report.energy:.2%} of the difference's energy in {_count(report.layers, 'layer')}{whole}, "
        f"error {report.error:.2%}; {report.equal} parameters are equal"
    ]
    for block in report.blocks:
        low, high = block.ranks
        ranks = str(low) if low == high else f"{low} to {high}"
        lines.append(
            f"  {block.component} {block.block}: {_count(block.layers, 'layer')}, rank {ranks}, "
            f"energy {block.energy:.2%}, error {block.error:.2%}"
        )
    reasons: dict[str, list[NotCaptured]] = {}
    for each in report.not_captured:
        reasons.setdefault(each.reason, []).append(each)
    for reason, own in reasons.items():
        lines.append(f"  not captured, {reason}: {_count(len(own), 'parameter')}")
        lines += [f"    {each.component}.{each.parameter} {_size(each)}" for each in own[:_MOST]]
        lines += [f"    and {len(own) - _MOST} more, smaller (--json lists all)"] if len(own) > _MOST else []
    return lines


def _size(each: "NotCaptured") -> str:
    relative = f", {each.relative:.2%} of the base's" if each.relative is not None else ""
    return f"norm {each.norm:.3g}{relative}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
