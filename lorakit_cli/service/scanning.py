"""Read every value of an adapter file once, and say what is broken, what is dead and what is absurd."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lorakit_cli.core.delta import layer_delta
from lorakit_cli.core.lora_file import LoraFile, LoraLayer
from lorakit_cli.core.shown import shown
from lorakit_cli.service.tensors import TensorReader

Progress = Callable[[int, int], None]

# The largest fp16 value: what most programs compute with, and most bases are stored in.
FP16_MAX = 65504.0
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class NonFinite:
    """A tensor that holds NaN or infinity: how many of each, and where the first is.

    `stem` is None for a tensor outside all layers.
    """

    text: str
    key: str
    stem: str | None
    nan: int
    inf: int
    first: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ZeroLayer:
    """A layer that changes nothing: its delta is exactly zero. `zero_keys` are its tensors of nothing but zeros."""

    text: str
    stem: str
    algorithm: str
    parameter: str
    zero_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A stored value, or with `key` None a value of the delta at strength 1, that fp16 cannot hold.

    `largest` is its magnitude, None where fp64 cannot hold it either.
    """

    text: str
    stem: str
    key: str | None
    largest: float | None


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan found in the values of an adapter file.

    `unjudged` counts the layers whose delta follows from the base's values alone, so that only their factors were
    looked at.
    """

    tensors: int
    layers: int
    unjudged: int
    non_finite: tuple[NonFinite, ...]
    zero: tuple[ZeroLayer, ...]
    too_large: tuple[TooLarge, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Every finding in words, the worst first."""
        findings: tuple[NonFinite | TooLarge | ZeroLayer, ...] = (*self.non_finite, *self.too_large, *self.zero)
        return tuple(found.text for found in findings)


@torch.no_grad()
def scan(file: LoraFile, progress: Progress | None = None) -> ScanReport:
    """Read an adapter file value by value, one layer at a time. Raises CorruptFileError where it has changed.

    `progress` is called with tensors read and tensors in all.
    """
    loose = [key for keys in file.embeddings.values() for key in keys] + list(file.unknown_keys)
    total = sum(len(layer.keys) for layer in file.layers) + len(loose)
    done = unjudged = 0
    non_finite: list[NonFinite] = []
    zero: list[ZeroLayer] = []
    too_large: list[TooLarge] = []
    with TensorReader(_CPU) as reader:
        for layer in file.layers:
            factors = reader.layer(file.data, layer)
            ranges = {role: _range(factor) for role, factor in factors.items()}
            broken = list(_broken(layer, factors, ranges))
            non_finite += broken
            too_large += _large_factors(layer, factors, ranges)
            unjudged += layer.kind.needs_base
            if not broken and not layer.kind.needs_base:
                largest = _largest(layer, factors, ranges)
                zero += [_zero_layer(layer, ranges)] if largest == 0 else []
                too_large += [_large_delta(layer, largest)] if not largest <= FP16_MAX else []
            done += len(factors)
            if progress:
                progress(done, total)
        for key in loose:
            tensor = reader.read(file.data, key)
            if not _is_finite(_range(tensor)):
                non_finite.append(_non_finite(key, None, tensor))
            done += 1
            if progress:
                progress(done, total)
    return ScanReport(total, len(file.layers), unjudged, tuple(non_finite), tuple(zero), tuple(too_large))


def _range(tensor: Tensor) -> tuple[float, float]:
    """Give a tensor's least and largest value, NaN where it holds one; zeros for one without values."""
    if not tensor.numel() or tensor.is_complex():
        return 0.0, 0.0
    low, high = torch.aminmax(_comparable(tensor))
    return float(low), float(high)


def _comparable(tensor: Tensor) -> Tensor:
    """Widen what torch cannot compare, 8-bit floats, and leave the rest as it is: a copy takes ten times as long."""
    return tensor if tensor.is_floating_point() and tensor.itemsize > 1 else tensor.float()


def _is_finite(limits: tuple[float, float]) -> bool:
    return all(map(math.isfinite, limits))


def _broken(
    layer: LoraLayer, factors: Mapping[str, Tensor], ranges: Mapping[str, tuple[float, float]]
) -> Iterator[NonFinite]:
    for role, limits in ranges.items():
        if not _is_finite(limits):
            yield _non_finite(layer.keys[role], layer.stem, factors[role])


def _non_finite(key: str, stem: str | None, tensor: Tensor) -> NonFinite:
    wide = _comparable(tensor)
    nan, inf = int(wide.isnan().sum()), int(wide.isinf().sum())
    first = tuple(torch.nonzero(~wide.isfinite())[0].tolist())
    counts = " and ".join(f"{count} {what}" for count, what in ((nan, "NaN"), (inf, "infinite")) if count)
    where = f", the first at {list(first)}" if first else ""
    return NonFinite(f"{shown(key)} holds {counts} of {tensor.numel()} values{where}", key, stem, nan, inf, first)


def _large_factors(
    layer: LoraLayer, factors: Mapping[str, Tensor], ranges: Mapping[str, tuple[float, float]]
) -> Iterator[TooLarge]:
    for role, limits in ranges.items():
        largest = max(map(abs, limits))
        if factors[role].is_floating_point() and _is_finite(limits) and largest > FP16_MAX:
            key = layer.keys[role]
            text = f"{shown(key)} holds {largest:.3g}, more than fp16 can hold ({FP16_MAX:.0f})"
            yield TooLarge(text, layer.stem, key, largest)


def _large_delta(layer: LoraLayer, largest: float) -> TooLarge:
    known = largest if math.isfinite(largest) else None
    size = "more than any number can hold" if known is None else f"up to {known:.3g}"
    text = f"{shown(layer.stem)} changes its {layer.kind.parameter} by {size} at strength 1, more than fp16 can hold"
    return TooLarge(text, layer.stem, None, known)


def _zero_layer(layer: LoraLayer, ranges: Mapping[str, tuple[float, float]]) -> ZeroLayer:
    empty = tuple(layer.keys[role] for role, limits in ranges.items() if limits == (0.0, 0.0))
    if not layer.scale:
        reason = "its scale is 0"
    elif empty:
        reason = " and ".join(map(shown, empty)) + (" is" if len(empty) == 1 else " are") + " all zero"
    else:
        reason = "its factors cancel"
    text = f"{shown(layer.stem)} changes nothing: {reason}"
    return ZeroLayer(text, layer.stem, layer.kind.name, layer.kind.parameter, empty)


def _largest(layer: LoraLayer, factors: Mapping[str, Tensor], ranges: Mapping[str, tuple[float, float]]) -> float:
    """Give the magnitude of a delta's largest value, or a bound of it that fp16 holds, 0 only where all are zero."""
    if layer.kind.norm:
        # No value is larger than the norm, which costs next to nothing.
        bound = float(layer.kind.norm(factors, layer.scale))
        if 0 < bound <= FP16_MAX:
            return bound
        # Without a factor of zeros, a norm of 0 may be what rounding left.
        if bound == 0 and (not layer.scale or (0.0, 0.0) in ranges.values()):
            return 0.0
    return max(map(abs, _range(layer_delta(layer, factors, None, torch.float64))))
