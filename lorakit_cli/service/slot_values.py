"""What adapters change in one module, read in fp64: as stacked factors, or as the whole change where there are none."""

import math
from functools import reduce

import torch
from torch import Tensor

from lorakit_cli.core.delta import layer_delta
from lorakit_cli.core.merge_slots import Contribution, MergeSlot
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service.dtypes import TORCH_DTYPES
from lorakit_cli.service.tensors import TensorReader

_WIDE = torch.float64
_NARROW = 2


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
        if (size := _inner(part)) and (size <= most or (as_stored and part.share.layer.kind.product))
    ]
    return sum(sizes) if len(sizes) == len(slot.contributions) else None


def _inner(part: Contribution) -> int | None:
    layer = part.share.layer
    if layer.kind.product:
        return layer.rank
    return layer.kind.thin.inner(layer.shapes) if layer.kind.thin else None


def stacked(slot: MergeSlot, reader: TensorReader, left: Tensor, right: Tensor) -> None:
    """Fill `[rows, inner]`, which holds zeros, and `[inner, columns]` so that they multiply to the change of a module.

    They are computed in the dtype of these; strengths and scales go into the first. Raises CorruptFileError for values
    that are not finite.
    """
    begin = 0
    for part in slot.contributions:
        up, down = thin(part, reader, left.dtype)
        end = begin + up.shape[1]
        left[part.share.offset : part.share.offset + up.shape[0], begin:end] = up
        right[begin:end] = down
        begin = end


def thin(
    part: Contribution, reader: TensorReader, dtype: torch.dtype = _WIDE, *, scaled: bool = True
) -> tuple[Tensor, Tensor]:
    """Give the rows of a change that a module takes, as two factors, with their scale and strength in the first.

    Without `scaled` they are left out. Raises CorruptFileError.
    """
    layer = part.share.layer
    kind = layer.kind
    give = kind.product or (kind.thin and kind.thin.factors)
    assert give is not None
    up, down = give(_read(part, reader, dtype), layer.scale * part.strength if scaled else 1.0)
    return _rows(part, up), down.reshape(up.shape[1], -1)


def whole(slot: MergeSlot, reader: TensorReader) -> Tensor:
    """Give the sum of all changes of a module as a matrix, or as it is for a vector. Raises CorruptFileError."""
    return reduce(torch.add, (change_of(slot, part, reader) * part.strength for part in slot.contributions))


def change_of(slot: MergeSlot, part: Contribution, reader: TensorReader, dtype: torch.dtype = _WIDE) -> Tensor:
    """Give what one layer changes of a module at strength 1, in the form that `whole` has, computed in a dtype."""
    layer = part.share.layer
    change = layer_delta(layer, _read(part, reader, dtype), None, dtype).reshape(part.share.rows, -1)
    change = _rows(part, change)
    if change.shape[0] != part.share.total:
        filled = change.new_zeros(part.share.total, change.shape[1])
        filled[part.share.offset : part.share.offset + change.shape[0]] = change
        change = filled
    return change if slot.is_matrix else change.reshape(slot.shape)


def dtype_of(slot: MergeSlot, reader: TensorReader) -> torch.dtype:
    """Give the narrowest dtype that holds all that a module's factors are stored in; 8 bits are not enough for it."""
    found = {reader.dtype(part.file, key) for part in slot.contributions for key in _floating(part)}
    wide = {TORCH_DTYPES[name] if TORCH_DTYPES[name].itemsize >= _NARROW else torch.bfloat16 for name in found}
    dtype = reduce(torch.promote_types, wide)
    return torch.float32 if dtype == _WIDE else dtype


def _floating(part: Contribution) -> list[str]:
    layer = part.share.layer
    return [key for role, key in layer.keys.items() if role not in layer.kind.whole_numbers]


def _rows(part: Contribution, change: Tensor) -> Tensor:
    share = part.share
    rows = change[share.start : share.stop]
    return torch.cat(rows.chunk(2)[::-1]) if share.swapped else rows


def _read(part: Contribution, reader: TensorReader, dtype: torch.dtype) -> dict[str, Tensor]:
    layer = part.share.layer
    factors = dict(reader.layer(part.file, layer))
    for role, factor in factors.items():
        if factor.is_floating_point():
            factors[role] = factor.to(dtype)
            # A sum is quicker, and finite only where all values are.
            if not math.isfinite(factors[role].sum()) and not torch.isfinite(factor.double()).all():
                raise CorruptFileError(
                    f"{layer.keys[role]} of {part.adapter} holds NaN or infinity; `lorakit inspect --scan` says where"
                )
    return factors
