"""What adapters change in one module as stacked factors: numpy's arrays, in fp64 or another dtype."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lorakit_cli.core.merge_slots import Contribution, MergeSlot
from lorakit_cli.core.new_layer import Share
from lorakit_cli.errors import CorruptFileError, UnsupportedError
from lorakit_cli.service.factor_reader import FactorReader

if TYPE_CHECKING:
    import torch

# What is stored in more is written as fp32, what is stored in less as bf16.
_WIDEST, _NARROWEST = "F32", "BF16"
_KEPT = frozenset({"F32", "F16", "BF16"})

Pair = tuple[NDArray[Any], NDArray[Any]]


def inner_size(slot: MergeSlot, *, as_stored: bool = False) -> int | None:
    """Give the inner size of the product of all factors of a module, None where only the whole change will do.

    That is so where an inner size is above the module's smaller side, unless factors are taken `as_stored`.
    """
    if not slot.is_matrix:
        return None
    most = min(slot.matrix)
    sizes = [
        size
        for part in slot.contributions
        if (size := part.inner) and (size <= most or (as_stored and part.share.layer.kind.product))
    ]
    return sum(sizes) if len(sizes) == len(slot.contributions) else None


def device_of(slots: Sequence[MergeSlot], reader: FactorReader) -> "torch.device | None":
    """Start torch where an algorithm computes its factors with it, and give its device; None where none does."""
    products = all(part.share.layer.kind.product for slot in slots for part in slot.contributions)
    return None if products else reader.tensors.device


def stacked(slot: MergeSlot, reader: FactorReader, left: NDArray[Any], right: NDArray[Any]) -> None:
    """Fill `[rows, inner]`, which holds zeros, and `[inner, columns]` so that they multiply to the change of a module.

    They are computed in the dtype of these, or in fp64; strengths and scales go into the first. Raises
    CorruptFileError for values that are not finite.
    """
    begin = 0
    for part in slot.contributions:
        up, down = thin(part, reader, left.dtype)
        end = begin + up.shape[1]
        left[part.share.offset : part.share.offset + up.shape[0], begin:end] = up
        right[begin:end] = down
        begin = end


def thin(part: Contribution, reader: FactorReader, dtype: DTypeLike = np.float64, *, scaled: bool = True) -> Pair:
    """Give the rows of a change that a module takes, as two factors, with their scale and strength in the first.

    Without `scaled` they are left out. Raises CorruptFileError.
    """
    layer = part.share.layer
    scale = layer.scale * part.strength if scaled else 1.0
    if layer.kind.product:
        up, down = layer.kind.product(_read(part, reader, dtype), scale)
    else:
        up, down = _rebuilt(part, reader, dtype, scale)
    return _rows(part.share, up), down.reshape(up.shape[1], -1)


def _read(part: Contribution, reader: FactorReader, dtype: DTypeLike) -> dict[str, NDArray[Any]]:
    layer = part.share.layer
    factors = reader.layer(part.file, layer, dtype)
    for role, factor in factors.items():
        # A sum is quicker, and finite only where all values are.
        key = layer.keys[role]
        if not math.isfinite(factor.sum()) and not np.isfinite(reader.values(part.file, key, np.float64)).all():
            raise CorruptFileError(
                f"{key} of {part.adapter} holds NaN or infinity; `lorakit inspect --scan` says where"
            )
    return factors


def _rebuilt(part: Contribution, reader: FactorReader, dtype: DTypeLike, scale: float) -> Pair:
    """Compute the factors of an algorithm that stores others."""
    import torch

    from lorakit_cli.service.slot_values import read_part

    give = part.share.layer.kind.thin
    assert give is not None
    factors = read_part(part, reader.tensors, torch.float64)
    up, down = (factor.cpu().numpy().astype(dtype) for factor in give.factors(factors, scale))
    return up, down


def _rows(share: Share, up: NDArray[Any]) -> NDArray[Any]:
    rows = up[share.start : share.stop]
    if not share.swapped:
        return rows
    half = (len(rows) + 1) // 2
    return np.concatenate([rows[half:], rows[:half]])


def too_large(slot: MergeSlot) -> UnsupportedError:
    """Say that fp64 does not hold the squares of a change."""
    return UnsupportedError(f"the change of {slot.place.stem} is too large to be decomposed; try smaller weights")


def dtype_of(slot: MergeSlot, reader: FactorReader) -> str:
    """Give the narrowest dtype, as safetensors spells it, that holds all that a module's factors are stored in.

    8 bits are not enough for what is computed, and 64 are more than is of use.
    """
    found = {reader.dtype(part.file, key) for part in slot.contributions for key in _floating(part)}
    wide = {name if name in _KEPT else _WIDEST if name == "F64" else _NARROWEST for name in found}
    return wide.pop() if len(wide) == 1 else _WIDEST


def _floating(part: Contribution) -> list[str]:
    layer = part.share.layer
    return [key for role, key in layer.keys.items() if role not in layer.kind.whole_numbers]
