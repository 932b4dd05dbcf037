import copy

import numpy as np
import pytest
import torch
from torch import nn

from lorakit_cli.kinds.boft import BOFT
from lorakit_cli.kinds.boft_peft import BOFT_PEFT
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, lycoris, lycoris_modules, randomise


def rotation(matrix):
    identity = np.eye(len(matrix))
    return (identity + matrix) @ np.linalg.inv(identity - matrix)


def by_hand(blocks, base, rescale=None):
    """Rotate rows one stage after another; which rows make a block is listed one by one."""
    weight = base.numpy().reshape(base.shape[0], -1).copy()
    stages, count, size, _ = blocks.shape
    for stage in range(stages):
        apart = 2**stage * (size // 2)
        order = [
            group * 2 * apart + side * apart + place
            for group in range(len(weight) // (2 * apart))
            for place in range(apart)
            for side in range(2)
        ]
        for block in range(count):
            rows = order[block * size : (block + 1) * size]
            values = blocks[stage, block].numpy()
            weight[rows] = rotation(values - values.T) @ weight[rows]
    turned = torch.tensor(weight).reshape(base.shape)
    return (turned if rescale is None else turned * rescale) - base


@pytest.mark.parametrize("shape", [(16, 5), (16, 5, 3, 3)])
@pytest.mark.parametrize("blocks", [(1, 4, 4, 4), (2, 4, 4, 4), (3, 4, 4, 4), (4, 8, 2, 2)])
def test_rows_are_rotated_stage_by_stage(shape, blocks):
    rng = np.random.default_rng(0)
    base = torch.tensor(rng.normal(size=shape))
    tensors = {"oft_blocks": torch.tensor(rng.normal(size=blocks))}
    wanted = by_hand(tensors["oft_blocks"], base)
    assert kinds_of(tensors) == [BOFT]
    assert difference(change(tensors, base), wanted) < 1e-12
    assert difference(change(tensors, base, dtype=torch.float32), wanted) < 1e-6
    tensors["rescale"] = torch.tensor(rng.uniform(0.5, 2, size=(16, *[1] * (len(shape) - 1))))
    wanted = by_hand(tensors["oft_blocks"], base, tensors["rescale"])
    assert difference(change(tensors, base), wanted) < 1e-12


@pytest.mark.parametrize("name", ["linear", "conv1", "conv3", "line"])
@pytest.mark.parametrize(("constraint", "rescaled"), [(0.0, False), (0.0, True), (0.01, True)])
@pytest.mark.parametrize("factor", [2, 4])
def test_lycoris_agrees(name, constraint, rescaled, factor):
    boft = lycoris_modules("boft")
    base = layer(name, torch.float32)
    module = lycoris(boft.ButterflyOFTModule, base, lora_dim=factor, constraint=constraint, rescaled=rescaled)
    tensors = {suffix: tensor.detach() for suffix, tensor in module.state_dict().items()}
    assert [kind.name for kind in kinds_of(tensors)] == ["boft"]
    assert len(tensors["oft_blocks"]) > 1
    wanted = module.get_merged_weight(shape=base.weight.shape)[0] - base.weight
    # LyCORIS inverts in fp32.
    assert difference(change(tensors, base.weight), wanted) < 5e-6


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"oft_blocks": (2, 4, 4, 3)}, "rotations are square"),
        ({"oft_blocks": (2, 4, 3, 3)}, "no butterfly"),
        ({"oft_blocks": (4, 4, 4, 4)}, "no butterfly"),
        ({"oft_blocks": (0, 4, 4, 4)}, "holds no values"),
    ],
)
def test_blocks_that_make_no_butterfly_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        BOFT.rank(shapes)


@pytest.fixture
def butterflies(monkeypatch):
    """Let PEFT use more than one stage without a GPU: its CUDA extension only lays blocks along a diagonal."""
    from peft.tuners.boft import layer as boft_layer

    class Diagonal:
        @staticmethod
        def apply(blocks):
            return torch.stack([torch.block_diag(*stage) for stage in blocks])

    monkeypatch.setattr(boft_layer, "get_fbd_cuda", lambda: True)
    monkeypatch.setattr(boft_layer, "FastBlockDiag", Diagonal)


@pytest.mark.parametrize(
    ("name", "size", "stages"),
    [
        ("linear", 4, 1),
        ("linear", 3, 1),
        ("linear", 6, 2),
        ("square", 8, 2),
        ("square", 4, 3),
        ("square", 2, 4),
        ("conv1", 2, 2),
        ("conv3", 3, 1),
        ("conv3", 6, 2),
        ("square_conv", 4, 3),
    ],
)
@pytest.mark.usefixtures("butterflies")
def test_peft_agrees(name, size, stages):
    from peft import BOFTConfig, get_peft_model, get_peft_model_state_dict

    base = layer(name)
    config = BOFTConfig(boft_block_size=size, boft_n_butterfly_factor=stages, target_modules=["0"], init_weights=False)
    model = get_peft_model(nn.Sequential(copy.deepcopy(base)), config)
    randomise(nn.ParameterList(p for n, p in model.named_parameters() if "boft_R" in n))
    saved = get_peft_model_state_dict(model)
    tensors = {key.removeprefix("base_model.model.0."): value.clone() for key, value in saved.items()}
    assert kinds_of(tensors) == [BOFT_PEFT]
    assert len(tensors["boft_R"]) == stages
    wanted = model.merge_and_unload()[0].weight - base.weight
    # PEFT's identity and permutations are fp32, its solver is not.
    assert difference(change(tensors, base.weight), wanted) < 1e-12
    assert difference(change(tensors, base.weight, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 4, 4), "must be"), ((2, 4, 3, 3), "no butterfly"), ((3, 2, 4, 4), "no butterfly"), ((1, 0, 4, 4), "no val")],
)
def test_peft_blocks_that_make_no_butterfly_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        BOFT_PEFT.rank({"boft_R": shape})


def test_peft_blocks_for_another_width_are_refused():
    with pytest.raises(ValueError, match=r"are for 8 columns, not for \[8, 4\]"):
        change({"boft_R": torch.zeros(1, 2, 4, 4)}, torch.zeros(8, 4))
