"""Write an adapter in another layout, with the same changes: converted, read back and compared before it appears."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.conversion import convert_layers
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.new_layer import NewLayer
from lorakit_cli.core.output_file import new_file, require_absent
from lorakit_cli.core.output_folder import new_folder, require_no_folder
from lorakit_cli.core.source import Source
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.errors import OptionError, OutputError
from lorakit_cli.formats.targets import TARGETS
from lorakit_cli.service.carried_metadata import carried
from lorakit_cli.service.convert_report import Approximated, ConvertReport
from lorakit_cli.service.converted_file import by_component, write_adapter, write_checked
from lorakit_cli.service.placing import Placing, place, undecided
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.sources.local import find_files

DTYPES = ("fp16", "bf16", "fp32")
_PEFT_WEIGHTS = "adapter_model.safetensors"
_PEFT_CONFIG = "adapter_config.json"


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
    _require_name(request)
    path = _only_file(request.source, allow_pickle=request.allow_pickle)
    _require_apart(path, request.out)
    # Before work is done for it.
    (require_no_folder if request.to == "peft" else require_absent)(request.out, overwrite=request.overwrite)
    given = file = open_adapter(path, allow_pickle=request.allow_pickle)
    placings = place(file, request.base)
    approximated: tuple[Approximated, ...] = ()
    if request.rank is not None:
        from lorakit_cli.service.approximating import approximate

        file, approximated = approximate(file, placings[0].base, placings[0].matches, target, request.rank)
        placings = tuple(placing.of(file) for placing in placings)
    base, layers = _converted(file, placings, target)
    error: float | None = None
    write = _write_peft if request.to == "peft" else _write_file
    with Source(file.data) as source:
        if request.dtype:
            from lorakit_cli.service.casting import cast

            layers, error = cast(layers, source, request.dtype)
        size = write(request, base, layers, file, source)
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


def _only_file(source: str, *, allow_pickle: bool) -> Path:
    files = find_files(source, allow_pickle=allow_pickle)
    if len(files) > 1:
        raise OptionError(f"{source} holds several adapters, name one: {', '.join(file.name for file in files)}")
    return files[0]


def _require_name(request: ConvertRequest) -> None:
    """Refuse a name under which nobody would look for what is written."""
    as_file = request.out.suffix.lower() == ".safetensors"
    if as_file == (request.to == "peft"):
        wanted = "a folder, so no name in .safetensors" if as_file else "a file, so a name in .safetensors"
        raise OptionError(f"--out {request.out}: the {request.to} layout is {wanted}")


def _require_apart(path: Path, out: Path) -> None:
    """Refuse to write over what is read, or over the folder that it lies in."""
    source, target = path.resolve(), out.resolve()
    if target == source or target in source.parents or (out.exists() and out.samefile(path)):
        raise OutputError(f"{out} is or holds the adapter that is read, {path}; choose another --out")


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


def _write_file(
    request: ConvertRequest, base: BaseIndex, layers: Sequence[NewLayer], file: LoraFile, source: Source
) -> int:
    with new_file(request.out, overwrite=request.overwrite) as out:
        return write_adapter(out, request.out, TARGETS[request.to], base, layers, file.metadata, source)


def _write_peft(
    request: ConvertRequest, base: BaseIndex, layers: Sequence[NewLayer], file: LoraFile, source: Source
) -> int:
    """Write a folder for peft, with one folder inside for each component where there are several."""
    from lorakit_cli.core.peft_config import peft_config

    components = by_component(layers)
    metadata = carried(file.metadata)
    size = 0
    with new_folder(request.out, overwrite=request.overwrite) as folder:
        for name, own in components.items():
            inner = folder / name if len(components) > 1 else folder
            inner.mkdir(exist_ok=True)
            component = base.components[name]
            config = json.dumps(peft_config(own, component), indent=2) + "\n"
            (inner / _PEFT_CONFIG).write_text(config, encoding="utf-8")
            only = BaseIndex(base.path, base.class_name, {name: component}, base.variant)
            with (inner / _PEFT_WEIGHTS).open("xb") as out:
                size += write_checked(out, inner / _PEFT_WEIGHTS, only, own, metadata, source)
    return size
