import pytest
import torch
from torch.nn import functional

from lorakit_cli.kinds import KINDS
from lorakit_cli.kinds.lora import LORA


def test_a_literal_product():
    factors = {"down": torch.tensor([[1.0, 2.0, 3.0]]), "up": torch.tensor([[10.0], [20.0]])}
    assert LORA.delta(factors).tolist() == [[10.0, 20.0, 30.0], [20.0, 40.0, 60.0]]


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_is_the_two_convolutions_it_stands_for(kernel):
    generator = torch.Generator().manual_seed(1)
    down = torch.randn(4, 5, kernel, kernel, generator=generator, dtype=torch.float64)
    up = torch.randn(6, 4, 1, 1, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 5, 8, 8, generator=generator, dtype=torch.float64)
    delta = LORA.delta({"down": down, "up": up})
    assert tuple(delta.shape) == LORA.delta_shape({"down": tuple(down.shape), "up": tuple(up.shape)})
    assert torch.allclose(functional.conv2d(x, delta), functional.conv2d(functional.conv2d(x, down), up))


def test_the_registry_names_each_algorithm_once():
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)
    for kind in KINDS:
        assert kind.required <= set(kind.suffixes.values())
