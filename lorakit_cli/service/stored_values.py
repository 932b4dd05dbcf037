"""Values in the dtypes that files keep them in, as numpy's arrays: widened to compute with, rounded to be stored.

numpy has no bf16. It is the upper half of fp32, whose bits are moved here; what is stored is an array of whole numbers.
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_NATIVE = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_BRAIN, _HALF_OF_IT = "BF16", 16
DTYPES = frozenset({*_NATIVE, _BRAIN})


def widened(data: NDArray[np.uint8], dtype: str, wide: DTypeLike) -> NDArray[Any]:
    """Give the values of the bytes of a tensor, flat. `dtype` is one of DTYPES."""
    if dtype != _BRAIN:
        return data.view(_NATIVE[dtype]).astype(wide)
    bits = data.view(np.uint16).astype(np.uint32)
    bits <<= _HALF_OF_IT
    return bits.view(np.float32).astype(wide, copy=False)


def rounded(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Round finite values to a dtype of DTYPES, ties to even; what is too large for it becomes infinite."""
    if dtype != _BRAIN:
        with np.errstate(over="ignore"):
            return values.astype(_NATIVE[dtype])
    with np.errstate(over="ignore"):
        bits = values.astype(np.float32).view(np.uint32)
    # Just under half of the last place that stays, or half of it where that place is odd.
    return ((bits + 0x7FFF + (bits >> _HALF_OF_IT & 1)) >> _HALF_OF_IT).astype(np.uint16)


def as_bytes(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Give what `rounded` gave as the bytes of a file."""
    return np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
