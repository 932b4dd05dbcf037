import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from lorakit_cli.kinds.tucker import LORA_TUCKER
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, lycoris, lycoris_modules


def test_every_value_is_the_sum_over_both_ranks():
    rng = np.random.default_rng(0)
    down, mid, up = rng.normal(size=(3, 5, 1, 1)), rng.normal(size=(3, 3, 2, 3)), rng.normal(size=(4, 3, 1, 1))
    wanted = np.zeros((4, 5, 2, 3))
    for row, column, left, right in itertools.product(range(4), range(5), range(3), range(3)):
        wanted[row, column] += 0.5 * up[row, left, 0, 0] * mid[left, right] * down[right, column, 0, 0]
    factors = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": 1.5}
    tensors = {suffix: torch.tensor(value) for suffix, value in factors.items()}
    assert kinds_of(tensors) == [LORA_TUCKER]
    assert difference(change(tensors, torch.zeros(4, 5, 2, 3)), torch.tensor(wanted)) < 1e-12
    found = change(tensors, torch.zeros(4, 5, 2, 3), dtype=torch.float32)
    assert difference(found, torch.tensor(wanted)) < 1e-6


@pytest.mark.parametrize("name", ["conv3", "wide", "line", "cube"])
def test_it_is_the_three_convolutions_one_after_the_other(name):
    locon = lycoris_modules("locon")
    base = layer(name)
    module = lycoris(locon.LoConModule, base, lora_dim=3, alpha=2, use_tucker=True)
    found = change(module.state_dict(), base.weight)
    assert difference(found, module.get_diff_weight()[0]) < 1e-12
    convolve = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[base.weight.ndim]
    x = torch.randn(1, base.in_channels, *[5] * (base.weight.ndim - 2), dtype=torch.float64)
    through = module.lora_up(module.lora_mid(module.lora_down(x))) * 2 / 3
    assert difference(convolve(x, found), through) < 1e-12


@pytest.mark.parametrize(
    ("down", "mid", "up", "message"),
    [
        ((3, 5, 1, 1), (3, 3, 3, 3), (4, 2, 1, 1), r"its ranks differ: down is .*, mid is .*, up is \[4, 2, 1, 1\]"),
        ((3, 5, 1, 1), (3, 2, 3, 3), (4, 3, 1, 1), r"its mid is \[3, 2, 3, 3\], but must be \[rank, rank"),
        ((3, 5, 1, 1), (3, 3), (4, 3, 1, 1), "must be"),
        ((3, 5, 3, 3), (3, 3, 3, 3), (4, 3, 1, 1), "its down is .*, which is no matrix"),
        ((0, 5, 1, 1), (0, 0, 3, 3), (4, 0, 1, 1), "holds no values"),
    ],
)
def test_factors_that_make_no_change_are_refused(down, mid, up, message):
    with pytest.raises(ValueError, match=message):
        LORA_TUCKER.rank({"down": down, "mid": mid, "up": up})
