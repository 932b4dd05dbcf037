"""The arithmetic: the sum of an adapter's terms for one tensor, in fp32 (fp64 to verify), rounded once."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lorakit_cli.core.plan import Term

LoadFactors = Callable[[Term], Mapping[str, Tensor]]


def delta(terms: Sequence[Term], shape: Sequence[int], load: LoadFactors, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sum `strength * scale * delta(factors)` over the terms, in the base tensor's shape.

    `load` gives a term's factors by role, on the device where the sum is wanted; they are widened to `dtype`
    before any product.
    """
    total: Tensor | None = None
    for term in terms:
        factors = {role: factor.to(dtype) for role, factor in load(term).items()}
        part = term.layer.kind.delta(factors).reshape(tuple(shape)).mul_(term.strength * term.layer.scale)
        total = part if total is None else total.add_(part)
    if total is None:
        raise ValueError("a delta needs at least one term")
    return total


def add_delta(base: Tensor, change: Tensor, dtype: torch.dtype) -> Tensor:
    """Add a delta to a base tensor in the delta's precision and round once to `dtype`."""
    return (base.to(change.dtype) + change).to(dtype)
