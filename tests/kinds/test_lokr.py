import itertools

import numpy as np
import pytest
import torch

from lorakit_cli.kinds.lokr import LOKR
from tests.kinds.apply import change, difference, kinds_of, shapes_of
from tests.kinds.trainers import layer, lycoris, lycoris_modules, peft

FIRST = {"whole": {"lokr_w1": (2, 3)}, "product": {"lokr_w1_a": (2, 2), "lokr_w1_b": (2, 3)}}
SECOND = {
    "whole": {"lokr_w2": (4, 5, 2, 3)},
    "product": {"lokr_w2_a": (4, 2), "lokr_w2_b": (2, 30)},
    "tucker": {"lokr_w2_a": (2, 4), "lokr_w2_b": (2, 5), "lokr_t2": (2, 2, 2, 3)},
}
COMBINATIONS = list(itertools.product(FIRST, SECOND))


def by_hand(tensors, scale):
    """Give every value of the Kronecker product, from parts built by other means than the program's."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    first = arrays["lokr_w1"] if "lokr_w1" in arrays else np.einsum("ar,rb", arrays["lokr_w1_a"], arrays["lokr_w1_b"])
    if "lokr_t2" in arrays:
        spelled = "ijkl,ip,jr->prkl"
        second = np.einsum(spelled, arrays["lokr_t2"], arrays["lokr_w2_a"], arrays["lokr_w2_b"])
    elif "lokr_w2" in arrays:
        second = arrays["lokr_w2"]
    else:
        second = np.einsum("ar,rb", arrays["lokr_w2_a"], arrays["lokr_w2_b"]).reshape(4, 5, 2, 3)
    wanted = np.zeros((8, 15, 2, 3))
    for row, column in itertools.product(range(8), range(15)):
        wanted[row, column] = scale * first[row // 4, column // 5] * second[row % 4, column % 5]
    return torch.tensor(wanted)


@pytest.mark.parametrize(("first", "second"), COMBINATIONS)
def test_every_value_is_a_product_of_two(first, second):
    rng = np.random.default_rng(0)
    tensors = {name: torch.tensor(rng.normal(size=shape)) for name, shape in (FIRST[first] | SECOND[second]).items()}
    # What LyCORIS writes where nothing is decomposed: an alpha without meaning.
    alpha, scale = (1e10, 1.0) if first == second == "whole" else (3.0, 1.5)
    wanted = by_hand(tensors, scale)
    tensors["alpha"] = torch.tensor(alpha)
    assert kinds_of(tensors) == [LOKR]
    assert difference(change(tensors, wanted), wanted) < 1e-12
    assert difference(change(tensors, wanted, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize("name", ["linear", "conv1", "conv3", "cube"])
@pytest.mark.parametrize(
    "options",
    [
        {"lora_dim": 100},
        {"lora_dim": 1},
        {"lora_dim": 1, "decompose_both": True},
        {"lora_dim": 1, "use_tucker": True},
        {"lora_dim": 1, "use_tucker": True, "decompose_both": True},
        {"lora_dim": 1, "unbalanced_factorization": True},
        {"lora_dim": 100, "full_matrix": True},
    ],
)
def test_lycoris_agrees(name, options):
    lokr = lycoris_modules("lokr")
    base = layer(name)
    module = lycoris(lokr.LokrModule, base, alpha=0.5, factor=3, **options)
    wanted = module.get_weight(module.shape)
    assert difference(change(module.state_dict(), base.weight), wanted) < 1e-12
    assert difference(change(module.state_dict(), base.weight, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize("name", ["linear", "conv3"])
@pytest.mark.parametrize(("both", "tucker"), [(False, False), (True, False), (False, True)])
def test_peft_agrees(name, both, tucker):
    from peft import LoKrConfig

    base = layer(name)
    inputs = torch.randn(2, 12) if name == "linear" else torch.randn(1, 12, 6, 6)
    config = LoKrConfig(r=1, alpha=3, target_modules=["0"], decompose_both=both, use_effective_conv2d=tucker)
    made = peft(config, base, inputs.double())
    found = change(made.tensors | {"alpha": torch.tensor(3.0)}, base.weight)
    assert difference(found, made.merged.weight - base.weight) < 1e-12


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lokr_w1_a": (2, 3), "lokr_w1_b": (2, 3), "lokr_w2": (4, 5)}, "its ranks differ"),
        (FIRST["product"] | {"lokr_w2_a": (4, 3), "lokr_w2_b": (3, 5)}, "its ranks differ"),
        (FIRST["whole"] | SECOND["tucker"] | {"lokr_t2": (3, 2, 2, 2)}, "must be"),
        (FIRST["whole"] | SECOND["tucker"] | {"lokr_t2": (3, 3, 2, 2)}, "its ranks differ"),
        (FIRST["whole"] | {"lokr_w2": (4,)}, "no matrix"),
        ({"lokr_w1": (2, 3, 3, 3), "lokr_w2": (4, 5)}, "no matrix"),
        (FIRST["whole"] | {"lokr_w2_a": (4, 0), "lokr_w2_b": (0, 5)}, "holds no values"),
    ],
)
def test_factors_that_make_no_change_are_refused(tensors, message):
    with pytest.raises(ValueError, match=message):
        LOKR.rank(tensors)


def test_both_parts_whole_have_no_rank_and_no_scale():
    tensors = {"lokr_w1": torch.ones(2, 3), "lokr_w2": torch.ones(4, 5)}
    shapes = shapes_of(tensors)
    assert LOKR.rank(shapes) == 0
    assert LOKR.scale(7.0, 0, shapes) == 1.0
    assert LOKR.scale(None, 2, shapes) == 1.0
    assert LOKR.scale(7.0, 2, shapes) == 3.5
