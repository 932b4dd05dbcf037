"""Options that two or more commands share: name, help and how the text becomes a value."""

from typing import Annotated, Literal

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
ConfigOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Pipeline like a single-file base, for configurations, tokenizers and what the file lacks.",
        show_default=False,
    ),
]
AddTriggersOpt = Annotated[
    bool, typer.Option("--add-triggers", help="Put missing trigger words of the adapters in front of the prompt.")
]
LiteralOpt = Annotated[
    bool, typer.Option("--literal-prompt", help="Take brackets and numbers as they stand, not as (word:1.3).")
]
VariantOpt = Annotated[
    str | None,
    typer.Option("--variant", help="Take the base's weights of this variant, such as fp16.", show_default=False),
]
SchedulerOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="As diffusers or A1111 call it: euler_a, 'DPM++ 2M Karras'.", show_default="the base's"
    ),
]
SchedulerOptionsOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="Option of the scheduler, such as use_karras_sigmas=true.", show_default=False
    ),
]
AutoSchedulerOpt = Annotated[
    bool,
    typer.Option(
        "--auto-scheduler",
        help="Take the scheduler, steps and guidance that suit an adapter for few steps (LCM, Lightning, Hyper, …).",
    ),
]
ClipSkipOpt = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Text layer to read, as A1111 counts: 1 the last, 2 the one before.", show_default=False
    ),
]
InitImageOpt = Annotated[str | None, typer.Option(metavar="FILE", help="Picture to begin from.", show_default=False)]
StrengthOpt = Annotated[
    float | None, typer.Option(help="How much of it to change, up to 1.", show_default="the pipeline's")
]
MaskOpt = Annotated[str | None, typer.Option(metavar="FILE", help="White where it is to change.", show_default=False)]
_SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
DtypeOpt = Annotated[
    Literal["auto", "fp32", "fp16", "bf16", "float32", "float16", "bfloat16"],
    typer.Option(
        metavar="auto|fp32|fp16|bf16", help="Precision of the weights.", callback=lambda text: _SHORT.get(text, text)
    ),
]
VaeOpt = Annotated[
    str | None, typer.Option(metavar="FOLDER|FILE", help="Autoencoder instead of the base's.", show_default=False)
]
OffloadOpt = Annotated[
    str | None,
    typer.Option(
        metavar="model|group|sequential",
        help="Keep weights in memory, on the GPU only what computes: the later, the less there and the slower.",
        show_default=False,
    ),
]
LowMemoryOpt = Annotated[bool, typer.Option("--low-memory", help="Attend and decode in parts.")]
CompileOpt = Annotated[
    bool, typer.Option("--compile", help="Compile the denoiser first, which many pictures make up for.")
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
