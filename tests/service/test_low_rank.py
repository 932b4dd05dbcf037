"""Singular values of sums of products, held against dense decompositions of the sums."""

import pytest
import torch

from lorakit_cli.service.low_rank import Factored, factor

WIDE = torch.float64


@pytest.fixture(params=["numpy", "torch", pytest.param("cuda", marks=pytest.mark.cuda)])
def factored(request):
    """Factor in each kind of array; what comes back is torch's."""

    def run(left, right):
        if request.param == "numpy":
            found = factor(left.numpy(), right.numpy())
        else:
            device = "cpu" if request.param == "torch" else request.param
            found = factor(left.to(device), right.to(device))

        def balanced(place, rank):
            return tuple(torch.as_tensor(each).cpu() for each in found.balanced(place, rank))

        return Factored(torch.as_tensor(found.values).cpu(), torch.as_tensor(found.floor).cpu(), balanced)

    return run


def products(rows, columns, inner, seed=0, batch=3):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(batch, rows, inner, generator=generator, dtype=WIDE)
    return left, torch.randn(batch, inner, columns, generator=generator, dtype=WIDE)


@pytest.mark.parametrize(
    "sizes", [(40, 30, 8), (5, 30, 8), (30, 5, 8), (6, 6, 20), (300, 200, 64), (1, 1, 3), (7, 1, 1)]
)
def test_values_and_closest_products_are_those_of_the_dense_sum(factored, sizes):
    left, right = products(*sizes)
    dense = left @ right
    found = factored(left.clone(), right.clone())
    exact = torch.linalg.svdvals(dense)
    known = found.values.shape[1]
    assert torch.allclose(found.values, exact[:, :known], rtol=0, atol=1e-12 * float(exact.max()))
    for rank in {1, known // 2, known} - {0}:
        for place in range(len(dense)):
            up, down = found.balanced(place, rank)
            optimum = float(exact[place, rank:].norm())
            error = float((up @ down - dense[place]).norm())
            assert error == pytest.approx(optimum, rel=1e-5, abs=1e-11 * float(exact.max()))
            # Neither holds more than its share.
            assert torch.allclose(up.norm(dim=0), down.norm(dim=1))


def test_what_is_not_there_is_told_from_what_is_small(factored):
    left, right = products(40, 30, 8, batch=1)
    # Twice the same, the second and its opposite, and one that is a millionth of a millionth.
    left = torch.cat([left, left[:, :, :3], -left[:, :, 3:5], left[:, :, :1] * 1e-12 + 1e-12], 2)
    right = torch.cat([right, right[:, :3], right[:, 3:5], right[:, :1].roll(1, 2)], 1)
    found = factored(left.clone(), right.clone())
    there = int((found.values[0] > found.floor[0]).sum())
    exact = torch.linalg.svdvals(left @ right)[0]
    assert there == 7
    assert torch.allclose(found.values[0, :7], exact[:7], rtol=1e-6, atol=1e-13)


def test_one_that_is_close_to_dependent_leaves_its_neighbours_alone(factored):
    left, right = products(40, 30, 8, batch=5)
    left[1, :, 3], left[3, :, 2] = left[1, :, 4], 0
    found = factored(left.clone(), right.clone())
    exact = torch.linalg.svdvals(left @ right)[:, :8]
    assert torch.allclose(found.values, exact, rtol=0, atol=1e-12 * float(exact.max()))
    assert (found.values > found.floor[:, None]).sum(1).tolist() == [8, 7, 8, 7, 8]
    for place in range(5):
        up, down = found.balanced(place, 7)
        error = float((up @ down - left[place] @ right[place]).norm())
        assert error == pytest.approx(float(exact[place, 7]), rel=1e-9, abs=1e-11)


def test_factors_of_very_different_sizes_keep_their_digits(factored):
    """Squares of what is multiplied here differ by more than fp64 has digits."""
    left, right = products(40, 30, 4, batch=1)
    sizes = torch.tensor([1e6, 1e2, 1e-2, 1e-6], dtype=WIDE)
    found = factored(left * sizes, right / sizes[:, None])
    exact = torch.linalg.svdvals(left @ right)
    assert torch.allclose(found.values, exact[:, :4], rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [1e-30, 1e20])
def test_tiny_and_huge_values(factored, size):
    left, right = products(20, 10, 4)
    found = factored(left * size, right)
    assert torch.allclose(found.values / size, torch.linalg.svdvals(left @ right)[:, :4], rtol=1e-12, atol=0)
    assert bool((found.values > found.floor[:, None]).all())
