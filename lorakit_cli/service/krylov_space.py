"""Subspaces in which the leading singular vectors of a matrix lie: what it and its transpose make of a random block.

Golub and Kahan's bidiagonalization by blocks, all of it kept orthogonal, as in Musco and Musco, 2015, arXiv:1504.05477:
a handful of products with the matrix is enough also where its singular values lie close to each other.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Ritz(NamedTuple):
    """What a subspace knows of a matrix: `lefts @ turned_left` are the left vectors, `[.., k]`, `values` their sizes.

    `turned_right` `[k, ..]` turns the other basis likewise; `values` are in fp64 and never above the true ones.
    """

    turned_left: Tensor
    values: Tensor
    turned_right: Tensor


class KrylovSpace:
    """Two orthonormal bases of a matrix, and its values in them; each step makes both larger by one block.

    The same matrix gives the same bits on the same kind of processor.
    """

    def __init__(self, matrix: Tensor, width: int) -> None:
        self._matrix, self._width = matrix, width
        generator = torch.Generator("cpu").manual_seed(0)
        start = torch.randn(matrix.shape[1], width, generator=generator, dtype=matrix.dtype).to(matrix.device)
        self._lefts = matrix.new_empty(matrix.shape[0], 0)
        self._rights = torch.linalg.qr(start)[0]
        self._core = matrix.new_empty(0, width)
        self._image = matrix @ self._rights

    @property
    def size(self) -> int:
        """The number of left vectors."""
        return self._lefts.shape[1]

    def grow(self) -> None:
        """Add a block to each basis."""
        left = _orthogonal(self._image, self._lefts)
        back = self._matrix.T @ left
        right = _orthogonal(back - self._rights @ (self._rights.T @ back), self._rights)
        self._lefts = torch.cat([self._lefts, left], 1)
        self._rights = torch.cat([self._rights, right], 1)
        # What the transpose makes of the left vectors lies in the span of the right ones.
        core = self._core.new_zeros(self._lefts.shape[1], self._rights.shape[1])
        core[: self._core.shape[0], : self._core.shape[1]] = self._core
        core[self._core.shape[0] :] = back.T @ self._rights
        self._core = core
        image = self._matrix @ right
        self._image = image - self._lefts @ (self._lefts.T @ image)

    def ritz(self) -> Ritz:
        """Decompose the matrix as far as it lies in the bases."""
        if self._core.dtype == torch.float64:
            return Ritz(*torch.linalg.svd(self._core, full_matrices=False))
        # Quicker, and the squares of what was computed in fp32 lose nothing here.
        core = self._core.double()
        squares, vectors = torch.linalg.eigh(core @ core.T)
        values, turned = squares.flip(0).clamp(min=0).sqrt(), vectors.flip(1)
        other = (turned.T @ core) / values.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
        return Ritz(turned, values, other)

    def residual(self, found: Ritz, count: int) -> float:
        """Give the squared norm of what leading vectors miss: `matrix @ right - left * values`, over so many."""
        last = found.turned_right[:count, -self._width :].to(self._image.dtype)
        return float((self._image @ last.T).double().square().sum())

    def vectors(self, found: Ritz, count: int) -> tuple[Tensor, Tensor]:
        """Multiply out `[rows, count]` and `[count, columns]`."""
        dtype = self._matrix.dtype
        left = self._lefts @ found.turned_left[:, :count].to(dtype)
        return left, found.turned_right[:count].to(dtype) @ self._rights.T


def _orthogonal(block: Tensor, basis: Tensor) -> Tensor:
    """Make a basis of a block, orthogonal also where the block is little more than rounding."""
    block = torch.linalg.qr(block)[0]
    again: Tensor = torch.linalg.qr(block - basis @ (basis.T @ block))[0]
    return again
