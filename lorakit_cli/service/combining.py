"""From the modules where adapters meet to a file: reduced to a rank, written, read back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.factored_layer import read_alike
from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.core.new_layer import NewLayer
from lorakit_cli.core.new_tensor import header_of
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.service.combined_layers import layers_of_ranks, vector_layers
from lorakit_cli.service.converted_file import by_component, header_metadata
from lorakit_cli.service.decomposing import Total, spectra
from lorakit_cli.service.factor_reader import FactorReader
from lorakit_cli.service.lanes import Progress
from lorakit_cli.service.merge_report import LayerResult
from lorakit_cli.service.rank_choice import rule_by_module, rules_within
from lorakit_cli.service.reducing import reduce_rank
from lorakit_cli.service.slot_factors import dtype_of
from lorakit_cli.service.stored_factors import StoredFactors
from lorakit_cli.service.written_adapter import PEFT

# Gives the metadata of the new file for the ranks of its layers.
Metadata = Callable[[Sequence[int]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the new adapter is to be: its base, layout, dtype as safetensors spells it (None: as it is) and metadata."""

    base: BaseIndex
    target: TargetLayout
    dtype: str | None
    metadata: Metadata


def reduced(
    matrices: Sequence[MergeSlot],
    vectors: Sequence[MergeSlot],
    reader: FactorReader,
    rule: RankRule,
    wanted: Wanted,
    *,
    total: Total | None = None,
    progress: Progress | None = None,
) -> list[StoredFactors]:
    """Reduce what has factors to the ranks that a rule gives. Raises OptionError for a size that is too small."""
    rule_of = rule_by_module(rule)
    if rule.size is not None:
        dtypes = [wanted.dtype or dtype_of(slot, reader) for slot in matrices]
        rest = vector_layers(vectors, reader, wanted.dtype)

        def size_of(ranks: Sequence[int]) -> int:
            layers = read_alike([*layers_of_ranks(matrices, ranks, dtypes), *rest], wanted.base, differ=True)
            return file_size(layers, wanted.metadata(ranks), wanted)

        found = spectra(matrices, reader, total, progress)
        rule_of = rules_within(rule.size, matrices, found, dtypes, size_of)
    return reduce_rank(matrices, reader, rule_of, wanted.dtype, total=total, progress=progress)


def file_size(layers: Sequence[NewLayer], metadata: Mapping[str, str], wanted: Wanted) -> int:
    """Reckon the size of the file, or of peft's files of weights."""
    if wanted.target.name == PEFT:
        return sum(_size(own, metadata) for own in by_component(layers).values())
    return _size(layers, header_metadata(wanted.target, wanted.base, layers, metadata))


def _size(layers: Sequence[NewLayer], metadata: Mapping[str, str]) -> int:
    tensors = [tensor for layer in layers for tensor in layer.tensors]
    return len(header_of(tensors, metadata)) + sum(tensor.size for tensor in tensors)


def layer_results(results: Sequence[StoredFactors]) -> list[LayerResult]:
    """Sum up what became of each module."""
    return [
        LayerResult(
            result.slot.place.component, result.slot.block, result.slot.rank, result.rank,
            result.norm, result.tail, result.error, result.whole,
        )
        for result in results
    ]  # fmt: skip
