"""How much an adapter changes, layer by layer and block by block: norms at strength 1, beside those of the base."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.block_names import block_of, block_of_flat, block_order
from lorakit_cli.core.delta import layer_delta
from lorakit_cli.core.lora_file import LoraFile, LoraLayer
from lorakit_cli.core.match import Match
from lorakit_cli.core.shown import shown
from lorakit_cli.kinds.norms import frobenius
from lorakit_cli.service.tensors import TensorReader

Progress = Callable[[int, int], None]
_Key = tuple[str, str]

_CPU = torch.device("cpu")
_NO_BASE = "its change follows from the base's values and needs --base"
_NO_PLACE = "its change follows from the base's values, and it fits nothing in the base"
_NOT_FINITE = "the adapter holds NaN, infinity or values too large to square"
_BASE_NOT_FINITE = "the base holds NaN or infinity there"
_BASE_ZERO = "the base is all zero there, so that there is no ratio"


@dataclass(frozen=True, slots=True)
class LayerStrength:
    """How much one layer changes: `norm` is that of its delta at strength 1, `relative` its ratio to the base's.

    `base_norm` and `relative` are None without a base or a place in it, `norm` where it cannot be told; `reason`
    says why.
    """

    stem: str
    component: str
    block: str
    algorithm: str
    parameter: str
    norm: float | None
    base_norm: float | None
    relative: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class BlockStrength:
    """How much the layers of one block change together: roots of summed squares.

    `unknown` of its `layers` have no norm and are left out. `relative` sets the layers that have a place in the
    base beside what they change there, `base_norm`.
    """

    component: str
    block: str
    layers: int
    unknown: int
    norm: float | None
    base_norm: float | None
    relative: float | None


@dataclass(frozen=True, slots=True)
class StrengthReport:
    """The strengths of an adapter file, its blocks in the order a model runs through them.

    `base` is the path of what they are relative to, None without.
    """

    adapter: str
    layers: tuple[LayerStrength, ...]
    blocks: tuple[BlockStrength, ...]
    problems: tuple[str, ...]
    base: str | None = None


@dataclass(frozen=True, slots=True)
class _Measured:
    """A layer with what is still on its way: its norm, and by name the parameters of the base that it changes."""

    layer: LoraLayer
    component: str
    block: str
    norm: Tensor | None
    parts: tuple[_Key, ...]
    reason: str | None


@torch.no_grad()
def measure(
    file: LoraFile,
    *,
    base: BaseIndex | None = None,
    matches: Sequence[Match] = (),
    modules: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> StrengthReport:
    """Measure every layer of an adapter file, one at a time; with a base and `match_layers` of it, relative to it.

    `modules` names, by stem, modules known without a base, so that flattened stems find their block. `progress` is
    called with layers measured and layers in all. Raises CorruptFileError where a file has changed.
    """
    places = {(match.layer.stem, match.layer.kind.name): match for match in matches}
    parts: dict[_Key, Tensor] = {}
    measured: list[_Measured] = []
    with TensorReader(_CPU) as reader:
        for count, layer in enumerate(file.layers, 1):
            match = places.get((layer.stem, layer.kind.name)) if base else None
            measured.append(_measure(reader, file, layer, base, match, modules or {}, parts))
            if progress:
                progress(count, len(file.layers))
    return _report(file.path.stem, measured, parts, str(base.path) if base else None)


def _measure(
    reader: TensorReader,
    file: LoraFile,
    layer: LoraLayer,
    base: BaseIndex | None,
    match: Match | None,
    modules: Mapping[str, str],
    parts: dict[_Key, Tensor],
) -> _Measured:
    """Measure one layer and, once, each parameter that it changes."""
    keys: list[_Key] = []
    rows: list[Tensor] = []
    if base and match:
        for part in match.parts:
            key = (part.target.component, part.parameter)
            keys.append(key)
            if key in parts and not layer.kind.needs_base:
                continue
            rows.append(reader.part(base, part))
            parts[key] = frobenius(rows[-1])
    component, block = _place(layer, match, modules)
    norm, reason = None, None
    if layer.kind.needs_base and not match:
        reason = _NO_PLACE if base else _NO_BASE
    elif layer.kind.norm:
        norm = layer.kind.norm(reader.layer(file.data, layer), layer.scale)
    else:
        norm = _dense_norm(layer, reader.layer(file.data, layer), rows)
    return _Measured(layer, component, block, norm, tuple(keys), reason)


def _dense_norm(layer: LoraLayer, factors: Mapping[str, Tensor], rows: Sequence[Tensor]) -> Tensor:
    """Build a delta in fp64 and measure it: a small change of large values does not survive fp32's rounding."""
    whole = torch.cat([part.double() for part in rows]) if layer.kind.needs_base else None
    return frobenius(layer_delta(layer, factors, whole, torch.float64))


def _place(layer: LoraLayer, match: Match | None, modules: Mapping[str, str]) -> tuple[str, str]:
    """Name the component and block of a layer, from its module or, if need be, from its stem."""
    if match:
        component = match.component
        return component, block_of(component, match.name.parts[0])
    body = layer.format.body(layer.stem)
    module = modules.get(layer.stem) or (body if "." in body else None)
    return layer.component, block_of(layer.component, module) if module else block_of_flat(body)


def _report(
    adapter: str, measured: Sequence[_Measured], parts: Mapping[_Key, Tensor], base: str | None
) -> StrengthReport:
    # One look for all numbers, not one for each.
    waiting = [*(one.norm for one in measured if one.norm is not None), *parts.values()]
    numbers = iter(torch.stack(waiting).tolist() if waiting else [])
    norms = [None if one.norm is None else next(numbers) for one in measured]
    bases: dict[_Key, float] = dict(zip(parts, numbers, strict=True))
    layers = [_layer(one, norm, bases) for one, norm in zip(measured, norms, strict=True)]
    blocks: dict[tuple[str, str], list[tuple[LayerStrength, _Measured]]] = {}
    for layer, one in zip(layers, measured, strict=True):
        blocks.setdefault((layer.component, layer.block), []).append((layer, one))
    ordered = sorted(blocks, key=lambda key: block_order(*key))
    strengths = tuple(_block(*key, blocks[key], bases) for key in ordered)
    return StrengthReport(adapter, tuple(layers), strengths, tuple(_problems(layers)), base)


def _layer(one: _Measured, norm: float | None, bases: Mapping[_Key, float]) -> LayerStrength:
    reason = one.reason
    if norm is not None and not math.isfinite(norm):
        norm, reason = None, _NOT_FINITE
    base_norm = _root(bases[key] for key in one.parts) if one.parts else None
    if one.parts and base_norm is None:
        reason = reason or _BASE_NOT_FINITE
    elif base_norm == 0:
        reason = reason or _BASE_ZERO
    kind = one.layer.kind
    return LayerStrength(
        one.layer.stem, one.component, one.block, kind.name, kind.parameter, norm, base_norm,
        _ratio(norm, base_norm), reason,
    )  # fmt: skip


def _block(
    component: str, block: str, layers: Sequence[tuple[LayerStrength, _Measured]], bases: Mapping[_Key, float]
) -> BlockStrength:
    known = [layer.norm for layer, _ in layers if layer.norm is not None]
    placed = [(layer.norm, one) for layer, one in layers if layer.norm is not None and layer.base_norm is not None]
    # Two layers may change one parameter, which counts once.
    keys = dict.fromkeys(key for _, one in placed for key in one.parts)
    base_norm = _root(bases[key] for key in keys) if keys else None
    relative = _ratio(_root(norm for norm, _ in placed), base_norm)
    norm = _root(known) if known else None
    return BlockStrength(component, block, len(layers), len(layers) - len(known), norm, base_norm, relative)


def _root(norms: Iterable[float]) -> float | None:
    """Give the root of summed squares, None where it is not finite."""
    root = math.hypot(*norms)
    return root if math.isfinite(root) else None


def _ratio(norm: float | None, base_norm: float | None) -> float | None:
    ratio = norm / base_norm if norm is not None and base_norm else math.inf
    return ratio if math.isfinite(ratio) else None


def _problems(layers: Sequence[LayerStrength]) -> Iterable[str]:
    """Say each reason once, with how many layers it holds for and the first of them."""
    stems: dict[str, list[str]] = {}
    for layer in layers:
        if layer.reason:
            stems.setdefault(layer.reason, []).append(layer.stem)
    for reason, found in stems.items():
        others = f" and {len(found) - 1} more" if len(found) > 1 else ""
        yield f"{shown(found[0])}{others}: {reason}"
