"""Two factors rounded to the dtype that they are stored in, and how far their product is from what it was to be."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.errors import UnsupportedError
from lorakit_cli.kinds.norms import product_norm
from lorakit_cli.service.slot_values import inner_size, stacked, whole
from lorakit_cli.service.tensors import TensorReader

# Squares below lose digits in fp32, and sums that come to less than this of their terms do.
_LEAST, _CANCELLED = 1e-25, 1e-2


class StoredFactors(NamedTuple):
    """The new layer of a module, its factors as bytes of a dtype.

    `norm` is the Frobenius norm of what was brought to this rank, `tail` that of what the rank leaves out of it.
    `error` is that of the difference between what is stored and the exact sum of the adapters, whose norm is `whole`.
    """

    slot: MergeSlot
    rank: int
    dtype: torch.dtype
    up: bytes
    down: bytes
    norm: float
    tail: float
    error: float
    whole: float


def store(
    slot: MergeSlot,
    up: Tensor,
    down: Tensor,
    dtype: torch.dtype,
    norm: float,
    tail: float,
    down_squares: Tensor | None = None,
) -> StoredFactors:
    """Round the factors `[rows, rank]` and `[rank, columns]` of a module.

    `tail` is how far their product is from the exact sum before; rounding is taken to have nothing to do with that,
    which is true to second order where the factors are singular vectors. `down_squares` is `down @ down^T` in fp32,
    where it is known. Raises UnsupportedError for values that the dtype cannot hold.
    """
    stored_up, stored_down = up.to(dtype), down.to(dtype)
    rounded_up, rounded_down = stored_up.to(up.dtype), stored_down.to(up.dtype)
    # What was stored in this dtype before and is not scaled is the same still.
    if torch.equal(rounded_down, down):
        moved = 0.0 if torch.equal(rounded_up, up) else quick_norm(rounded_up - up, down, down_squares).norm
    else:
        moves = torch.cat([rounded_up - up, up], 1), torch.cat([rounded_down, rounded_down - down])
        moved = quick_norm(*moves).norm
    if not math.isfinite(moved):
        name = str(dtype).removeprefix("torch.")
        raise UnsupportedError(
            f"{slot.place.stem} has values that {name} cannot hold; choose another --dtype: bf16 or fp32"
        )
    error = (tail**2 + moved**2) ** 0.5
    return StoredFactors(slot, up.shape[1], dtype, to_bytes(stored_up), to_bytes(stored_down), norm, tail, error, norm)


def compared(result: StoredFactors, up: Tensor, down: Tensor, reader: TensorReader) -> StoredFactors:
    """Hold factors that stand for something else than the exact sum, before they were rounded, against that sum."""
    slot = result.slot
    rounded = max(result.error**2 - result.tail**2, 0.0)
    inner = inner_size(slot)
    if inner is None:
        exact = whole(slot, reader)
        norm, apart = float(exact.norm()), float((up @ down - exact).norm())
    else:
        left = up.new_zeros(slot.matrix[0], inner)
        right = up.new_empty(inner, slot.matrix[1])
        stacked(slot, reader, left, right)
        norm = float(product_norm(left, right))
        apart = float(product_norm(torch.cat([up, -left], 1), torch.cat([down, right])))
    return result._replace(error=(apart**2 + rounded) ** 0.5, whole=norm)


class ProductNorm(NamedTuple):
    """The norm of a product of factors, what it would be if no term cancelled another, and the second one's squares."""

    norm: float
    bound: float
    down_squares: Tensor


def quick_norm(up: Tensor, down: Tensor, down_squares: Tensor | None = None) -> ProductNorm:
    """Give the norm of a product to six digits, from `down @ down^T` in fp32 where that is known.

    Its squares are in fp32 where they are neither lost nor cancel.
    """
    left = up.float()
    lefts = left.mT @ left
    if down_squares is None:
        right = down.float()
        down_squares = right @ right.mT
    squared, bound = float((lefts * down_squares).sum()), float(lefts.diagonal() @ down_squares.diagonal())
    if _LEAST < squared < math.inf and squared > _CANCELLED * bound:
        return ProductNorm(math.sqrt(squared), math.sqrt(bound), down_squares)
    norm = float(product_norm(up, down))
    alone = float((up.double().norm(dim=0) * down.double().norm(dim=1)).norm())
    return ProductNorm(norm, alone, down_squares)


def to_bytes(tensor: Tensor) -> bytes:
    """Give the values of a tensor as a file holds them."""
    return tensor.cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
