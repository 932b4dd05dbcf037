import numpy as np
import pytest
import torch

from lorakit_cli.kinds.diag_oft import DIAG_OFT
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, lycoris, lycoris_modules


def by_hand(blocks, base, constraint=0.0, rescale=None):
    """Rotate block after block by an explicit inverse."""
    blocks, weight = blocks.numpy(), base.numpy().reshape(base.shape[0], -1)
    skew = np.stack([block - block.T for block in blocks])
    norm = np.sqrt((skew**2).sum()) + 1e-8
    if constraint > 0 and norm > constraint:
        skew = skew * constraint / norm
    size = skew.shape[-1]
    rows = []
    for place, matrix in enumerate(skew):
        rotation = (np.eye(size) + matrix) @ np.linalg.inv(np.eye(size) - matrix)
        rows.append(rotation.T @ weight[place * size : (place + 1) * size])
    turned = np.concatenate(rows).reshape(base.shape)
    return torch.tensor(turned if rescale is None else turned * rescale.numpy()) - base


@pytest.mark.parametrize("alpha", [None, 0.0, 0.01, 100.0])
@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("shape", [(8, 5), (8, 5, 3, 3)])
def test_every_block_of_rows_is_rotated(shape, rescaled, alpha):
    rng = np.random.default_rng(0)
    base = torch.tensor(rng.normal(size=shape))
    tensors = {"oft_blocks": torch.tensor(rng.normal(size=(2, 4, 4)))}
    if rescaled:
        tensors["rescale"] = torch.tensor(rng.uniform(0.5, 2, size=(8, *[1] * (len(shape) - 1))))
    if alpha is not None:
        tensors["alpha"] = torch.tensor(alpha)
    wanted = by_hand(tensors["oft_blocks"], base, (alpha or 0.0) * 8, tensors.get("rescale"))
    assert kinds_of(tensors) == [DIAG_OFT]
    # An fp32 alpha of 0.01 is not 0.01.
    assert difference(change(tensors, base), wanted) < (1e-12 if alpha != 0.01 else 1e-7)
    assert difference(change(tensors, base, dtype=torch.float32), wanted) < 1e-6


def test_a_rotation_keeps_every_length_and_angle():
    rng = np.random.default_rng(0)
    base = torch.tensor(rng.normal(size=(8, 5)))
    changed = base + change({"oft_blocks": torch.tensor(rng.normal(size=(2, 4, 4)))}, base)
    for block in (slice(0, 4), slice(4, 8)):
        assert torch.allclose(changed[block].T @ changed[block], base[block].T @ base[block])


def test_a_small_rotation_keeps_its_digits():
    rng = np.random.default_rng(0)
    base, blocks = torch.tensor(rng.normal(size=(8, 5))), torch.tensor(rng.normal(size=(2, 4, 4)) * 1e-6)
    found = change({"oft_blocks": blocks}, base, dtype=torch.float32)
    assert difference(found, change({"oft_blocks": blocks}, base)) < 1e-6


@pytest.mark.parametrize("name", ["linear", "conv1", "conv3", "line", "cube"])
@pytest.mark.parametrize(("constraint", "rescaled"), [(0.0, False), (0.0, True), (0.01, True)])
def test_lycoris_agrees(name, constraint, rescaled):
    diag_oft = lycoris_modules("diag_oft")
    base = layer(name, torch.float32)
    module = lycoris(diag_oft.DiagOFTModule, base, lora_dim=2, constraint=constraint, rescaled=rescaled)
    tensors = {suffix: tensor.detach() for suffix, tensor in module.state_dict().items()}
    assert [kind.name for kind in kinds_of(tensors)] == ["diag-oft"]
    wanted = module.get_merged_weight(shape=base.weight.shape)[0] - base.weight
    # LyCORIS inverts in fp32.
    assert difference(change(tensors, base.weight), wanted) < 2e-6


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"oft_blocks": (2, 4, 3)}, "rotations are square"),
        ({"oft_blocks": (0, 4, 4)}, "holds no values"),
        ({"oft_blocks": (2, 4, 4), "rescale": (4, 1)}, r"have 8 rows"),
        ({"oft_blocks": (2, 4, 4), "rescale": (8, 2)}, r"have 8 rows"),
        ({"oft_blocks": (2, 4, 4), "rescale": ()}, r"have 8 rows"),
    ],
)
def test_blocks_that_make_no_rotation_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        DIAG_OFT.rank(shapes)


def test_a_base_of_other_rows_is_refused():
    with pytest.raises(ValueError, match=r"have 8 rows, the weight is \[4, 10\]"):
        change({"oft_blocks": torch.zeros(2, 4, 4)}, torch.zeros(4, 10))
