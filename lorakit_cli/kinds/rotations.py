"""Rotations from skew-symmetric matrices, and what they change: everything here is a rotation minus the identity.

Leaving the identity out keeps the digits of a small rotation. Qiu et al., 2023 (OFT), arXiv:2306.07280, equation 6.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def skew(blocks: "Tensor") -> "Tensor":
    """Give `B - B.T` of every block of `[..., n, n]`."""
    return blocks - blocks.mT


def limited(skews: "Tensor", norm: "Tensor", bound: float) -> "Tensor":
    """Shorten matrices of norm `norm` to one of at most `bound`."""
    return skews * (bound / norm).clamp(max=1.0)


def constrained(blocks: "Tensor", bound: float) -> "Tensor":
    """Give the skew matrices of a layer, together no longer than `bound`, or as they are for a bound of 0 or less.

    The norm is that of all blocks as one vector, plus 1e-8, as in
    https://github.com/KohakuBlueleaf/LyCORIS/blob/main/lycoris/functional/diag_oft.py, `get_r`.
    """
    skews = skew(blocks)
    return limited(skews, skews.norm() + 1e-8, bound) if bound > 0 else skews


def cayley_turn(skews: "Tensor") -> "Tensor":
    """Give `R - I` for `R = (I + Q)(I - Q)^-1`, which is `2 (I - Q)^-1 Q`; the turn of -Q is its transpose."""
    import torch

    identity = torch.eye(skews.shape[-1], dtype=skews.dtype, device=skews.device)
    # Without its check: a skew Q has imaginary eigenvalues, so I - Q is never singular, and the check waits for a GPU.
    solution: Tensor = torch.linalg.solve_ex(identity - skews, skews)[0]
    return solution.mul_(2.0)


def neumann_turn(skews: "Tensor", terms: int, full_tail: bool) -> "Tensor":
    """Give the first terms of the series of `R - I`: `2Q + 2Q^2 + ...`, the last power once, with `full_tail` twice.

    As in https://github.com/huggingface/peft/blob/main/src/peft/tuners/oft/layer.py, `_cayley_batch`: the identity
    counts as a term, and with three terms there is a cube all the same. Before PEFT 0.18 the last power counted twice.
    """
    turn, power = skews * (2.0 if terms > 1 else 0.0), skews
    if terms < 3:
        return turn
    power = skews @ skews
    turn.add_(power, alpha=2.0)
    for _ in range(3, terms if full_tail else terms - 1):
        power = power @ skews
        turn.add_(power, alpha=2.0)
    return turn if full_tail else turn.add_(power @ skews)
