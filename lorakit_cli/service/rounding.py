"""How far rounding can have moved what was added to a base and subtracted again: measured on the values there are."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lorakit_cli.core.base_index import BaseTensor
from lorakit_cli.core.match import Target
from lorakit_cli.service.dtypes import TORCH_DTYPES
from lorakit_cli.service.tensors import TensorReader
from lorakit_cli.service.unfuse_report import ErrorBound


def error_bound(
    stored: Mapping[Target, BaseTensor],
    changed: Collection[Target],
    written: Mapping[Target, Path],
    *,
    rounded_whole: bool,
) -> ErrorBound:
    """Bound the error of each value, from the largest of each tensor: no value has a larger last place.

    `stored` is the fused pipeline, `written` says in which file the same tensor less its adapters is. `rounded_whole`:
    what no adapter changes was rounded when it was fused, too. Raises CorruptFileError.
    """
    bounds: list[ErrorBound] = []
    with TensorReader(torch.device("cpu")) as reader:
        for target in stored if rounded_whole else changed:
            tensor = stored[target]
            dtype = TORCH_DTYPES[tensor.info.dtype]
            if not dtype.is_floating_point:
                continue
            at_fusing = _half_place(_largest(reader.read(tensor.local_file, target.tensor)), dtype)
            largest = _largest(reader.read(written[target], target.tensor))
            now = _half_place(largest, dtype) if target in changed else 0.0
            total = at_fusing + now
            name = f"{target.component}.{target.tensor}" if target.component else target.tensor
            bounds.append(ErrorBound(total, total / largest if largest else 0.0, name, at_fusing, now))
    if not bounds:
        return ErrorBound(0.0, 0.0, "", 0.0, 0.0)
    worst = max(bounds, key=lambda bound: bound.relative)
    return ErrorBound(
        max(bound.absolute for bound in bounds),
        worst.relative,
        worst.tensor,
        max(bound.at_fusing for bound in bounds),
        max(bound.now for bound in bounds),
    )


def _largest(tensor: Tensor) -> float:
    if not tensor.numel():
        return 0.0
    lowest, highest = torch.aminmax(tensor if tensor.dtype.itemsize > 1 else tensor.float())
    return max(-float(lowest), float(highest))


def _half_place(value: float, dtype: torch.dtype) -> float:
    """Give the most that rounding to a dtype moves numbers up to this one, by way of fp32 in which sums are made."""
    half = _half_unit(value, torch.finfo(dtype))
    return half if dtype == torch.float32 else half + _half_unit(value, torch.finfo(torch.float32))


def _half_unit(value: float, form: torch.finfo) -> float:
    _, exponent = math.frexp(max(value, form.smallest_normal))
    return math.ldexp(form.eps, exponent - 2)
