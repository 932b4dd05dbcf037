import itertools

import numpy as np
import pytest
import torch

from lorakit_cli.kinds.loha import LOHA, LOHA_TUCKER
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, lycoris, lycoris_modules, peft


def numbers(rng, **shapes):
    return {f"hada_{name}": torch.tensor(rng.normal(size=shape)) for name, shape in shapes.items()}


def test_every_value_is_the_product_of_two_sums():
    tensors = numbers(np.random.default_rng(0), w1_a=(4, 2), w1_b=(2, 5), w2_a=(4, 2), w2_b=(2, 5))
    parts = {name: tensor.tolist() for name, tensor in tensors.items()}
    wanted = torch.zeros(4, 5, dtype=torch.float64)
    for row, column in itertools.product(range(4), range(5)):
        first = sum(parts["hada_w1_a"][row][rank] * parts["hada_w1_b"][rank][column] for rank in range(2))
        second = sum(parts["hada_w2_a"][row][rank] * parts["hada_w2_b"][rank][column] for rank in range(2))
        wanted[row, column] = 1.5 * first * second
    tensors["alpha"] = torch.tensor(3.0)
    assert kinds_of(tensors) == [LOHA]
    assert difference(change(tensors, wanted), wanted) < 1e-12
    assert difference(change(tensors, wanted, dtype=torch.float32), wanted) < 1e-6


def test_factors_of_a_convolution_may_keep_its_dimensions():
    rng = np.random.default_rng(0)
    flat = numbers(rng, w1_a=(4, 2), w1_b=(2, 45), w2_a=(4, 2), w2_b=(2, 45))
    kept = {
        name: tensor.reshape(2, 5, 3, 3) if name.endswith("b") else tensor.reshape(4, 2, 1, 1)
        for name, tensor in flat.items()
    }
    base = torch.zeros(4, 5, 3, 3)
    assert torch.equal(change(flat, base), change(kept, base))


def test_every_value_of_a_tucker_product_is_the_sum_over_both_ranks():
    tensors = numbers(
        np.random.default_rng(0),
        w1_a=(3, 4),
        w1_b=(3, 5),
        t1=(3, 3, 2, 2),
        w2_a=(3, 4),
        w2_b=(3, 5),
        t2=(3, 3, 2, 2),
    )
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    halves = []
    for number in "12":
        left, right, core = (arrays[f"hada_{part}"] for part in (f"w{number}_a", f"w{number}_b", f"t{number}"))
        half = np.zeros((4, 5, 2, 2))
        for row, column, i, j in itertools.product(range(4), range(5), range(3), range(3)):
            half[row, column] += core[i, j] * right[j, column] * left[i, row]
        halves.append(half)
    wanted = torch.tensor(halves[0] * halves[1] * (2.0 / 3.0))
    tensors["alpha"] = torch.tensor(2.0)
    assert kinds_of(tensors) == [LOHA_TUCKER]
    assert difference(change(tensors, wanted), wanted) < 1e-12
    assert difference(change(tensors, wanted, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize("name", ["linear", "conv1", "conv3", "wide", "line", "cube"])
@pytest.mark.parametrize("tucker", [False, True])
def test_lycoris_agrees(name, tucker):
    loha = lycoris_modules("loha")
    base = layer(name)
    module = lycoris(loha.LohaModule, base, lora_dim=3, alpha=2, use_tucker=tucker)
    # get_diff_weight would scale a second time.
    wanted = module.get_weight(module.shape)
    assert difference(change(module.state_dict(), base.weight), wanted) < 1e-12
    assert difference(change(module.state_dict(), base.weight, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize(("name", "tucker"), [("linear", False), ("conv3", False), ("conv3", True)])
def test_peft_agrees(name, tucker):
    from peft import LoHaConfig

    base = layer(name)
    inputs = torch.randn(2, 12) if name == "linear" else torch.randn(1, 12, 6, 6)
    # PEFT keeps the scale in fp32: that of 1.5 / 3 is exact.
    made = peft(LoHaConfig(r=3, alpha=1.5, target_modules=["0"], use_effective_conv2d=tucker), base, inputs.double())
    found = change(made.tensors | {"alpha": torch.tensor(1.5)}, base.weight)
    assert difference(found, made.merged.weight - base.weight) < 1e-12


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hada_w1_a": (4, 3)}, r"its ranks differ: hada_w1_a is \[4, 3\], hada_w1_b is \[2, 5\]"),
        ({"hada_w2_b": (2, 6)}, r"its products differ in shape: \[4, 5\] and \[4, 6\]"),
        ({"hada_w1_a": (4, 2, 3)}, "which is no matrix"),
        ({"hada_w2_b": (2,)}, "which is no matrix"),
        ({"hada_w1_a": (0, 2), "hada_w2_a": (0, 2)}, "holds no values"),
    ],
)
def test_factors_that_make_no_change_are_refused(changed, message):
    shapes = {"hada_w1_a": (4, 2), "hada_w1_b": (2, 5), "hada_w2_a": (4, 2), "hada_w2_b": (2, 5)}
    assert LOHA.rank(shapes) == 2
    with pytest.raises(ValueError, match=message):
        LOHA.rank(shapes | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hada_t2": (3, 3, 2, 2)}, "its ranks differ"),
        ({"hada_t1": (2, 3, 2, 2)}, "must be"),
        ({"hada_t1": (2, 2, 3, 3)}, "differ in shape"),
        ({"hada_w2_b": (2, 6)}, "differ in shape"),
    ],
)
def test_tucker_factors_that_make_no_change_are_refused(changed, message):
    matrices = {"hada_w1_a": (2, 4), "hada_w1_b": (2, 5), "hada_w2_a": (2, 4), "hada_w2_b": (2, 5)}
    shapes = matrices | {"hada_t1": (2, 2, 2, 2), "hada_t2": (2, 2, 2, 2)}
    assert LOHA_TUCKER.rank(shapes) == 2
    with pytest.raises(ValueError, match=message):
        LOHA_TUCKER.rank(shapes | changed)
