"""Sums of products of factors in the form of their singular values, without ever building the sum itself.

`sum_i up_i @ down_i` is one product of stacked factors, `left @ right`. With `left = Q R` and `right^T = P S` it is
`Q (R S^T) P^T`, so that the small core `R S^T` has its singular values, and its vectors are those of the core turned
by Q and P. That takes O((m + n) r^2), where the sum itself would take O(m n min(m, n)). All of it is done in fp64.

R and S are the Cholesky factors of `left^T left` and `right right^T`, columns brought to one length first, and Q is
`left R^-1`: nothing but products, several times as fast as Householder's QR. Squaring costs digits where columns are
close to dependent; how close is measured, and beyond a limit it is Householder's after all, which works on the values
themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# What rounding leaves of a value that is none, relative to the sizes of what was summed.
_NOTHING = 1e-14
# Up to this condition the squared columns keep eight digits of the smallest direction.
_CONDITION = 1e4


@dataclass(frozen=True, slots=True)
class Factored:
    """Products of one shape as `U diag(values) V^T`, the vectors not yet multiplied out.

    `values` is `[batch, q]`, the largest first; those not above `floor`, `[batch]`, are what rounding left of none.
    `balanced(place, rank)` gives `[m, rank]` and `[rank, n]` that multiply to the closest product of that rank to one
    of the batch; each has the roots of the singular values, so that neither holds extreme numbers.
    """

    values: Tensor
    floor: Tensor
    balanced: Callable[[int, int], tuple[Tensor, Tensor]]


def factor(left: Tensor, right: Tensor) -> Factored:
    """Find the singular values of products `[batch, m, r] @ [batch, r, n]`, given in fp64 and finite."""
    if left.shape[2] <= min(left.shape[1], right.shape[2]):
        squares = left.mT @ left, right @ right.mT
        triangles = _triangle(squares[0]), _triangle(squares[1])
        if triangles[0] is not None and triangles[1] is not None:
            lengths = [square.diagonal(dim1=1, dim2=2).sqrt() for square in squares]
            return _by_squares(left, right, triangles[0], triangles[1], _NOTHING * (lengths[0] * lengths[1]).sum(1))
    return _by_reflections(left, right, _NOTHING * (left.norm(dim=1) * right.norm(dim=2)).sum(1))


def _triangle(squares: Tensor) -> tuple[Tensor, Tensor] | None:
    """Give R with `R^T R` the matrices, and its inverse; None where that costs too many digits."""
    lengths = squares.diagonal(dim1=1, dim2=2).sqrt()
    inverse = 1 / lengths
    lower, failed = torch.linalg.cholesky_ex(squares * inverse[:, :, None] * inverse[:, None])
    if bool(failed.any()):
        return None
    identity = torch.eye(lower.shape[1], dtype=lower.dtype, device=lower.device).expand_as(lower)
    turned = torch.linalg.solve_triangular(lower, identity, upper=False)
    conditions = lower.norm(dim=(1, 2)) * turned.norm(dim=(1, 2))
    # Not a number is not below the limit either.
    if not bool((conditions < _CONDITION * lower.shape[1]).all()):
        return None
    return lower.mT * lengths[:, None], inverse[:, :, None] * turned.mT


def _by_squares(
    left: Tensor, right: Tensor, lefts: tuple[Tensor, Tensor], rights: tuple[Tensor, Tensor], floor: Tensor
) -> Factored:
    first, values, second = torch.linalg.svd(lefts[0] @ rights[0].mT)
    root = values.sqrt()[:, None]
    # In place of Q, what turns the factors into it.
    onto_left, onto_right = lefts[1] @ (first * root), rights[1] @ (second.mT * root)

    def balanced(place: int, rank: int) -> tuple[Tensor, Tensor]:
        return left[place] @ onto_left[place, :, :rank], onto_right[place, :, :rank].mT @ right[place]

    return Factored(values, floor, balanced)


def _by_reflections(left: Tensor, right: Tensor, floor: Tensor) -> Factored:
    lefts, rights = torch.geqrf(left), torch.geqrf(right.mT.contiguous())
    inner = left.shape[2]
    cores = lefts[0][:, :inner].triu() @ rights[0][:, :inner].triu().mT
    first, values, second = torch.linalg.svd(cores, full_matrices=False)
    root = values.sqrt()[:, None]
    ups, downs = first * root, second.mT * root

    def balanced(place: int, rank: int) -> tuple[Tensor, Tensor]:
        up = _reflected(lefts, place, ups[place, :, :rank])
        return up, _reflected(rights, place, downs[place, :, :rank]).mT

    return Factored(values, floor, balanced)


def _reflected(factored: tuple[Tensor, Tensor], place: int, small: Tensor) -> Tensor:
    """Multiply Q, kept as reflections, by a small matrix."""
    reflections, scales = factored
    whole = small.new_zeros(reflections.shape[1], small.shape[1])
    whole[: small.shape[0]] = small
    # Q of a matrix that is wider than high is square.
    return torch.ormqr(reflections[place, :, : scales.shape[1]], scales[place], whole)
