"""Distances between floating numbers in units in the last place."""

import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def ulps_between(one: Tensor, other: Tensor) -> Tensor:
    """Give how many numbers of their dtype lie between two tensors' values, 0 where they are the same bits.

    The bits of a float, taken as a whole number, count through all of one sign; minus zero stands beside zero.
    """
    integer = _INTEGERS[one.dtype.itemsize]
    first, second = (_ordered(value.contiguous().view(integer)) for value in (one, other))
    return (first - second).abs()


def _ordered(bits: Tensor) -> Tensor:
    wide = bits.to(torch.int64)
    lowest = torch.iinfo(bits.dtype).min
    return torch.where(wide < 0, lowest - 1 - wide, wide)


def ulp(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Give the distance of fp64 values to the next number of a dtype, at their size."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(values.abs().clamp_min(info.tiny)).exponent.double()
    return torch.exp2(exponent - 1) * info.eps
