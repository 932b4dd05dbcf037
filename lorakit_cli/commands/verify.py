"""`lorakit verify`: prove that a fused pipeline is what its recipe says."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lorakit_cli.commands._options import AllowPickleOpt, BaseOpt, JsonOpt, LoraOpt, QuietOpt, parse_specs
from lorakit_cli.commands._output import emit, emit_json, error, printable, progress_bar
from lorakit_cli.errors import LorakitError


def verify(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="What `lorakit fuse` wrote.")],
    base: BaseOpt = None,
    lora: LoraOpt = None,
    level: Annotated[
        Literal["sample", "full"], typer.Option(help="Make all sums again, or some rows of every tensor.")
    ] = "full",
    device: Annotated[
        str, typer.Option(metavar="auto|cuda|mps|cpu", help="Where to compute.", show_default="where it was made")
    ] = "auto",
    allow_pickle: AllowPickleOpt = False,
    as_json: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Hold a fused pipeline against base and adapters once more: a replay of its arithmetic, not an estimate.

    They are found again by their hashes; --base PATH and --lora NAME=PATH say where they are now. Leaves with 0 if
    every value is what it should be, else names each tensor that is not, and why if that shows, and leaves with 1.

    Example: lorakit verify my-model
    """
    from lorakit_cli.commands._fuse import check_lines, problem_lines
    from lorakit_cli.service.proving import VerifyRequest
    from lorakit_cli.service.proving import verify as run

    with progress_bar("verifying", quiet=quiet) as progress:
        report = run(VerifyRequest(path, base, parse_specs(lora), level, device, allow_pickle), progress)
    if as_json:
        emit_json("verify", report)
    else:
        first = printable(f"{path}: {'sound' if report.sound else 'not sound'}")
        emit("\n".join([first, *check_lines(report), *problem_lines(report)]))
    if not report.sound:
        first = f", {report.problems[0]}" if report.problems else ""
        error(f"{path} is not what its recipe says: {len(report.deviations)} tensors deviate{first}")
        raise typer.Exit(LorakitError.exit_code)
