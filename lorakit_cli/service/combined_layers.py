"""The layers of the new adapter: those of factors, and beside them what is no matrix, summed value by value."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorakit_cli.core.factored_layer import factored_layer
from lorakit_cli.core.lora_file import LoraLayer
from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.core.new_layer import NewLayer
from lorakit_cli.core.new_tensor import Computed, NewTensor
from lorakit_cli.core.tensor_info import BIT_SIZES
from lorakit_cli.service.decomposing import Total
from lorakit_cli.service.factor_reader import FactorReader
from lorakit_cli.service.slot_factors import dtype_of
from lorakit_cli.service.stored_factors import StoredFactors, not_held
from lorakit_cli.service.stored_values import as_bytes, rounded, widened

# A bias that stood beside factors stands alone in what is written.
_ALONE = {"lora-bias": ("bias", "bias_diff")}


def factored_layers(results: Sequence[StoredFactors]) -> tuple[NewLayer, ...]:
    """Write what has factors; a module without any is left out."""
    return tuple(
        factored_layer(result.slot.place, result.rank, result.dtype, result.up, result.down, _sources(result.slot))
        for result in results
        if result.rank
    )


def layers_of_ranks(slots: Sequence[MergeSlot], ranks: Sequence[int], dtypes: Sequence[str]) -> Iterator[NewLayer]:
    """Give layers as they will be, for their sizes alone."""
    for slot, rank, dtype in zip(slots, ranks, dtypes, strict=True):
        if rank:
            rows, columns = slot.matrix
            up, down = (Computed(rank * size * BIT_SIZES[dtype] // 8, bytes) for size in (rows, columns))
            yield factored_layer(slot.place, rank, dtype, up, down, ())


def vector_layers(
    slots: Sequence[MergeSlot], reader: FactorReader, dtype: str | None, total: Total | None = None
) -> tuple[NewLayer, ...]:
    """Write the sums of norms and biases, or what else `total` makes of them; what comes to nothing is left out.

    Raises UnsupportedError for values that the dtype cannot hold.
    """
    if not slots:
        return ()
    from lorakit_cli.service.slot_values import whole

    changes = ((total or whole)(slot, reader.tensors).cpu().numpy() for slot in slots)
    return tuple(
        _vector(slot, change, dtype or dtype_of(slot, reader))
        for slot, change in zip(slots, changes, strict=True)
        if change.any()
    )


def _vector(slot: MergeSlot, change: NDArray[Any], dtype: str) -> NewLayer:
    place, layer = slot.place, slot.contributions[0].share.layer
    kind, role = _ALONE.get(layer.kind.name) or (layer.kind.name, next(iter(layer.keys)))
    data = as_bytes(rounded(change, dtype))
    if not np.isfinite(widened(data, dtype, np.float64)).all():
        raise not_held(slot, dtype)
    tensor = NewTensor(place.tensor_name(role), dtype, place.shape, (data.tobytes(),))
    return NewLayer(place.stem, place.component, place.name, kind, 0, 1.0, (tensor,), _sources(slot))


def _sources(slot: MergeSlot) -> tuple[LoraLayer, ...]:
    return tuple(part.share.layer for part in slot.contributions)
