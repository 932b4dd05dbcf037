import pytest
import torch

from lorakit_cli.kinds.lora import LORA
from lorakit_cli.kinds.lora_bias import LORA_BIAS
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, peft


@pytest.mark.parametrize("name", ["linear", "conv3"])
def test_peft_agrees(name):
    from peft import LoraConfig

    base = layer(name)
    inputs = torch.randn(2, 12) if name == "linear" else torch.randn(1, 12, 6, 6)
    made = peft(LoraConfig(r=4, lora_alpha=3, target_modules=["0"], lora_bias=True), base, inputs.double())
    assert kinds_of(made.tensors) == [LORA, LORA_BIAS]
    assert LORA_BIAS.parameter == "bias"
    assert LORA_BIAS.shares_scale
    # The scale is that of the pair it stands beside: 3 / 4.
    factors = {"up_bias": made.tensors["lora_B.bias"]}
    found = LORA_BIAS.delta(factors, 0.75, None, {})
    assert difference(found, made.merged.bias - base.bias) < 1e-12


def test_it_is_as_long_as_the_bias():
    assert LORA_BIAS.delta_shape({"up_bias": (16,)}) == (16,)
    assert change({"lora_B.bias": torch.ones(3)}, torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="which is no bias"):
        LORA_BIAS.rank({"up_bias": (16, 1)})
