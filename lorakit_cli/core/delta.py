"""The arithmetic: the sum of an adapter's terms for one tensor, in fp32 (fp64 to verify), rounded once."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lorakit_cli.core.lora_file import LoraLayer
from lorakit_cli.core.matching import Part
from lorakit_cli.core.plan import Term
from lorakit_cli.errors import LoraFileError

LoadFactors = Callable[[Term], Mapping[str, Tensor]]
LoadBase = Callable[[Part], Tensor]


def delta(
    terms: Sequence[Term],
    shape: Sequence[int],
    load: LoadFactors,
    load_base: LoadBase,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Sum `strength * delta(layer)` over the terms, in the base tensor's shape.

    `load` gives a term's factors by role, `load_base` the whole tensor that a part lies in, both on the device
    where the sum is wanted; they are widened to `dtype` before any product.
    """
    total: Tensor | None = None
    for term in terms:
        rows = _rows(term, load, load_base, dtype)
        into = term.part.into
        if total is None and into is None:
            total = rows.reshape(tuple(shape)).mul_(term.strength)
            continue
        if total is None:
            total = torch.zeros(tuple(shape), dtype=dtype, device=rows.device)
        place = total if into is None else total[into[0] : into[1]]
        place.add_(rows.reshape(place.shape), alpha=term.strength)
    if total is None:
        raise ValueError("a delta needs at least one term")
    return total


def _rows(term: Term, load: LoadFactors, load_base: LoadBase, dtype: torch.dtype) -> Tensor:
    """Compute what a term changes at strength 1, in rows as they lie in the file; a tensor of its own."""
    layer, part = term.layer, term.part
    base = None
    if layer.kind.needs_base:
        base = torch.cat([_own(load_base(other).to(dtype), other) for other in term.whole])
    change = layer_delta(layer, load(term), base, dtype)
    rows = term.whole[-1].stop
    if change.ndim and change.shape[0] != rows:
        raise LoraFileError(f"{term.file}: {layer.stem} changes {change.shape[0]} rows, the base has {rows}")
    if part.transposed:
        change = change.reshape(part.stop, -1).T
    elif len(term.whole) > 1 or part.swapped:
        change = change.reshape(term.whole[-1].stop, -1)[part.start : part.stop]
        if part.swapped:
            change = torch.cat(change.chunk(2)[::-1])
    return change


def layer_delta(layer: LoraLayer, factors: Mapping[str, Tensor], base: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Compute what a layer changes at strength 1, flattened or not: a tensor of its own.

    `base` is the value that it changes, for an algorithm that needs it. Raises LoraFileError where only the values
    show that the factors do not fit it.
    """
    # Flags and indices are no values to compute with.
    wide = {role: factor.to(dtype) if factor.is_floating_point() else factor for role, factor in factors.items()}
    try:
        return layer.kind.delta(wide, layer.scale, base, layer.settings)
    except ValueError as error:
        raise LoraFileError(f"{layer.stem}: {error}") from error


def _own(tensor: Tensor, part: Part) -> Tensor:
    """Cut a part out of its tensor, its rows in the layer's order."""
    rows = tensor if part.into is None else tensor[part.into[0] : part.into[1]]
    rows = rows.T if part.transposed else rows
    return torch.cat(rows.chunk(2)[::-1]) if part.swapped else rows


def add_delta(base: Tensor, change: Tensor, dtype: torch.dtype) -> Tensor:
    """Add a delta to a base tensor in the delta's precision and round once to `dtype`."""
    return (base.to(change.dtype) + change).to(dtype)
