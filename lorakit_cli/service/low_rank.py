"""Sums of products of factors in the form of their singular values, without ever building the sum itself.

`sum_i up_i @ down_i` is one product of stacked factors, `left @ right`. With `left = Q R` and `right^T = P S` it is
`Q (R S^T) P^T`, so that the small core `R S^T` has its singular values, and its vectors are those of the core turned
by Q and P. That takes O((m + n) r^2), where the sum itself would take O(m n min(m, n)). All of it is done in fp64.

R and S are the Cholesky factors of `left^T left` and `right right^T`, columns brought to one length first, and Q is
`left R^-1`: nothing but products, several times as fast as Householder's QR. Squaring costs digits where columns are
close to dependent; how close is measured, and beyond a limit it is Householder's after all, which works on the values
themselves.

The arrays are numpy's, or torch's on a GPU: what is called here has one name and one meaning in both.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np

from lorakit_cli.core.kind import Array

# What rounding leaves of a value that is none, relative to the sizes of what was summed.
_NOTHING = 1e-14
# Up to this condition the squared columns keep eight digits of the smallest direction.
_CONDITION = 1e4


@dataclass(frozen=True, slots=True)
class Factored(Generic[Array]):
    """Products of one shape as `U diag(values) V^T`, the vectors not yet multiplied out.

    `values` is `[batch, q]`, the largest first; those not above `floor`, `[batch]`, are what rounding left of none.
    `balanced(place, rank)` gives `[m, rank]` and `[rank, n]` that multiply to the closest product of that rank to one
    of the batch; each has the roots of the singular values, so that neither holds extreme numbers.
    """

    values: Array
    floor: Array
    balanced: Callable[[int, int], tuple[Array, Array]]


def factor(left: Array, right: Array) -> Factored[Array]:
    """Find the singular values of products `[batch, m, r] @ [batch, r, n]`, given in fp64 and finite.

    Raises OverflowError where fp64 does not hold their squares: of what is infinite, LAPACK may look for ever.
    """
    of = _library(left)
    squares = left.mT @ left, right @ right.mT
    lengths = [of.sqrt(of.linalg.diagonal(square)) for square in squares]
    floor = _NOTHING * (lengths[0] * lengths[1]).sum(1)
    if not bool(of.isfinite(floor).all()):
        raise OverflowError("the factors are too large to be squared in fp64")
    if left.shape[2] > min(left.shape[1], right.shape[2]):
        return _by_reflections(left, right, floor, of)
    triangles = [_triangle(*each, of) for each in zip(squares, lengths, strict=True)]
    if triangles[0] is not None and triangles[1] is not None:
        return _by_squares(left, right, triangles[0], triangles[1], floor, of)
    middle = len(left) // 2
    if not middle:
        return _by_reflections(left, right, floor, of)
    # Only those that are close to dependent are to go the long way.
    halves = factor(left[:middle], right[:middle]), factor(left[middle:], right[middle:])

    def balanced(place: int, rank: int) -> tuple[Array, Array]:
        return halves[place >= middle].balanced(place - middle if place >= middle else place, rank)

    return Factored(of.concatenate([half.values for half in halves]), floor, balanced)


def _library(array: object) -> Any:
    torch = sys.modules.get("torch")
    return torch if torch and isinstance(array, torch.Tensor) else np


def _triangle(squares: Array, lengths: Array, of: Any) -> tuple[Array, Array] | None:
    """Give R with `R^T R` the matrices, and its inverse; None where that costs too many digits."""
    if bool((lengths == 0).any()):
        return None
    inverse = 1 / lengths
    try:
        lower = of.linalg.cholesky(squares * inverse[:, :, None] * inverse[:, None])
        turned = of.linalg.inv(lower)
    except of.linalg.LinAlgError:
        return None
    conditions = of.sqrt((lower * lower).sum((1, 2)) * (turned * turned).sum((1, 2)))
    # Not a number is not below the limit either.
    if not bool((conditions < _CONDITION * lower.shape[1]).all()):
        return None
    return lower.mT * lengths[:, None], inverse[:, :, None] * turned.mT


def _by_squares(
    left: Array, right: Array, lefts: tuple[Array, Array], rights: tuple[Array, Array], floor: Array, of: Any
) -> Factored[Array]:
    first, values, second = of.linalg.svd(lefts[0] @ rights[0].mT)
    root = of.sqrt(values)[:, None]
    # In place of Q, what turns the factors into it.
    onto_left, onto_right = lefts[1] @ (first * root), rights[1] @ (second.mT * root)

    def balanced(place: int, rank: int) -> tuple[Array, Array]:
        return left[place] @ onto_left[place, :, :rank], onto_right[place, :, :rank].mT @ right[place]

    return Factored(values, floor, balanced)


def _by_reflections(left: Array, right: Array, floor: Array, of: Any) -> Factored[Array]:
    (lefts, upper), (rights, lower) = of.linalg.qr(left), of.linalg.qr(right.mT)
    first, values, second = of.linalg.svd(upper @ lower.mT, full_matrices=False)
    root = of.sqrt(values)[:, None]
    ups, downs = first * root, second.mT * root

    def balanced(place: int, rank: int) -> tuple[Array, Array]:
        return lefts[place] @ ups[place, :, :rank], (rights[place] @ downs[place, :, :rank]).mT

    return Factored(values, floor, balanced)
