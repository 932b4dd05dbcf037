"""Make one adapter of several: one file whose change is the weighted sum of theirs, or as close as was asked for."""

from collections.abc import Iterator, Sequence

from lorakit_cli.core.bytes_done import BytesDone, Progress
from lorakit_cli.core.factored_layer import read_alike
from lorakit_cli.core.merge_method import MergeMethod, MergeSettings
from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.core.source import Source
from lorakit_cli.core.tensor_info import SHORT_NAMES
from lorakit_cli.errors import OptionError, UnsupportedError
from lorakit_cli.service.combined_layers import factored_layers, vector_layers
from lorakit_cli.service.combining import Wanted, layer_results, reduced
from lorakit_cli.service.decomposing import Total
from lorakit_cli.service.factor_reader import FactorReader
from lorakit_cli.service.merge_places import MeetingPlaces, meeting_places
from lorakit_cli.service.merge_report import MergedAdapter, MergeReport, PartResult, by_block, by_component, together
from lorakit_cli.service.merge_request import MergeInput, PreparedMerge
from lorakit_cli.service.merged_metadata import MergedFile, merged_metadata
from lorakit_cli.service.stacking import add, approximate, stack
from lorakit_cli.service.stored_factors import StoredFactors
from lorakit_cli.service.written_adapter import write_layers


def merge(prepared: PreparedMerge, progress: Progress | None = None) -> MergeReport:
    """Merge adapters into a file; `progress` is called with layers done and layers in all.

    Raises MatchError where their layers cannot be placed in one model, UnsupportedError for what a method or layout
    cannot do, OptionError for ranks or sizes that cannot be, LoraFileError, OutputError.
    """
    request, target = prepared.request, prepared.target
    assert request.out is not None
    places = meeting_places(prepared.adapters, request.base, target, allow_pickle=request.allow_pickle)
    matrices = [slot for slot in places.slots if slot.is_matrix]
    vectors = [slot for slot in places.slots if not slot.is_matrix]
    _require_rank(request.rule, matrices)
    files = [_as_merged(each) for each in prepared.inputs]
    settings = request.settings.as_json() | _limits(request.rule)
    wanted = Wanted(
        places.base,
        target,
        SHORT_NAMES[request.dtype] if request.dtype else None,
        lambda ranks: merged_metadata(files, settings, ranks),
    )
    with FactorReader() as reader:
        done = BytesDone(request.rule.rounds * len(matrices), progress)
        results = _results(prepared, matrices, vectors, reader, wanted, done)
        total = _total(request.settings)
        layers = (*factored_layers(results), *vector_layers(vectors, reader, wanted.dtype, total))
    if not layers:
        raise UnsupportedError(
            "nothing would be left: at these weights the adapters cancel each other, or are less than the dtype holds"
        )
    layers = read_alike(layers, places.base, differ=request.rule.size is not None)
    metadata = wanted.metadata([result.rank for result in results])
    with Source(prepared.adapters[0].file.data) as source:
        size = write_layers(request.out, target, places.base, layers, metadata, source, overwrite=request.overwrite)
    return _report(prepared, places, files, results, len(layers), size)


def _results(
    prepared: PreparedMerge,
    matrices: Sequence[MergeSlot],
    vectors: Sequence[MergeSlot],
    reader: FactorReader,
    wanted: Wanted,
    progress: BytesDone,
) -> list[StoredFactors]:
    settings = prepared.request.settings
    method = settings.method
    if method.reduces:
        rule = prepared.request.rule
        return reduced(matrices, vectors, reader, rule, wanted, total=_total(settings), progress=progress)
    if method.factors:
        return approximate(matrices, reader, settings, wanted.dtype, progress)
    return (add if method.name == "linear" else stack)(matrices, reader, wanted.dtype, progress)


def _total(settings: MergeSettings) -> Total | None:
    """Give what makes one change of several by pruning them, None where they are added up."""
    if not settings.method.prunes:
        return None
    from lorakit_cli.service.task_arithmetic import total_by

    return total_by(settings)


def _require_rank(rule: RankRule, matrices: Sequence[MergeSlot]) -> None:
    """Refuse a rank above that of every sum. Raises OptionError."""
    highest = max((slot.highest_rank for slot in matrices), default=0)
    if rule.rank is not None and rule.rank > highest > 0:
        raise OptionError(
            f"--rank {rule.rank}: no layer of the sum has a rank above {highest}; ask for {highest} or less, "
            "or leave it out for --method cat"
        )


def _limits(rule: RankRule) -> dict[str, object]:
    return {name: getattr(rule, name) for name in rule.given}


def _as_merged(each: MergeInput) -> MergedFile:
    adapter = each.adapter
    assert each.digest is not None
    scales = adapter.block_scales.as_json() if adapter.block_scales else None
    return MergedFile(adapter.name, adapter.weight, each.digest.result(), adapter.file.metadata, each.triggers, scales)


def _report(
    prepared: PreparedMerge,
    places: MeetingPlaces,
    files: Sequence[MergedFile],
    results: Sequence[StoredFactors],
    layers: int,
    size: int,
) -> MergeReport:
    done = layer_results(results)
    everything = together("", None, done)
    return MergeReport(
        out=str(prepared.request.out),
        method=prepared.request.settings.method.name,
        architecture=places.name,
        layout=prepared.target.name,
        adapters=tuple(_adapters(prepared, places.slots, files)),
        layers=layers,
        unchanged=layers - sum(bool(result.rank) for result in results),
        zero=sum(not result.rank for result in results),
        size=size,
        rank_before=everything.rank_before,
        rank_after=everything.rank_after,
        energy=everything.energy,
        error=everything.error,
        components=by_component(done),
        blocks=by_block(done),
        remarks=(*_remarks(prepared, places.slots), *_worse_than_none(prepared.request.settings.method, everything)),
    )


def _adapters(
    prepared: PreparedMerge, slots: Sequence[MergeSlot], files: Sequence[MergedFile]
) -> Iterator[MergedAdapter]:
    for each, file in zip(prepared.inputs, files, strict=True):
        name, path = each.adapter.name, str(each.adapter.file.path)
        own = [slot for slot in slots if name in slot.adapters]
        alone = sum(len(slot.adapters) == 1 for slot in own)
        yield MergedAdapter(name, path, file.weight, file.sha256, len(own), alone)


def _remarks(prepared: PreparedMerge, slots: Sequence[MergeSlot]) -> Iterator[str]:
    acting = [each for each in prepared.adapters if each.weight]
    if len(acting) > 1 and all(len(slot.adapters) == 1 for slot in slots):
        yield "the adapters have no layer in common; each keeps its own"
    for each in prepared.inputs:
        name, file = each.adapter.name, each.adapter.file
        left = (*file.unknown_keys, *(key for keys in file.embeddings.values() for key in keys))
        if left:
            yield f"left out {len(left)} keys of {name} that are no part of its change, such as {left[0][:200]}"
        if not each.adapter.weight:
            yield f"{name} has weight 0 and is left out"


def _worse_than_none(method: MergeMethod, merged: PartResult) -> Iterator[str]:
    if merged.error > 1:
        other = f"; {method.name}_svd works on the changes" if method.factors else ""
        yield (
            f"{method.name} gives a change that is {merged.error:.0%} of the exact sum away from it, further than no "
            f"change at all{other}"
        )
