import pytest
import torch
from torch import nn

from lorakit_cli.kinds.difference import BIAS, FULL, NORM, NORM_BIAS
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, lycoris, lycoris_modules


@pytest.mark.parametrize("kind", [FULL, BIAS, NORM, NORM_BIAS], ids=lambda kind: kind.name)
def test_a_difference_is_added_as_it_is_whatever_the_alpha(kind):
    (suffix,) = kind.suffixes
    tensors = {suffix: torch.tensor([1.0, -2.0]), "alpha": torch.tensor(8.0)}
    assert kinds_of(tensors) == [kind]
    assert change(tensors, torch.zeros(2)).tolist() == [1.0, -2.0]


def test_each_goes_to_its_parameter():
    assert [kind.parameter for kind in (FULL, BIAS, NORM, NORM_BIAS)] == ["weight", "bias", "weight", "bias"]


@pytest.mark.parametrize("name", ["linear", "conv3"])
def test_lycoris_agrees_on_full(name):
    base = layer(name)
    module = lycoris(lycoris_modules("full").FullModule, base)
    # What it saves is the difference between its parameters and the weights they began as.
    with torch.no_grad():
        module.weight.add_(base.weight)
        module.bias.add_(base.bias)
    module.is_diff = False
    tensors, (weight, bias) = module.state_dict(), module.get_merged_weight()
    assert kinds_of(tensors) == [FULL, BIAS]
    assert difference(change(tensors, base.weight), weight - base.weight) < 1e-12
    assert difference(change(tensors, base.bias, kind=BIAS), bias - base.bias) < 1e-12


@pytest.mark.parametrize("base", [nn.LayerNorm(6), nn.GroupNorm(2, 6)])
def test_lycoris_agrees_on_norms(base):
    base = base.double()
    module = lycoris(lycoris_modules("norms").NormModule, base)
    tensors, (weight, bias) = module.state_dict(), module.get_merged_weight()
    assert kinds_of(tensors) == [NORM, NORM_BIAS]
    assert difference(change(tensors, base.weight), weight - base.weight) < 1e-12
    assert difference(change(tensors, base.bias, kind=NORM_BIAS), bias - base.bias) < 1e-12


def test_an_empty_difference_is_refused():
    with pytest.raises(ValueError, match="holds no values"):
        FULL.rank({"diff": (0, 3)})
