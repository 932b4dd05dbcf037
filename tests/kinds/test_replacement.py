import pytest
import torch

from lorakit_cli.kinds.lora import LORA
from lorakit_cli.kinds.replacement import REPLACEMENT
from tests.kinds.apply import change, kinds_of


@pytest.mark.parametrize("suffix", ["set_weight", "scale"])
def test_a_value_takes_the_place_of_the_bases(suffix):
    tensors = {suffix: torch.tensor([1.0, -2.0, 0.25])}
    base = torch.tensor([0.5, 8.0, 0.25])
    assert kinds_of(tensors) == [REPLACEMENT]
    assert (base + change(tensors, base)).tolist() == [1.0, -2.0, 0.25]


def test_a_scalar_scale_is_not_taken_for_a_value():
    tensors = {"lora_down.weight": torch.ones(2, 3), "lora_up.weight": torch.ones(4, 2)}
    assert kinds_of(tensors) == [LORA]
    for scale in (torch.tensor(0.5), torch.ones(1)):
        with pytest.raises(StopIteration):
            kinds_of(tensors | {"scale": scale})


def test_an_empty_value_is_refused():
    with pytest.raises(ValueError, match="holds no values"):
        REPLACEMENT.rank({"value": (0,)})
