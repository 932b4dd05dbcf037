"""Say why a tensor of an output is not what it should be: what was added to the base instead, as far as that shows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorakit_cli.core.plan import Term
from lorakit_cli.service.ulps import ulp

# How near a factor must be to one that has a meaning, and to 1 where rounding leaves it free.
_NEAR, _SAME = 0.02, 2e-4
# Rounding moves a factor by so many standard errors at most.
_ERRORS = 4
# So large a part of the values may have been altered for it to be damage.
_FEW = 0.01
# A factor that noise may move so far says nothing.
_UNCLEAR = 0.5
# Sums in fp32 are off by so much of what is added.
_FP32 = 1e-6


def diagnose(found: Tensor, base: Tensor, changes: Sequence[tuple[Term, Tensor]], differing: int, values: int) -> str:
    """Name the likeliest reason from rows that deviate; `base` and the terms' `changes`, at their strengths, in fp64.

    `differing` of the tensor's `values` differ. The strengths at which the changes are in it come from least squares;
    what they leave must be no more than rounding. Values that were altered here and there are set aside first.
    """
    if not changes:
        return "its values are not the base's, rounded to the dtype of the output"
    actual = found.double() - base
    deltas = torch.stack([change.reshape(-1) for _, change in changes])
    wanted = deltas.sum(0).reshape(base.shape)
    rounding = ulp(base + wanted, found.dtype)
    if not bool((actual.abs() > rounding / 2).any()):
        return "the change was never applied: it has the base's own values"
    wrong = (actual - wanted).abs() > 2 * rounding + _FP32 * wanted.abs()
    altered = differing <= max(1, _FEW * values)
    kept = ~wrong.reshape(-1) if altered else torch.ones_like(wrong.reshape(-1))
    noise = float(rounding.square().mean().sqrt())
    factors, errors = _factors(actual.reshape(-1)[kept], deltas[:, kept], noise)
    same = all(abs(factor - 1) <= max(_SAME, _ERRORS * error) for factor, error in zip(factors, errors, strict=True))
    if same and altered:
        return f"{differing} of its values were altered afterwards"
    if any(error > _UNCLEAR for error in errors):
        return "its adapters are too alike to tell which of them is not as it should be"
    left = actual.reshape(-1)[kept] - torch.tensor(factors, dtype=torch.float64) @ deltas[:, kept]
    if float(left.square().mean().sqrt()) <= noise:
        return _meaning(factors, errors, [term for term, _ in changes])
    return "something else was added to the base than these adapters; has the base or an adapter changed?"


def _factors(actual: Tensor, deltas: Tensor, noise: float) -> tuple[list[float], list[float]]:
    """Find the multiples of the changes that come nearest to what is there, and how far noise may move each."""
    length = deltas.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    rows = deltas / length
    inverse = torch.linalg.pinv(rows @ rows.T, rtol=1e-9, hermitian=True)
    factors = inverse @ (rows @ actual) / length.reshape(-1)
    errors = noise * inverse.diagonal().sqrt() / length.reshape(-1)
    return factors.tolist(), errors.tolist()


def _meaning(factors: Sequence[float], errors: Sequence[float], terms: Sequence[Term]) -> str:
    """Say what factors other than 1 mean."""
    names = [term.adapter for term in terms]
    if len(terms) == 2:
        strengths = [factor * term.strength for factor, term in zip(factors, terms, strict=True)]
        others = [term.strength for term in reversed(terms)]
        if not _is_near(*others) and all(_is_near(a, b) for a, b in zip(strengths, others, strict=True)):
            return f"the strengths of {' and '.join(names)} are swapped"
    said = []
    for factor, error, term in zip(factors, errors, terms, strict=True):
        if abs(factor - 1) <= max(_SAME, _ERRORS * error):
            continue
        if abs(factor) < max(_NEAR, _ERRORS * error):
            said.append(f"{term.adapter} was never applied")
        elif not _is_near(term.layer.scale, 1) and _is_near(factor * term.layer.scale, 1):
            said.append(f"{term.adapter} was applied without its alpha, at {factor:.4g} times its strength")
        else:
            said.append(f"{term.adapter} was applied at {factor:.4g} times its strength")
    return "; ".join(said) or f"{' and '.join(names)} were applied at strengths a little off"


def _is_near(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= _NEAR * max(abs(wanted), 1e-9)
