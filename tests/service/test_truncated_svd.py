"""The leading singular triplets against a dense decomposition in fp64."""

import math

import pytest
import torch

from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.service.truncated_svd import singular_values, truncated_svd


def matrix(rows, columns, falls):
    """Make a matrix whose singular values fall as 1/k^falls; 0 is flat, None is of rank 12."""
    torch.manual_seed(2)
    if falls is None:
        return torch.randn(rows, 12) @ torch.randn(12, columns)
    size = min(rows, columns)
    left, right = (torch.linalg.qr(torch.randn(count, size, dtype=torch.float64))[0] for count in (rows, columns))
    values = torch.arange(1, size + 1, dtype=torch.float64) ** -falls
    return ((left * values) @ right.T).float()


@pytest.mark.parametrize("shape", [(300, 300), (700, 260), (260, 700), (40, 30)])
@pytest.mark.parametrize("falls", [None, 1.5, 0.7, 0.0])
def test_the_truncation_is_the_closest_of_its_rank(shape, falls):
    whole = matrix(*shape, falls)
    found = truncated_svd(whole, RankRule(rank=16))
    values = torch.linalg.svdvals(whole.double())
    best = math.sqrt(float(values[16:].square().sum()))
    product = (found.left.double() * found.values.double()) @ found.right.double()
    error = float((whole.double() - product).norm())
    assert error <= best * 1.001 + 1e-6 * float(whole.norm())
    assert error >= best * (1 - 1e-6)
    assert len(found.values) == (12 if falls is None else 16)
    assert torch.allclose(found.values.double()[:12], values[:12], rtol=1e-2)
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


def test_all_singular_values_come_in_order():
    whole = matrix(90, 200, 0.7)
    assert singular_values(whole) == pytest.approx(torch.linalg.svdvals(whole.double()).tolist(), rel=1e-6)


def test_a_matrix_of_zeros_has_nothing_to_keep():
    assert len(truncated_svd(torch.zeros(30, 20), RankRule(rank=4)).values) == 0
