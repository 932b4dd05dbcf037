"""The lorakit program: its subcommands, its version, and how errors become text and an exit code."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lorakit_cli import __version__
from lorakit_cli.commands._light_parsing import LightCommand, lightened
from lorakit_cli.commands._output import carry_any_text, emit, error, note, progress_bar
from lorakit_cli.commands.convert import convert
from lorakit_cli.commands.extract import extract
from lorakit_cli.commands.fuse import fuse
from lorakit_cli.commands.generate import generate
from lorakit_cli.commands.grid import grid
from lorakit_cli.commands.inspect import inspect
from lorakit_cli.commands.list_adapters import list_adapters
from lorakit_cli.commands.merge import merge
from lorakit_cli.commands.resize import resize
from lorakit_cli.commands.save import save
from lorakit_cli.commands.unfuse import unfuse
from lorakit_cli.commands.verify import verify
from lorakit_cli.core.downloads import downloads_shown
from lorakit_cli.errors import LorakitError, UsageError

INTERRUPTED = 130


class Program(TyperGroup):
    """The command group, whose usage errors end like all others in one line `error: …`."""

    def get_params(self, ctx: Any) -> Any:
        """Give the options, `--help` among them."""
        return lightened(super().get_params(ctx))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; standing alone, leave with its exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.TyperException as problem:
            # Where pydantic checked the value, it begins so.
            message = problem.format_message().replace("Value error, ", "")
            if message.startswith("Usage:"):  # no arguments at all: the help itself
                note(message)
            else:
                path = getattr(getattr(problem, "ctx", None), "command_path", "lorakit")
                error(f"{message.rstrip('.')}; `{path} --help` shows what there is")
            code = UsageError.exit_code
        if code == INTERRUPTED:
            error("interrupted")
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    name="lorakit",
    cls=Program,
    help="Apply LoRA adapters to diffusers pipelines: exactly, and said beforehand.",
    epilog='Example: lorakit generate --lora toy:1.0 --lora pixel:0.5 "toy_face, pixel art, a red heart"',
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what lorakit raises on purpose into `error: …` and its exit code; anything else stays a traceback."""

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> None:
        bars = functools.partial(progress_bar, quiet=bool(kwargs.get("quiet")), as_bytes=True)
        try:
            with downloads_shown(bars):
                command(*args, **kwargs)
        except LorakitError as problem:
            error(str(problem))
            raise typer.Exit(problem.exit_code) from problem

    return run


def _print_version(wanted: bool) -> None:
    if wanted:
        emit(f"lorakit {__version__}")
        raise typer.Exit


@app.callback()
def lorakit(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Apply LoRA adapters to diffusers pipelines: exactly, and said beforehand."""


app.command("generate", cls=LightCommand)(reports_errors(generate))
app.command("grid", cls=LightCommand)(reports_errors(grid))
app.command("fuse", cls=LightCommand)(reports_errors(fuse))
app.command("verify", cls=LightCommand)(reports_errors(verify))
app.command("unfuse", cls=LightCommand)(reports_errors(unfuse))
app.command("save", cls=LightCommand)(reports_errors(save))
app.command("convert", cls=LightCommand)(reports_errors(convert))
app.command("merge", cls=LightCommand)(reports_errors(merge))
app.command("resize", cls=LightCommand)(reports_errors(resize))
app.command("extract", cls=LightCommand)(reports_errors(extract))
app.command("inspect", cls=LightCommand)(reports_errors(inspect))
app.command("list-adapters", cls=LightCommand)(reports_errors(list_adapters))


def main() -> None:
    """Run the program."""
    carry_any_text()
    app()
