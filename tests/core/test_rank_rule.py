"""Which singular values are kept, by each rule and under a budget for all layers."""

import math

import pytest

from lorakit_cli.core.rank_budget import Spectrum, ranks_within
from lorakit_cli.core.rank_rule import RankRule, parse_size, rank_rule
from lorakit_cli.errors import OptionError

VALUES = [8.0, 4.0, 2.0, 1.0, 0.5]


def test_rules_on_one_layer():
    squares = [value * value for value in VALUES]
    total = sum(squares)
    assert RankRule(rank=3).count(VALUES) == 3
    assert RankRule(rank=9).count(VALUES) == 5
    assert RankRule(ratio=4.0).count(VALUES) == 2
    assert RankRule(ratio=4.001).count(VALUES) == 3
    for kept in range(1, 6):
        share = sum(squares[:kept]) / total
        assert RankRule(energy=share - 1e-9).count(VALUES) == kept
        error = math.sqrt(sum(squares[kept:]) / total)
        assert RankRule(error=error + 1e-9).count(VALUES) == kept
    assert RankRule(energy=1.0).count(VALUES) == RankRule(error=0.0).count(VALUES) == 5
    assert RankRule(error=0.9999).count(VALUES) == 1
    assert RankRule(energy=0.5).count([]) == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20MB", 20_000_000),
        ("20MiB", 20 << 20),
        ("1.5G", 1_500_000_000),
        ("800000", 800_000),
        ("3kB", 3000),
        (".5K", 500),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-3MB", "20TBs", "0", "nanMB", "1e3MB", "٣MB"])
def test_sizes_that_are_none(text):
    with pytest.raises(OptionError, match="is no size of a file; write for example 20MB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "--rank 0 must be at least 1"),
        ({"energy": 1.5}, "--energy 1.5 is a share"),
        ({"energy": float("nan")}, "--energy nan is a share"),
        ({"error": 1.0}, "--error 1.0 is a relative error"),
        ({"ratio": 1.0}, "--ratio 1.0 must be above 1"),
        ({"ratio": float("inf")}, "--ratio inf must be above 1"),
        ({"rank": 4, "size": "20MB"}, "--rank and --size exclude each other"),
    ],
)
def test_options_that_mean_nothing(options, message):
    given = dict.fromkeys(("rank", "energy", "error", "ratio", "size")) | options
    with pytest.raises(OptionError, match=message):
        rank_rule(**given)


def test_a_budget_goes_where_it_gains_the_most_per_byte():
    spectra = [Spectrum([10.0, 3.0, 2.9], 10), Spectrum([1.0, 0.9], 10), Spectrum([5.0, 4.0], 10)]

    def size(ranks):
        return 50 + sum(rank * spectrum.cost for rank, spectrum in zip(ranks, spectra, strict=True))

    def error(ranks):
        return sum(value**2 for rank, spectrum in zip(ranks, spectra, strict=True) for value in spectrum.values[rank:])

    every = [(a, b, c) for a in (1, 2, 3) for b in (1, 2) for c in (1, 2)]
    for budget in (80, 85, 90, 100, 110, 120, 1000):
        ranks = ranks_within(spectra, budget, size)
        assert size(ranks) <= budget
        assert error(ranks) == min(error(other) for other in every if size(other) <= budget)
    with pytest.raises(ValueError, match="80"):
        ranks_within(spectra, 79, size)
    # Of two that gain the same, the cheaper; of one that has no room, the next that has.
    cheap = [Spectrum([9.0, 4.0], 100), Spectrum([9.0, 4.0], 10), Spectrum([9.0, 1.0], 40)]
    sizes = [spectrum.cost for spectrum in cheap]
    ranks = ranks_within(cheap, 200, lambda ranks: sum(a * b for a, b in zip(ranks, sizes, strict=True)))
    assert ranks == [1, 2, 2]


def test_a_header_that_grows_with_the_ranks_is_part_of_the_budget():
    spectra = [Spectrum([1.0 / n for n in range(1, 50)], 10) for _ in range(20)]

    def size(ranks):
        return 300 + 10 * sum(ranks) + 40 * len(set(ranks))

    for budget in (600, 1000, 3000):
        assert budget - 100 < size(ranks_within(spectra, budget, size)) <= budget
