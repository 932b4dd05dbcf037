import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lorakit_cli.kinds.lora import LORA
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, lycoris, lycoris_modules, peft

KERNELS = {"none": (), "1x1": (1, 1), "3x3": (3, 3), "1x3": (1, 3), "1-D": (3,), "3-D": (3, 2, 1)}


def test_a_literal_product():
    tensors = {"lora_down.weight": torch.tensor([[1.0, 2.0, 3.0]]), "lora_up.weight": torch.tensor([[10.0], [20.0]])}
    assert change(tensors, torch.zeros(2, 3)).tolist() == [[10.0, 20.0, 30.0], [20.0, 40.0, 60.0]]


def test_alpha_over_rank_scales_the_product():
    tensors = {"lora_A.weight": torch.ones(4, 3), "lora_B.weight": torch.ones(2, 4), "alpha": torch.tensor(1)}
    assert change(tensors, torch.zeros(2, 3)).tolist() == [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert change(tensors | {"alpha": torch.tensor(-2.0)}, torch.zeros(2, 3)).tolist() == [[-2.0] * 3] * 2
    assert change(tensors | {"alpha": torch.tensor(0.0)}, torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_every_value_is_the_sum_over_the_ranks(kernel):
    rng = np.random.default_rng(0)
    down, up = rng.normal(size=(4, 5, *kernel)), rng.normal(size=(6, 4, *[1] * len(kernel)))
    expected = np.zeros((6, 5, *kernel))
    for row in range(6):
        for rank in range(4):
            expected[row] += 0.75 * up[row, rank].item() * down[rank]
    tensors = {"lora_down.weight": torch.tensor(down), "lora_up.weight": torch.tensor(up), "alpha": torch.tensor(3.0)}
    wanted = torch.tensor(expected)
    assert difference(change(tensors, wanted), wanted) < 1e-12
    assert difference(change(tensors, wanted, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize("convolve", [functional.conv1d, functional.conv2d, functional.conv3d])
def test_a_convolution_is_the_two_convolutions_it_stands_for(convolve):
    dimensions = {functional.conv1d: 1, functional.conv2d: 2, functional.conv3d: 3}[convolve]
    generator = torch.Generator().manual_seed(1)
    down = torch.randn(4, 5, *[3] * dimensions, generator=generator, dtype=torch.float64)
    up = torch.randn(6, 4, *[1] * dimensions, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 5, *[6] * dimensions, generator=generator, dtype=torch.float64)
    delta = change({"lora_down.weight": down, "lora_up.weight": up}, torch.zeros(6, 5, *[3] * dimensions))
    assert torch.allclose(convolve(x, delta), convolve(convolve(x, down), up))


def test_factors_with_and_without_a_kernel_of_one_go_together():
    down, up = torch.randn(2, 5, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    wanted = up @ down
    for left in (up, up[:, :, None, None]):
        for right in (down, down[:, :, None, None]):
            for base in (torch.zeros(6, 5), torch.zeros(6, 5, 1, 1)):
                found = change({"lora_down.weight": right, "lora_up.weight": left}, base)
                assert torch.equal(found.reshape(6, 5), wanted)
    kernel = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    found = change({"lora_down.weight": kernel, "lora_up.weight": up}, torch.zeros(6, 5, 3, 3))
    assert torch.equal(found, torch.einsum("or,rikl->oikl", up, kernel))


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("lora_A.weight", "lora_B.weight"),
        ("lora_A", "lora_B"),
        ("lora_down.weight", "lora_up.weight"),
        ("lora.down.weight", "lora.up.weight"),
        ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
        ("down.weight", "up.weight"),
        ("down", "up"),
    ],
)
def test_every_spelling_is_the_same_pair(down, up):
    tensors = {down: torch.ones(2, 3), up: torch.full((4, 2), 2.0)}
    assert kinds_of(tensors) == [LORA]
    assert change(tensors, torch.zeros(4, 3)).unique().tolist() == [4.0]


@pytest.mark.parametrize(
    ("down", "up", "message"),
    [
        ((2, 3), (5, 4), r"its ranks differ: down is \[2, 3\], up is \[5, 4\]"),
        ((2, 3, 3), (5, 2, 1, 1), "no linear or convolution pair"),
        ((2,), (5, 2), "no linear or convolution pair"),
        ((2, 3, 1, 1, 1, 1), (5, 2), "no linear or convolution pair"),
        ((2, 3, 3, 3), (5, 2, 3, 3), "kernel must be 1x1"),
        ((0, 3), (5, 0), r"its down is \[0, 3\], which holds no values"),
        ((2, 0), (5, 2), "holds no values"),
        ((2, 3), (0, 2), "holds no values"),
    ],
)
def test_factors_that_make_no_change_are_refused(down, up, message):
    with pytest.raises(ValueError, match=message):
        LORA.rank({"down": down, "up": up})


@pytest.mark.parametrize("name", ["linear", "conv1", "conv3", "wide", "line", "cube"])
def test_lycoris_agrees(name):
    locon = lycoris_modules("locon")
    base = layer(name)
    module = lycoris(locon.LoConModule, base, lora_dim=4, alpha=3)
    wanted = module.get_diff_weight()[0]
    assert difference(change(module.state_dict(), base.weight), wanted) < 1e-12
    assert difference(change(module.state_dict(), base.weight, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize("name", ["linear", "conv1", "conv3"])
@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_peft_agrees(name, rank_stabilised):
    from peft import LoraConfig

    config = LoraConfig(r=4, lora_alpha=3, target_modules=["0"], use_rslora=rank_stabilised)
    base = layer(name)
    inputs = torch.randn(2, 12, dtype=torch.float64) if name == "linear" else torch.randn(1, 12, 6, 6).double()
    made = peft(config, base, inputs)
    # alpha / sqrt(rank) as alpha over rank
    tensors = made.tensors | {"alpha": torch.tensor(3.0 * (2.0 if rank_stabilised else 1.0))}
    assert difference(change(tensors, base.weight), made.merged.weight - base.weight) < 1e-12


def test_dylora_is_stored_as_a_plain_pair():
    dylora = lycoris_modules("dylora")
    base = nn.Linear(12, 16).double()
    module = lycoris(dylora.DyLoraModule, base, lora_dim=4, alpha=4, block_size=2)
    tensors = module.state_dict()
    assert kinds_of(tensors) == [LORA]
    ups, downs = torch.cat(list(module.up_list), 1), torch.cat(list(module.down_list))
    assert difference(change(tensors, base.weight), ups @ downs) < 1e-12
