"""The largest values of a tensor, against sorting all of them."""

import pytest
import torch

from lorakit_cli.service.largest_values import keep_largest


def by_sorting(values, count):
    places = values.reshape(-1).abs().argsort(descending=True, stable=True)[:count]
    kept = torch.zeros(values.numel(), dtype=values.dtype)
    kept[places] = values.reshape(-1)[places]
    return kept.reshape(values.shape)


def product():
    return torch.randn(500, 8) @ torch.randn(8, 700)


def growing():
    """Give values whose order is all but chance."""
    return torch.linspace(-3, 2, 300_000)


def few_sizes():
    """Give many that are equal, at the edge as well."""
    return torch.randint(-3, 4, (400, 500)).float()


def misleading():
    """Give values that are large just where a sample is taken."""
    values = torch.rand(300_000)
    values[:: 300_000 // (1 << 14) | 1] += 5
    return values


def mostly_nothing():
    return torch.randn(300_000) * (torch.rand(300_000) < 0.1)


@pytest.mark.parametrize("make", [product, growing, few_sizes, misleading, mostly_nothing])
@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exactly_the_largest_stay(make, share, dtype):
    torch.manual_seed(5)
    values = make().to(dtype)
    count = int(share * values.numel())
    assert torch.equal(keep_largest(values.clone(), count), by_sorting(values, count))


@pytest.mark.parametrize("count", [0, 1, 5, 6])
def test_few_values(count):
    values = torch.tensor([[1.0, -3.0, 3.0], [0.0, -2.0, 3.0]])
    assert torch.equal(keep_largest(values.clone(), count), by_sorting(values, count))
