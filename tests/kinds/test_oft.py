import math

import numpy as np
import pytest
import torch

from lorakit_cli.kinds.oft import COFT_EPS, NEUMANN_FULL_TAIL, NEUMANN_TERMS, OFT
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, peft


def skew_of(packed, size):
    """Lay the values out above the diagonal one by one, and their opposites below."""
    matrix, values = np.zeros((size, size)), iter(packed)
    for row in range(size):
        for column in range(row + 1, size):
            matrix[row, column] = next(values)
            matrix[column, row] = -matrix[row, column]
    return matrix


def one_trainer(packed, base, size, scaled=False):
    """Turn every block by five terms of the series: the input of a linear layer, the weight of a convolution."""
    weight = base.numpy().reshape(base.shape[0], -1)
    turned = np.zeros_like(weight)
    for block in range(weight.shape[1] // size):
        values = packed[0 if len(packed) == 1 else block].numpy()
        q = skew_of(values / (2 * math.sqrt(size - 1) if scaled else 1), size)
        rotation = np.eye(size) + 2 * q + 2 * q @ q + 2 * q @ q @ q + q @ q @ q @ q
        columns = slice(block * size, (block + 1) * size)
        for row in range(len(weight)):
            x = weight[row, columns]
            turned[row, columns] = rotation @ x if base.ndim == 2 else x @ rotation
    return torch.tensor(turned.reshape(base.shape)) - base


@pytest.mark.parametrize("shape", [(5, 12), (5, 12, 1, 1), (5, 4, 3, 3)])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_every_block_of_columns_is_rotated(shape, scaled, shared):
    rng = np.random.default_rng(0)
    base = torch.tensor(rng.normal(size=shape))
    blocks = 1 if shared else base[0].numel() // 4
    tensors = {"oft_R.weight": torch.tensor(rng.normal(size=(blocks, 6)) * 0.3)}
    wanted = one_trainer(tensors["oft_R.weight"], base, 4, scaled)
    if scaled:
        tensors["oft_R.scaled_oft"] = torch.tensor(True)
    assert kinds_of(tensors) == [OFT]
    assert difference(change(tensors, base), wanted) < 1e-12
    assert difference(change(tensors, base, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize("name", ["linear", "square", "conv1"])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("terms", [0, 1, 2, 3, 4, 5, 6, 8])
def test_peft_agrees(name, share, terms):
    from peft import OFTConfig

    options = {"use_cayley_neumann": bool(terms)} | ({"num_cayley_neumann_terms": terms} if terms else {})
    config = OFTConfig(oft_block_size=4, target_modules=["0"], block_share=share, **options)
    base = layer(name)
    inputs = torch.randn(2, base.in_features) if name != "conv1" else torch.randn(1, base.in_channels, 6, 6)
    made = peft(config, base, inputs.double())
    assert kinds_of(made.tensors) == [OFT]
    assert made.tensors["oft_R.weight"].shape[0] == (1 if share else base.weight.shape[1] // 4)
    found = change(made.tensors, base.weight, settings={NEUMANN_TERMS: terms})
    if terms == 1:
        assert not found.any()
        assert torch.equal(made.merged.weight, base.weight)
        return
    wanted = made.merged.weight - base.weight
    assert difference(found, wanted) < 1e-12
    single = change(made.tensors, base.weight, dtype=torch.float32, settings={NEUMANN_TERMS: terms})
    assert difference(single, wanted) < 1e-6
    assert difference(made.output, made.adapted) < 1e-12


def test_peft_agrees_on_the_bound_of_coft():
    from peft import OFTConfig

    base = layer("linear")
    config = OFTConfig(oft_block_size=4, target_modules=["0"], coft=True, eps=0.3)
    made = peft(config, base, torch.randn(2, 12).double())
    tensors, settings = made.tensors, {NEUMANN_TERMS: 5, COFT_EPS: 0.3}
    wanted = made.merged.weight - base.weight
    # PEFT rounds the bound to fp32.
    assert difference(change(tensors, base.weight, settings=settings), wanted) < 1e-6
    assert difference(change(tensors, base.weight, settings=settings | {COFT_EPS: 0.0}), wanted) > 1e-2


@pytest.mark.parametrize("terms", [2, 3, 4, 5, 7])
def test_the_last_power_counted_twice_before_peft_0_18(terms):
    rng = np.random.default_rng(0)
    base, packed = torch.tensor(rng.normal(size=(5, 4))), torch.tensor(rng.normal(size=(1, 6)) * 0.3)
    skew = skew_of(packed[0].numpy(), 4)
    rotation = np.eye(4) + sum(2 * np.linalg.matrix_power(skew, power) for power in range(1, terms))
    wanted = torch.tensor(base.numpy() @ rotation.T) - base
    settings = {NEUMANN_TERMS: terms, NEUMANN_FULL_TAIL: 1}
    assert difference(change({"oft_R.weight": packed}, base, settings=settings), wanted) < 1e-12


def test_the_exact_transform_is_a_rotation():
    rng = np.random.default_rng(0)
    base, packed = torch.tensor(rng.normal(size=(5, 4))), torch.tensor(rng.normal(size=(1, 6)))
    turned = base + change({"oft_R.weight": packed}, base, settings={NEUMANN_TERMS: 0})
    assert torch.allclose(turned @ turned.T, base @ base.T)


def test_pefts_rotation_of_patches_is_refused_because_no_weight_does_it():
    from peft import OFTConfig

    base = layer("conv3")
    config = OFTConfig(oft_block_size=4, target_modules=["0"])
    made = peft(config, base, torch.randn(1, 12, 6, 6).double())
    assert difference(made.output, made.adapted) > 0.1
    with pytest.raises(ValueError, match="no change of its weight"):
        change(made.tensors, base.weight, settings={NEUMANN_TERMS: 5})


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 5), "must be"), ((3, 6, 1), "must be"), ((3, 0), "holds no values"), ((0, 6), "holds no values")],
)
def test_values_that_make_no_triangle_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        OFT.rank({"oft_R": shape})


@pytest.mark.parametrize(("blocks", "columns"), [(3, 8), (2, 12), (1, 10)])
def test_a_base_of_other_columns_is_refused(blocks, columns):
    base = torch.zeros(5, columns)
    with pytest.raises(ValueError, match=f"its {blocks} blocks of 4 columns do not fit"):
        change({"oft_R.weight": torch.zeros(blocks, 6)}, base)
