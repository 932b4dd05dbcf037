"""Apply a module's tensors as the program does: suffix to role, the first kind that is whole, its change."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lorakit_cli.core.kind import ALPHA, ANY, Kind
from lorakit_cli.kinds import KINDS

Tensors = Mapping[str, Tensor]


def by_role(tensors: Tensors) -> dict[str, Tensor]:
    roles = {suffix: role for kind in KINDS for suffix, role in kind.suffixes.items()}
    return {roles[suffix]: tensor.detach() for suffix, tensor in tensors.items() if suffix != ALPHA}


def shapes_of(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {role: tuple(tensor.shape) for role, tensor in by_role(tensors).items()}


def kinds_of(tensors: Tensors) -> list[Kind]:
    """Give the kinds of a module's tensors in the order in which they take them; none may be left over."""
    left, found = shapes_of(tensors), []
    while left:
        kind = next(known for known in KINDS if known.required <= left.keys() and known.when(left))
        found.append(kind)
        left = {role: shape for role, shape in left.items() if role not in kind.required | kind.optional}
    return found


def fits(delta_shape: Sequence[int], shape: Sequence[int]) -> bool:
    """Say whether a change is for a shape; a 1x1 convolution and a linear layer may stand for each other."""
    if len(delta_shape) > 2 and math.prod(delta_shape[2:]) == 1:
        delta_shape = delta_shape[:2]
    return any(
        len(delta_shape) == len(wanted)
        and all(size in (ANY, known) for size, known in zip(delta_shape, wanted, strict=True))
        for wanted in (tuple(shape), (shape[0], math.prod(shape[1:])))
    )


def change(
    tensors: Tensors,
    base: Tensor,
    *,
    dtype: torch.dtype = torch.float64,
    settings: Mapping[str, float] | None = None,
    kind: Kind | None = None,
) -> Tensor:
    """Give the change of a base tensor, in its shape, having checked the promises that every kind makes."""
    kind = kind or kinds_of(tensors)[0]
    factors = {role: tensor.to(dtype) for role, tensor in by_role(tensors).items()}
    factors_before = {role: factor.clone() for role, factor in factors.items()}
    weight = base.detach().to(dtype)
    weight_before = weight.clone()
    shapes = shapes_of(tensors)
    alpha = float(tensors[ALPHA]) if ALPHA in tensors else None
    scale = kind.scale(alpha, kind.rank(shapes), shapes)
    known = dict(settings or {}) | ({} if alpha is None else {ALPHA: alpha})
    result = kind.delta(factors, scale, weight if kind.needs_base else None, known)
    given = result.clone()
    assert given.dtype == dtype
    assert fits(kind.delta_shape(shapes), tuple(base.shape)), (kind.delta_shape(shapes), tuple(base.shape))
    # Whoever asked may write to the result.
    result.add_(1.0)
    assert all(torch.equal(factors[role], before) for role, before in factors_before.items())
    assert torch.equal(weight, weight_before)
    return given.reshape(base.shape)


def difference(found: Tensor, wanted: Tensor) -> float:
    """Give the largest difference, measured by the largest value wanted."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).abs().max() / wanted.abs().max())
