"""Bring an adapter to lower ranks: to the closest there is, layer by layer, or as close as a size of file allows."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lorakit_cli.core.bytes_done import BytesDone, Progress
from lorakit_cli.core.factored_layer import read_alike
from lorakit_cli.core.merge_slots import Merged, MergeSlot
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.core.source import Source
from lorakit_cli.core.tensor_info import SHORT_NAMES
from lorakit_cli.errors import OptionError, UnsupportedError
from lorakit_cli.service.combined_layers import factored_layers, vector_layers
from lorakit_cli.service.combining import Wanted, layer_results, reduced
from lorakit_cli.service.converting import only_file
from lorakit_cli.service.factor_reader import FactorReader
from lorakit_cli.service.merge_places import meeting_places
from lorakit_cli.service.merge_report import ResizeReport, by_block, by_component, together
from lorakit_cli.service.new_layouts import layout_for
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.service.resized_metadata import resized_metadata
from lorakit_cli.service.written_adapter import require_adapter_place, write_layers


class ResizeRequest(NamedTuple):
    """What to resize, by which rule, and where to; `to` and `dtype` None leave layout and dtype as they are."""

    source: str
    out: Path
    rule: RankRule
    to: str | None = None
    dtype: str | None = None
    base: str | None = None
    overwrite: bool = False
    allow_pickle: bool = False


def resize(request: ResizeRequest, progress: Progress | None = None) -> ResizeReport:
    """Resize an adapter; `progress` is called with layers done and layers in all.

    Raises LoraFileError for the input, MatchError where its modules cannot be placed, UnsupportedError for algorithms
    that depend on a base, OptionError for ranks or sizes that cannot be, OutputError.
    """
    path = only_file(request.source, allow_pickle=request.allow_pickle)
    file = open_adapter(path, allow_pickle=request.allow_pickle)
    target = layout_for(file, request.to, request.out)
    require_adapter_place(request.out, target.name, [path], request.base, overwrite=request.overwrite)
    own = Merged(str(path), file, 1.0, None, ())
    places = meeting_places([own], request.base, target, allow_pickle=request.allow_pickle)
    matrices = [slot for slot in places.slots if slot.is_matrix]
    vectors = [slot for slot in places.slots if not slot.is_matrix]
    _require_rank(request.rule, matrices, path)
    before = max((slot.rank for slot in matrices), default=0)
    dtype = SHORT_NAMES[request.dtype] if request.dtype else None
    wanted = Wanted(places.base, target, dtype, lambda ranks: resized_metadata(file.metadata, ranks, str(before)))
    done = BytesDone(request.rule.rounds * len(matrices), progress)
    with FactorReader() as reader:
        results = reduced(matrices, vectors, reader, request.rule, wanted, progress=done)
        layers = (*factored_layers(results), *vector_layers(vectors, reader, dtype))
    if not layers:
        raise UnsupportedError(f"{path} changes nothing at all, so that nothing would be left of it")
    layers = read_alike(layers, places.base, differ=request.rule.size is not None)
    metadata = wanted.metadata([result.rank for result in results])
    with Source(file.data) as source:
        size = write_layers(request.out, target, places.base, layers, metadata, source, overwrite=request.overwrite)
    parts = layer_results(results)
    whole = together("", None, parts)
    return ResizeReport(
        source=str(path),
        out=str(request.out),
        architecture=places.name,
        layout=target.name,
        layers=len(layers),
        unchanged=len(layers) - sum(bool(result.rank) for result in results),
        zero=sum(not result.rank for result in results),
        size_before=file.size,
        size=size,
        rank_before=whole.rank_before,
        rank_after=whole.rank_after,
        energy=whole.energy,
        error=whole.error,
        components=by_component(parts),
        blocks=by_block(parts),
        left_out=(*file.unknown_keys, *(key for keys in file.embeddings.values() for key in keys)),
    )


def _require_rank(rule: RankRule, matrices: Sequence[MergeSlot], path: Path) -> None:
    """Refuse a rank above all that there are: nothing would be gained. Raises OptionError."""
    highest = max((slot.highest_rank for slot in matrices), default=0)
    if not highest:
        raise OptionError(f"{path} has no layer with a rank, only norms, biases and the like; nothing can be resized")
    if rule.rank is not None and rule.rank > highest:
        raise OptionError(
            f"--rank {rule.rank}: no layer of {path} has a rank above {highest}; ask for {highest} or less"
        )
