"""Options that two or more commands share: name, help and how the text becomes a value."""

from typing import Annotated

import typer

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.errors import LorakitError


def complete_adapter(incomplete: str) -> list[str]:
    """Complete the name of a library adapter; a broken library completes nothing."""
    from lorakit_cli.sources.library import open_library

    try:
        return [name for name in open_library().entries if name.startswith(incomplete)]
    except LorakitError:
        return []


BaseOpt = Annotated[
    str | None,
    typer.Option(
        "--base",
        "-b",
        metavar="BASE",
        help="Diffusers pipeline folder, single-file checkpoint, or Hub repository owner/name[@revision]; `demo` is "
        "the embedded model.",
        show_default=False,
    ),
]
BasesOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        "-b",
        metavar="BASE",
        help="Base to hold it against, repeatable: a pipeline folder, checkpoint or Hub repository, or `demo`.",
        show_default=False,
    ),
]
LoraOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        "-l",
        metavar="[NAME=]SOURCE[:WEIGHT]",
        help="Adapter to apply, repeatable: a library name, a path, owner/repo[@revision][/file] on the Hub, https://… "
        "or civitai:VERSION, and its weight.",
        autocompletion=complete_adapter,
        show_default=False,
    ),
]
VariantOpt = Annotated[
    str | None,
    typer.Option("--variant", help="Take the base's weights of this variant, such as fp16.", show_default=False),
]
AllowPickleOpt = Annotated[
    bool,
    typer.Option("--allow-pickle", help="Read pickled adapters too, their tensors only; no code of theirs is run."),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, remarks or warnings.")]
VerboseOpt = Annotated[bool, typer.Option("--verbose", "-v", help="Let diffusers and its companions speak.")]


def parse_specs(texts: list[str] | None) -> list[AdapterSpec]:
    """Read `--lora` values. Raises AdapterSpecError."""
    return [AdapterSpec.parse(text) for text in texts or ()]
