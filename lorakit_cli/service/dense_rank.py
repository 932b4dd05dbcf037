"""A whole matrix as the closest product of a rank: by its decomposition, or for a large one by random projection."""

import torch
from torch import Tensor

# Up to this the whole decomposition is as quick.
_SMALL = 512
_OVERSAMPLED = 16
_MOST_ITERATIONS = 24
# What another iteration may still gain, relative to what is left, before it counts as done.
_SETTLED = 1e-6


def decompose(matrix: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Give `U, values, V^T` of a matrix in fp64; of a large one the first `rank` where that is known to be enough.

    A subspace is iterated until what its first values hold of the matrix no longer grows (Halko, Martinsson and Tropp,
    2011, arXiv:0909.4061); where it still does after many turns, the whole matrix is decomposed. The same every time.
    """
    smaller = min(matrix.shape)
    if rank is not None and smaller > _SMALL and rank + _OVERSAMPLED < smaller // 4:
        found = _projected(matrix, rank)
        if found is not None:
            left, values, right = found
            return left[:, :rank], values[:rank], right[:rank]
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left, values, right


def _projected(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor] | None:
    total = float(matrix.norm()) ** 2
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], rank + _OVERSAMPLED, generator=generator, dtype=torch.float64).to(
        matrix.device
    )
    basis = torch.linalg.qr(matrix @ start)[0]
    held = -1.0
    for _ in range(_MOST_ITERATIONS):
        small = basis.mT @ matrix
        turned, values, right = torch.linalg.svd(small, full_matrices=False)
        before, held = held, float(values[:rank].square().sum())
        if held - before <= _SETTLED * max(total - held, _SETTLED * total):
            return basis @ turned, values, right
        basis = torch.linalg.qr(matrix @ right.mT)[0]
    return None
