"""The first singular triplets of a matrix: by a randomized block, refined until the residual of what is kept is small.

Halko, Martinsson and Tropp, 2011, arXiv:0909.4061, with power iterations (their algorithm 4.4). Where the spectrum is
too flat for that, from the eigenvectors of the smaller Gram matrix in fp64, which is exact to 1e-8 of the largest
singular value.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lorakit_cli.core.rank_rule import RankRule

# A guess for rules that name no number.
_LIKELY = 48
_OVERSAMPLED = 16
_MOST_ITERATIONS = 10
# What the square of the truncation error may still fall by, at most about the residual's square, as a share of it.
_STILL_TO_GAIN = 1e-4
_ROUNDING = 1e-6
# A block this large, as a share of the smaller side, costs more than all of the eigenvectors.
_LARGEST_BLOCK = 4


class Triplets(NamedTuple):
    """Leading singular triplets: `left` `[rows, count]`, `values` `[count]`, `right` `[count, columns]`.

    `total` is the sum of the squares of all singular values, `exact` whether no iteration was involved.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    total: float
    exact: bool


def truncated_svd(matrix: Tensor, rule: RankRule) -> Triplets:
    """Give as many leading singular triplets of an fp32 matrix as a rule keeps.

    The same matrix gives the same bits on the same kind of processor.
    """
    smaller = min(matrix.shape)
    total = float(matrix.double().square().sum()) if matrix.numel() else 0.0
    size = min(rule.rank or _LIKELY, smaller)
    while total and (size + _OVERSAMPLED) * _LARGEST_BLOCK <= smaller:
        found = _iterated(matrix, size, total, rule)
        if found is None:
            break
        if isinstance(found, Triplets):
            return found
        size *= 2
    return _exact(matrix, total, rule)


class _TooFew(NamedTuple):
    """The block was too small for what is to be kept."""


def _iterated(matrix: Tensor, size: int, total: float, rule: RankRule) -> Triplets | _TooFew | None:
    """Refine a random block until its residual is small; None where that takes too long."""
    generator = torch.Generator("cpu").manual_seed(0)
    start = torch.randn(matrix.shape[1], size + _OVERSAMPLED, generator=generator, dtype=matrix.dtype)
    image = matrix @ torch.linalg.qr(start.to(matrix.device))[0]
    for step in range(_MOST_ITERATIONS):
        basis = torch.linalg.qr(image)[0]
        # M^T Q = P R, so that with R = X S Y^T the triplets of Q Q^T M are Q Y, S and (P X)^T.
        other, triangle = torch.linalg.qr(matrix.T @ basis)
        turned, values, turned_back = torch.linalg.svd(triangle)
        block = other @ turned
        # The first look is close enough to see that the block is much too small.
        count = _enough(rule, (values[:size] if step else values[:size] * 1.5).tolist(), total)
        if count is None:
            return _TooFew()
        image = matrix @ block
        if not step:
            continue
        left = basis @ turned_back.T[:, :count]
        residual = float((image[:, :count] - left * values[:count]).double().square().sum())
        lost = max(total - float(values[:count].double().square().sum()), 0.0)
        # Rounding leaves something of any product, which is not to be gained.
        if residual <= _STILL_TO_GAIN * lost + 1e-11 * total:
            count = min(count, _above_rounding(values))
            left = left[:, :count]
            return Triplets(left, values[:count], block.T[:count], total, exact=False)
    return None


def _above_rounding(values: Tensor) -> int:
    """Count the values that are more than what rounding of fp32 values leaves of none."""
    return int((values > _ROUNDING * values[0]).sum())


def _enough(rule: RankRule, values: Sequence[float], total: float) -> int | None:
    """Say how many of the leading values a rule keeps, None where it may keep more than these.

    `total` is the sum of all squares, those of values that are not here included.
    """
    if rule.rank is not None:
        return rule.rank if len(values) >= rule.rank else None
    if rule.ratio is not None:
        kept = rule.count(values)
        return kept if kept < len(values) else None
    share = 1 - rule.error**2 if rule.error is not None else rule.energy or 1.0
    held = 0.0
    for count, value in enumerate(values, 1):
        held += value * value
        if held >= share * total:
            return count
    return None


def singular_values(matrix: Tensor) -> list[float]:
    """Give all singular values of a matrix, the largest first, exact to 1e-8 of it."""
    wide = matrix.shape[0] < matrix.shape[1]
    tall = (matrix.T if wide else matrix).double()
    values: list[float] = torch.linalg.eigvalsh(tall.T @ tall).flip(0).clamp(min=0).sqrt().tolist()
    return values


def _exact(matrix: Tensor, total: float, rule: RankRule) -> Triplets:
    wide = matrix.shape[0] < matrix.shape[1]
    tall = (matrix.T if wide else matrix).double()
    squares, vectors = torch.linalg.eigh(tall.T @ tall)
    values = squares.flip(0).clamp(min=0).sqrt()
    count = rule.count(values.tolist())
    count = min(count, _above_rounding(values)) if len(values) else 0
    right = vectors.flip(1)[:, :count]
    left = (tall @ right) / values[:count]
    left, right, values = left.float(), right.T.float(), values[:count].float()
    if wide:
        left, right = right.T, left.T
    return Triplets(left.contiguous(), values, right.contiguous(), total, exact=True)
