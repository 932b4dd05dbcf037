"""The leading singular triplets against a dense decomposition in fp64."""

import math

import pytest
import torch

from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.service.dense_rank import left_out, singular_values, truncated_svd


def matrix(rows, columns, falls, dtype=torch.float32):
    """Make a matrix whose singular values fall as 1/k^falls; 0 is flat, None is of rank 12."""
    torch.manual_seed(2)
    if falls is None:
        return torch.randn(rows, 12, dtype=dtype) @ torch.randn(12, columns, dtype=dtype)
    size = min(rows, columns)
    left, right = (torch.linalg.qr(torch.randn(count, size, dtype=torch.float64))[0] for count in (rows, columns))
    values = torch.arange(1, size + 1, dtype=torch.float64) ** -falls
    return ((left * values) @ right.T).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(300, 300), (700, 560), (560, 700), (40, 30)])
@pytest.mark.parametrize("falls", [None, 1.5, 0.7, 0.0])
def test_the_truncation_is_the_closest_of_its_rank(shape, falls, dtype):
    whole = matrix(*shape, falls, dtype)
    found = truncated_svd(whole, RankRule(rank=16))
    values = torch.linalg.svdvals(whole.double())
    best = math.sqrt(float(values[16:].square().sum()))
    up, down = found.balanced()
    error = float((whole.double() - up.double() @ down.double()).norm())
    digits = 20 * torch.finfo(dtype).eps * float(values.norm())
    assert best * (1 - 1e-6) - digits <= error <= best * (1 + 1e-5) + digits
    assert left_out(whole, up, down) == pytest.approx(error, rel=1e-6, abs=digits)
    assert torch.allclose(up.norm(dim=0), down.norm(dim=1), rtol=1e-3)
    assert len(found.values) == (12 if falls is None else 16)
    assert torch.allclose(found.values.double()[:12], values[:12], rtol=1e-3)
    same = truncated_svd(whole, RankRule(rank=16))
    assert torch.equal(same.left, found.left)
    assert torch.equal(same.right, found.right)


def test_a_flat_spectrum_is_decomposed_whole_and_a_steep_one_is_not():
    torch.manual_seed(3)
    assert truncated_svd(torch.randn(500, 500), RankRule(rank=16)).exact
    assert not truncated_svd(matrix(500, 500, 1.5), RankRule(rank=16)).exact


@pytest.mark.parametrize("falls", [1.5, 0.7])
@pytest.mark.parametrize(
    "rule", [RankRule(energy=0.9), RankRule(energy=0.999), RankRule(error=0.2), RankRule(ratio=4), RankRule(ratio=90)]
)
def test_as_many_values_are_kept_as_the_rule_wants(rule, falls):
    whole = matrix(600, 400, falls)
    values = torch.linalg.svdvals(whole.double()).tolist()
    total = sum(value**2 for value in values)
    if rule.ratio:
        wanted = sum(value > values[0] / rule.ratio for value in values)
    else:
        share = rule.energy or 1 - rule.error**2
        wanted = next(n for n in range(1, 401) if sum(value**2 for value in values[:n]) >= share * total)
    # An iterated block finds a little less in the same number of values.
    assert wanted <= len(truncated_svd(whole, rule).values) <= wanted + 1 + wanted // 50


@pytest.mark.parametrize("density", [0.2, 0.5])
def test_values_close_to_each_other_where_the_rank_cuts(density):
    """What pruning leaves of a product: as many values again of nearly the same size, and noise."""
    torch.manual_seed(4)
    whole = torch.randn(640, 40) @ torch.randn(40, 700)
    whole[whole.abs() < whole.abs().quantile(1 - density)] = 0
    found = truncated_svd(whole, RankRule(rank=20))
    assert not found.exact
    best = float(torch.linalg.svdvals(whole.double())[20:].norm())
    assert left_out(whole, *found.balanced()) == pytest.approx(best, rel=1e-5)


def test_without_a_rule_all_is_kept_to_the_last_digits():
    whole = matrix(520, 530, 1.5, torch.float64)
    found = truncated_svd(whole, RankRule())
    assert torch.allclose(found.values, torch.linalg.svdvals(whole), rtol=1e-9, atol=0)
    assert left_out(whole, *found.balanced()) < 1e-12


def test_all_singular_values_come_in_order():
    whole = matrix(90, 200, 0.7)
    assert singular_values(whole) == pytest.approx(torch.linalg.svdvals(whole.double()).tolist(), rel=1e-6)


def test_a_matrix_of_zeros_has_nothing_to_keep():
    assert len(truncated_svd(torch.zeros(30, 20), RankRule(rank=4)).values) == 0
