"""Sums of products of factors in the form of their singular values, without ever building the sum itself.

`sum_i up_i @ down_i` is one product of stacked factors, `left @ right`. With `left = Q R` and `right^T = P S` it is
`Q (R S^T) P^T`, so that the small core `R S^T` has its singular values, and its vectors are those of the core turned
by Q and P. That takes O((m + n) r^2), where the sum itself would take O(m n min(m, n)); and since Householder's QR
works on values and not on their squares, small singular values keep their digits. All of it is done in fp64.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# What rounding leaves of a value that is none, relative to the sizes of what was summed.
_NOTHING = 1e-14


@dataclass(frozen=True, slots=True)
class Factored:
    """Products of one shape as `U diag(values) V^T`, the vectors not yet multiplied out.

    `values` is `[batch, q]`, the largest first; those not above `floor`, `[batch]`, are what rounding left of none.
    """

    values: Tensor
    floor: Tensor
    _left: tuple[Tensor, Tensor]
    _right: tuple[Tensor, Tensor]
    _turned: tuple[Tensor, Tensor]
    _sizes: tuple[int, int]

    def balanced(self, place: int, rank: int) -> tuple[Tensor, Tensor]:
        """Give `[m, rank]` and `[rank, n]` that multiply to the closest product of that rank to one of the batch.

        Each has the roots of the singular values, so that neither holds extreme numbers.
        """
        root = self.values[place, :rank].sqrt()
        left, right = (turned[place, :, :rank] * root for turned in self._turned)
        up = _turned_by(self._left, place, left, self._sizes[0])
        return up, _turned_by(self._right, place, right, self._sizes[1]).mT


def factor(left: Tensor, right: Tensor) -> Factored:
    """Find the singular values of products `[batch, m, r] @ [batch, r, n]`, given in fp64; both may be overwritten.

    Raises torch.linalg.LinAlgError for values that are not finite.
    """
    floor = _NOTHING * (left.norm(dim=1) * right.norm(dim=2)).sum(1)
    ups, downs = torch.geqrf(left), torch.geqrf(right.mT.contiguous())
    cores = _triangle(ups[0]) @ _triangle(downs[0]).mT
    first, values, second = torch.linalg.svd(cores, full_matrices=False)
    return Factored(values, floor, ups, downs, (first, second.mT), (left.shape[1], right.shape[2]))


def _triangle(factored: Tensor) -> Tensor:
    return factored[:, : factored.shape[2]].triu()


def _turned_by(factored: tuple[Tensor, Tensor], place: int, small: Tensor, rows: int) -> Tensor:
    """Multiply Q, kept as reflections, by a small matrix."""
    reflections, scales = factored
    whole = small.new_zeros(rows, small.shape[1])
    whole[: small.shape[0]] = small
    # Q of a matrix that is wider than high is square.
    return torch.ormqr(reflections[place, :, : scales.shape[1]], scales[place], whole)
