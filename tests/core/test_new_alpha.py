"""An alpha for a scale: a reader that divides it by the rank gets the scale back, to the last bit where one does."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lorakit_cli.core.new_alpha import alpha_for, same_scale


@given(some.floats(2**-20, 2**20), some.integers(1, 512))
def test_what_was_an_alpha_comes_back_exactly(alpha, rank):
    scale = alpha / rank
    assert alpha_for(scale, rank) / rank == scale


@given(some.floats(2**-20, 2**20), some.integers(1, 512), some.integers(1, 8))
def test_a_rank_that_was_added_up_keeps_the_scale(alpha, rank, parts):
    scale = alpha / rank
    assert same_scale(alpha_for(scale, rank * parts) / (rank * parts), scale)


@pytest.mark.parametrize("rank", range(1, 300))
def test_rank_stabilised_scales_are_met_within_a_unit_of_the_last_place(rank):
    scale = 16 / math.sqrt(rank)
    assert abs(alpha_for(scale, rank) / rank - scale) <= math.ulp(scale)


def test_zero_and_negative_scales():
    assert alpha_for(0.0, 4) == 0.0
    assert alpha_for(-0.5, 4) == -2.0
    assert same_scale(0.0, 0.0)
    assert not same_scale(0.5, math.nextafter(math.nextafter(math.nextafter(0.5, 1), 1), 1))
