"""Values in the dtypes that files keep them in, as numpy's arrays: widened to compute with, rounded to be stored.

numpy has neither bf16 nor 8 bits. bf16 is the upper half of fp32, whose bits are moved here; what is stored is an array
of whole numbers. Of 8 bits there are 256 values, which are looked up (Micikevicius et al., 2022, arXiv:2209.05433; the
forms without a negative zero: Noune et al., 2022, arXiv:2206.02915).
"""

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

_NATIVE = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_BRAIN, _HALF_OF_IT = "BF16", 16


class _Small(NamedTuple):
    """A dtype of 8 bits: those of its fraction, what its exponent is off by, and how it writes what is not finite."""

    fraction: int
    bias: int
    infinite: bool = False
    one_zero: bool = False


_SMALL = {
    "F8_E4M3": _Small(3, 7),
    "F8_E5M2": _Small(2, 15, infinite=True),
    "F8_E4M3FNUZ": _Small(3, 8, one_zero=True),
    "F8_E5M2FNUZ": _Small(2, 16, one_zero=True),
}
DTYPES = frozenset({*_NATIVE, _BRAIN, *_SMALL})


def widened(data: NDArray[np.uint8], dtype: str, wide: DTypeLike) -> NDArray[Any]:
    """Give the values of the bytes of a tensor, flat. `dtype` is one of DTYPES."""
    if dtype in _SMALL:
        return _every_value(dtype).astype(wide)[data]
    if dtype != _BRAIN:
        return data.view(_NATIVE[dtype]).astype(wide)
    bits = data.view(np.uint16).astype(np.uint32)
    bits <<= _HALF_OF_IT
    return bits.view(np.float32).astype(wide, copy=False)


def rounded(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Round finite values to a dtype of 16 or more bits, ties to even; what is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        if dtype != _BRAIN:
            return values.astype(_NATIVE[dtype], copy=False)
        near = np.ascontiguousarray(values, np.float32)
    bits = near.view(np.uint32)
    if values.dtype == np.float64:
        # What fp32 has made a tie is none: it goes where the value lies.
        ties = np.flatnonzero(bits.reshape(-1) & 0xFFFF == 0x8000)
        beyond = np.abs(values.reshape(-1)[ties]) - np.abs(near.reshape(-1)[ties])
        bits.reshape(-1)[ties] += np.sign(beyond).astype(np.int32).view(np.uint32)
    # Just under half of the last place that stays, or half of it where that place is odd.
    return ((bits + 0x7FFF + (bits >> _HALF_OF_IT & 1)) >> _HALF_OF_IT).astype(np.uint16)


def as_bytes(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Give what `rounded` gave as the bytes of a file."""
    return np.ascontiguousarray(stored).reshape(-1).view(np.uint8)


@cache
def _every_value(dtype: str) -> NDArray[np.float32]:
    """List the values of a dtype of 8 bits, by their bits."""
    fraction, bias, infinite, one_zero = _SMALL[dtype]
    highest, last = (0x7F >> fraction), (1 << fraction) - 1
    values = []
    for code in range(0x80):
        exponent, rest = code >> fraction, code & last
        if infinite and exponent == highest:
            values.append(math.nan if rest else math.inf)
        elif not one_zero and (exponent, rest) == (highest, last):
            values.append(math.nan)
        else:
            values.append(math.ldexp(rest + (last + 1 if exponent else 0), max(exponent, 1) - bias - fraction))
    negative = [-value for value in values]
    if one_zero:
        negative[0] = math.nan
    return np.array(values + negative, np.float32)
