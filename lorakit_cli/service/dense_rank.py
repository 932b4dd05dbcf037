"""The closest matrix of a rank to one that is given whole, and how far it is from it (Eckart and Young, 1936).

The leading singular triplets are looked for in a Krylov space, which grows until what they miss is too small to
matter: the error is that of the optimum, to 1e-5 of it. Where the spectrum is too flat for that, they come from the
eigenvectors of the smaller Gram matrix in fp64, and where so much is kept that its squares have too few digits for the
rest, from the whole decomposition. All that is known of the rest is its norm.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.kinds.norms import frobenius
from lorakit_cli.service.krylov_space import KrylovSpace

# A guess for rules that name no number.
_LIKELY = 48
_NARROWEST, _OVERSAMPLED = 24, 8
# What the square of the error may still fall by, at most about the residual's square, as a share of it.
_STILL_TO_GAIN = 1e-5
# A space this large, as a share of the smaller side, costs more than all of the eigenvectors.
_LARGEST_SPACE = 3
# Squares in fp64 know no less of the rest than this share of the whole.
_SQUARED = 1e-8
# Values that are worked on at a time where all of them would be a copy of the matrix: 16 MB in fp64.
_AT_ONCE = 1 << 21
# What rounding leaves of any product, or of a value that is none, in units of the last place of the largest.
_ROUNDING = 32


class Triplets(NamedTuple):
    """Leading singular triplets: `left` `[rows, count]`, `values` `[count]`, `right` `[count, columns]`.

    `total` is the sum of the squares of all singular values, `exact` whether no iteration was involved.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    total: float
    exact: bool

    def balanced(self) -> tuple[Tensor, Tensor]:
        """Give `[rows, count]` and `[count, columns]` that multiply to what is kept.

        Each takes the roots of the values, so that neither leaves the range of a short dtype.
        """
        root = self.values.sqrt()
        return self.left * root, root[:, None] * self.right


def truncated_svd(matrix: Tensor, rule: RankRule) -> Triplets:
    """Give as many leading singular triplets of a finite matrix in fp32 or fp64 as a rule keeps, in its dtype.

    The same matrix gives the same bits on the same kind of processor.
    """
    total = float(frobenius(matrix)) ** 2
    if not total:
        rows, columns = matrix.shape
        return Triplets(matrix.new_empty(rows, 0), matrix.new_empty(0), matrix.new_empty(0, columns), 0.0, exact=True)
    return _projected(matrix, total, rule) or _exact(matrix, total, rule)


def left_out(matrix: Tensor, up: Tensor, down: Tensor) -> float:
    """Measure what two factors, whatever they were rounded to, leave out of a matrix: the norm of the difference."""
    up, down = up.to(matrix.dtype), down.to(matrix.dtype)
    count = _at_once(matrix)
    squares = (
        frobenius(torch.addmm(matrix[start : start + count], up[start : start + count], down, alpha=-1)).square()
        for start in range(0, matrix.shape[0], count)
    )
    return math.sqrt(float(sum(squares)))


def singular_values(matrix: Tensor) -> list[float]:
    """Give all singular values of a matrix, the largest first, exact to 1e-8 of it."""
    values: list[float] = torch.linalg.eigvalsh(_squares(matrix)).flip(0).clamp(min=0).sqrt().tolist()
    return values


def _projected(matrix: Tensor, total: float, rule: RankRule) -> Triplets | None:
    """Let a space grow until it holds what is to be kept; None where it would have to be too large."""
    floor = (_ROUNDING * torch.finfo(matrix.dtype).eps) ** 2 * total
    width = max(_NARROWEST, (rule.rank or _LIKELY) // 2 + _OVERSAMPLED)
    most = min(matrix.shape) // _LARGEST_SPACE
    if not rule.given or max(2 * width, rule.rank or 0) > most:
        return None
    space = KrylovSpace(matrix, width)
    while space.size + width <= most:
        space.grow()
        found = space.ritz()
        count = _enough(rule, found.values.tolist(), total)
        if count is None:
            continue
        lost = max(total - float(found.values[:count].square().sum()), 0.0)
        # One more, which a rule may have left out for being found too small.
        if space.residual(found, count + 1) <= _STILL_TO_GAIN * lost + floor:
            count = min(count, _above_rounding(found.values, matrix.dtype))
            left, right = space.vectors(found, count)
            return Triplets(left, found.values[:count].to(matrix.dtype), right, total, exact=False)
    return None


def _above_rounding(values: Tensor, dtype: torch.dtype) -> int:
    """Count the values that are more than what rounding leaves of none."""
    return int((values > _ROUNDING * torch.finfo(dtype).eps * values[0]).sum())


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


def _squares(matrix: Tensor) -> Tensor:
    """Give the smaller Gram matrix in fp64, with no more than some rows of the matrix widened at a time."""
    tall = _tall(matrix)
    total = tall.new_zeros(tall.shape[1], tall.shape[1], dtype=torch.float64)
    for rows in _some_rows(tall):
        total.addmm_(rows.T, rows)
    return total


def _tall(matrix: Tensor) -> Tensor:
    return matrix.T if matrix.shape[0] < matrix.shape[1] else matrix


def _at_once(matrix: Tensor) -> int:
    return max(_AT_ONCE // max(matrix.shape[1], 1), 1)


def _some_rows(matrix: Tensor) -> Iterator[Tensor]:
    """Give all rows in fp64, some at a time."""
    count = _at_once(matrix)
    return (matrix[start : start + count].double() for start in range(0, matrix.shape[0], count))


def _exact(matrix: Tensor, total: float, rule: RankRule) -> Triplets:
    if rule.given:
        squares, vectors = torch.linalg.eigh(_squares(matrix))
        values = squares.flip(0).clamp(min=0).sqrt()
        count = rule.count(values.tolist())
        if count and float(values[count:].square().sum()) > _SQUARED * total:
            first = vectors.flip(1)[:, :count]
            other = torch.cat([rows @ first for rows in _some_rows(_tall(matrix))]) / values[:count]
            left, right = (first, other.T) if matrix.shape[0] < matrix.shape[1] else (other, first.T)
            return _rounded(left, values[:count], right, total, matrix.dtype)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    count = min(rule.count(values.tolist()), _above_rounding(values, matrix.dtype))
    return _rounded(left[:, :count], values[:count], right[:count], total, matrix.dtype)


def _rounded(left: Tensor, values: Tensor, right: Tensor, total: float, dtype: torch.dtype) -> Triplets:
    return Triplets(left.to(dtype).contiguous(), values.to(dtype), right.to(dtype).contiguous(), total, exact=True)
