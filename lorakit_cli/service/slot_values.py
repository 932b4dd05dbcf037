"""What adapters change in one module, computed whole in fp64."""

import math
from functools import reduce

import torch
from torch import Tensor

from lorakit_cli.core.delta import layer_delta
from lorakit_cli.core.merge_slots import Contribution, MergeSlot
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service.tensors import TensorReader

_WIDE = torch.float64


def whole(slot: MergeSlot, reader: TensorReader) -> Tensor:
    """Give the sum of all changes of a module as a matrix, or as it is for a vector. Raises CorruptFileError."""
    return reduce(torch.add, (change_of(slot, part, reader) * part.strength for part in slot.contributions))


def change_of(slot: MergeSlot, part: Contribution, reader: TensorReader, dtype: torch.dtype = _WIDE) -> Tensor:
    """Give what one layer changes of a module at strength 1, in the form that `whole` has, computed in a dtype."""
    layer = part.share.layer
    change = layer_delta(layer, read_part(part, reader, dtype), None, dtype).reshape(part.share.rows, -1)
    change = _rows(part, change)
    if change.shape[0] != part.share.total:
        filled = change.new_zeros(part.share.total, change.shape[1])
        filled[part.share.offset : part.share.offset + change.shape[0]] = change
        change = filled
    return change if slot.is_matrix else change.reshape(slot.shape)


def _rows(part: Contribution, change: Tensor) -> Tensor:
    share = part.share
    rows = change[share.start : share.stop]
    return torch.cat(rows.chunk(2)[::-1]) if share.swapped else rows


def read_part(part: Contribution, reader: TensorReader, dtype: torch.dtype) -> dict[str, Tensor]:
    """Read the factors of a layer in a dtype, flags and counts as they are. Raises CorruptFileError."""
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
