import numpy as np
import pytest
import torch

from lorakit_cli.kinds.adalora import ADALORA
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, peft


def numbers():
    rng = np.random.default_rng(0)
    shapes = {"lora_A": (3, 5), "lora_E": (3, 1), "lora_B": (4, 3)}
    return {suffix: torch.tensor(rng.normal(size=shape)) for suffix, shape in shapes.items()}


@pytest.mark.parametrize(("stored", "divisor"), [(None, 3 + 1e-5), (7.0, 7 + 1e-5)])
def test_every_rank_has_a_singular_value(stored, divisor):
    tensors = numbers()
    wanted = torch.zeros(4, 5, dtype=torch.float64)
    for rank in range(3):
        product = torch.outer(tensors["lora_B"][:, rank], tensors["lora_A"][rank])
        wanted += product * tensors["lora_E"][rank, 0] * 8 / divisor
    tensors |= {"alpha": torch.tensor(8.0)}
    if stored is not None:
        tensors |= {"ranknum": torch.tensor([stored], dtype=torch.float64)}
    assert kinds_of(tensors) == [ADALORA]
    assert difference(change(tensors, wanted), wanted) < 1e-12
    assert difference(change(tensors, wanted, dtype=torch.float32), wanted) < 1e-6


def test_a_missing_alpha_is_the_rank():
    tensors = numbers()
    with_alpha = change(tensors | {"alpha": torch.tensor(3.0)}, torch.zeros(4, 5))
    assert torch.equal(change(tensors, torch.zeros(4, 5)), with_alpha)


@pytest.mark.parametrize("name", ["linear", "conv3"])
def test_peft_agrees(name):
    from peft import AdaLoraConfig

    base = layer(name)
    inputs = torch.randn(2, 12) if name == "linear" else torch.randn(1, 12, 6, 6)
    config = AdaLoraConfig(init_r=4, target_r=2, lora_alpha=3, target_modules=["0"], total_step=10)
    made = peft(config, base, inputs.double())
    tensors = made.tensors | {"alpha": torch.tensor(3.0)}
    assert kinds_of(tensors) == [ADALORA]
    wanted = made.merged.weight - base.weight
    assert difference(change(tensors, base.weight), wanted) < 1e-12
    assert difference(change(tensors, base.weight, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"singular": (4, 1)}, "its ranks differ"),
        ({"singular": (3,)}, r"must be \[rank, 1\]"),
        ({"up": (4, 2)}, "its ranks differ"),
        ({"down": (0, 5), "up": (4, 0), "singular": (0, 1)}, "holds no values"),
    ],
)
def test_factors_that_make_no_change_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        ADALORA.rank({"down": (3, 5), "singular": (3, 1), "up": (4, 3)} | changed)
