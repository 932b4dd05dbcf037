"""Write an adapter in another layout, with the same changes: converted, read back and compared before it appears."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.conversion import convert_layers
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.new_layer import NewLayer
from lorakit_cli.core.source import Source
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OptionError
from lorakit_cli.formats.targets import TARGETS
from lorakit_cli.service.convert_report import Approximated, ConvertReport
from lorakit_cli.service.placing import Placing, place, undecided
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.service.written_adapter import require_adapter_place, write_layers
from lorakit_cli.sources.local import find_files

DTYPES = ("fp16", "bf16", "fp32")


class ConvertRequest(NamedTuple):
    """What to convert, to which layout, and where to. `rank`: approximate what the layout cannot hold at this rank."""

    source: str
    to: str
    out: Path
    base: str | None = None
    dtype: str | None = None
    rank: int | None = None
    overwrite: bool = False
    allow_pickle: bool = False


def convert(request: ConvertRequest) -> ConvertReport:
    """Convert an adapter.

    Raises LoraFileError for the input, MatchError where its modules cannot be placed, UnsupportedError for what the
    layout cannot hold, OutputError.
    """
    target = TARGETS[request.to]
    path = only_file(request.source, allow_pickle=request.allow_pickle)
    require_adapter_place(request.out, request.to, [path], request.base, overwrite=request.overwrite)
    given = file = open_adapter(path, allow_pickle=request.allow_pickle)
    placings = place(file, request.base, allow_pickle=request.allow_pickle)
    approximated: tuple[Approximated, ...] = ()
    if request.rank is not None:
        from lorakit_cli.service.approximating import approximate

        file, approximated = approximate(file, placings[0].base, placings[0].matches, target, request.rank)
        placings = tuple(placing.of(file) for placing in placings)
    base, layers = _converted(file, placings, target)
    error: float | None = None
    with Source(file.data) as source:
        if request.dtype:
            from lorakit_cli.service.casting import cast

            layers, error = cast(layers, source, request.dtype)
        size = write_layers(request.out, target, base, layers, file.metadata, source, overwrite=request.overwrite)
    return ConvertReport(
        source=str(path),
        out=str(request.out),
        architecture=" or ".join(dict.fromkeys(placing.name for placing in placings)),
        dialect=given.formats[0].name,
        layout=target.name,
        layers=len(given.layers),
        written=len(layers),
        split=sum(count > 1 for count in _uses(layers).values()),
        joined=sum(len(layer.sources) > 1 for layer in layers),
        tensors=sum(len(layer.tensors) for layer in layers),
        size=size,
        dtype=request.dtype,
        exact=not approximated and not error,
        error=error,
        approximated=approximated,
        left_out=(*given.unknown_keys, *(key for keys in given.embeddings.values() for key in keys)),
    )


def only_file(source: str, *, allow_pickle: bool = False) -> Path:
    """Find the one adapter file that a word on the command line means.

    Raises OptionError where it means several, or states a weight, at which nothing is applied here.
    """
    files = find_files(source, allow_pickle=allow_pickle)
    if source.startswith("https://") or not user_path(source).exists():
        spec = AdapterSpec.parse(source)
        if spec.weight is not None or spec.block_weights:
            raise OptionError(
                f"{source}: this takes the file as it is, without a weight; "
                f"`lorakit merge --lora {shlex.quote(source)} --out FILE` writes an adapter of that strength"
            )
    if len(files) > 1:
        raise OptionError(f"{source} holds several adapters, name one: {', '.join(file.name for file in files)}")
    return files[0]


def _converted(
    file: LoraFile, placings: Sequence[Placing], target: TargetLayout
) -> tuple[BaseIndex, tuple[NewLayer, ...]]:
    """Convert the layers; where several models may be meant, what comes out must not depend on which of them it is."""
    first, *others = placings
    layers = convert_layers(file, first.base, first.matches, target)
    for other in others:
        again = convert_layers(file, other.base, other.matches, target)
        if [_outcome(layer) for layer in layers] != [_outcome(layer) for layer in again]:
            names = dict.fromkeys(placing.name for placing in placings)
            raise undecided(file, [f"its layers fit {' and '.join(names)}"])
    return first.base, layers


def _outcome(layer: NewLayer) -> tuple[object, ...]:
    return layer.component, layer.stem, layer.name, layer.kind, layer.tensors


def _uses(layers: Sequence[NewLayer]) -> dict[int, int]:
    uses: dict[int, int] = {}
    for layer in layers:
        for source in layer.sources:
            uses[id(source)] = uses.get(id(source), 0) + 1
    return uses
