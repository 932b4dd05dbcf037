"""Two factors rounded to the dtype that they are stored in, and how far their product is from what it was to be."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorakit_cli.core.merge_slots import MergeSlot
from lorakit_cli.core.tensor_info import SHORT_NAMES
from lorakit_cli.errors import UnsupportedError
from lorakit_cli.kinds.norms import frobenius
from lorakit_cli.service.factor_reader import FactorReader
from lorakit_cli.service.slot_factors import inner_size, stacked
from lorakit_cli.service.stored_values import as_bytes, rounded, widened

# Squares below lose digits in fp32, and sums that come to less than this of their terms do.
_LEAST, _CANCELLED = 1e-25, 1e-2


class StoredFactors(NamedTuple):
    """The new layer of a module, its factors as bytes of a dtype, spelled as safetensors does.

    `norm` is the Frobenius norm of what was brought to this rank, `tail` that of what the rank leaves out of it.
    `error` is that of the difference between what is stored and the exact sum of the adapters, whose norm is `whole`.
    """

    slot: MergeSlot
    rank: int
    dtype: str
    up: bytes
    down: bytes
    norm: float
    tail: float
    error: float
    whole: float


def store(
    slot: MergeSlot,
    up: NDArray[Any],
    down: NDArray[Any],
    dtype: str,
    norm: float,
    tail: float,
    down_squares: NDArray[Any] | None = None,
) -> StoredFactors:
    """Round the factors `[rows, rank]` and `[rank, columns]` of a module.

    `tail` is how far their product is from the exact sum before; rounding is taken to have nothing to do with that,
    which is true to second order where the factors are singular vectors. `down_squares` is `down @ down^T` in fp32,
    where it is known. Raises UnsupportedError for values that the dtype cannot hold.
    """
    (up_bytes, up_moves), (down_bytes, down_moves) = (_rounded(factor, dtype) for factor in (up, down))
    # What was stored in this dtype before and is not scaled is the same still.
    if not down_moves.any():
        moved = quick_norm(up_moves, down, down_squares).norm if up_moves.any() else 0.0
    else:
        moved = quick_norm(np.concatenate([up_moves, up], 1), np.concatenate([down + down_moves, down_moves])).norm
    if not math.isfinite(moved):
        raise not_held(slot, dtype)
    error = math.hypot(tail, moved)
    return StoredFactors(slot, up.shape[1], dtype, up_bytes, down_bytes, norm, tail, error, norm)


def not_held(slot: MergeSlot, dtype: str) -> UnsupportedError:
    """Say that a dtype cannot hold a module's values, and what can."""
    name = next(short for short, each in SHORT_NAMES.items() if each == dtype)
    wider = {"fp16": "--dtype bf16 or fp32, or ", "bf16": "--dtype fp32, or ", "fp32": ""}[name]
    return UnsupportedError(f"{slot.place.stem} has values that {name} cannot hold; choose {wider}smaller weights")


def _rounded(values: NDArray[Any], dtype: str) -> tuple[bytes, NDArray[Any]]:
    """Give the bytes of what is stored, and by how much that differs from the values."""
    data = as_bytes(rounded(values, dtype))
    return data.tobytes(), widened(data, dtype, values.dtype).reshape(values.shape) - values


def compared(result: StoredFactors, up: NDArray[Any], down: NDArray[Any], reader: FactorReader) -> StoredFactors:
    """Hold factors that stand for something else than the exact sum, before they were rounded, against that sum."""
    slot = result.slot
    rest = max(result.error**2 - result.tail**2, 0.0)
    inner = inner_size(slot)
    if inner is None:
        import torch

        from lorakit_cli.service.dense_rank import left_out
        from lorakit_cli.service.slot_values import whole

        exact = whole(slot, reader.tensors)
        factors = (torch.from_numpy(factor).to(exact.device) for factor in (up, down))
        norm, apart = float(frobenius(exact)), left_out(exact, *factors)
    else:
        left, right = np.zeros((slot.matrix[0], inner)), np.empty((inner, slot.matrix[1]))
        stacked(slot, reader, left, right)
        norm = product_norm(left, right)
        apart = product_norm(np.concatenate([up, -left], 1), np.concatenate([down, right]))
    return result._replace(error=(apart**2 + rest) ** 0.5, whole=norm)


class ProductNorm(NamedTuple):
    """The norm of a product of factors, what it would be if no term cancelled another, and the second one's squares."""

    norm: float
    bound: float
    down_squares: NDArray[Any]


def quick_norm(up: NDArray[Any], down: NDArray[Any], down_squares: NDArray[Any] | None = None) -> ProductNorm:
    """Give the norm of a product to five digits, from `down @ down^T` in fp32 where that is known.

    Squares are in fp32 where they are neither lost nor cancel.
    """
    left = up.astype(np.float32, copy=False)
    lefts = left.T @ left
    if down_squares is None:
        right = down.astype(np.float32, copy=False)
        down_squares = right @ right.T
    squared, bound = float((lefts * down_squares).sum()), float(lefts.diagonal() @ down_squares.diagonal())
    sizes = float(lefts.trace()), float(down_squares.trace())
    if min(*sizes, squared) > _LEAST and squared < math.inf and squared > _CANCELLED * bound:
        return ProductNorm(math.sqrt(squared), math.sqrt(bound), down_squares)
    lengths = np.linalg.norm(up.astype(np.float64), axis=0), np.linalg.norm(down.astype(np.float64), axis=1)
    return ProductNorm(product_norm(up, down), float(np.linalg.norm(lengths[0] * lengths[1])), down_squares)


def product_norm(up: NDArray[Any], down: NDArray[Any]) -> float:
    """Give the norm of a product of factors in fp64, from the squares of both: what `kinds/norms.py` says of torch's.

    They are brought to one size first, so that no square is lost.
    """
    sizes = [float(np.abs(factor).max(initial=0.0)) for factor in (up, down)]
    if not all(sizes):
        return 0.0
    up, down = up.astype(np.float64) / sizes[0], down.astype(np.float64) / sizes[1]
    squared = float(((up.T @ up) * (down @ down.T)).sum())
    return math.sqrt(max(squared, 0.0)) * sizes[0] * sizes[1]
