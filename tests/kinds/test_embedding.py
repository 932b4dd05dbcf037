import pytest
import torch
from torch import nn

from lorakit_cli.kinds.embedding import EMBEDDING
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import peft


def test_a_token_gets_its_column_of_the_product():
    tensors = {
        "lora_embedding_A": torch.tensor([[1.0, 2.0, 3.0]]),
        "lora_embedding_B": torch.tensor([[10.0], [20.0]]),
        "alpha": torch.tensor(2.0),
    }
    assert kinds_of(tensors) == [EMBEDDING]
    assert change(tensors, torch.zeros(3, 2)).tolist() == [[20.0, 40.0], [40.0, 80.0], [60.0, 120.0]]


def test_peft_agrees():
    from peft import LoraConfig

    torch.manual_seed(0)
    base = nn.Embedding(7, 5).double()
    made = peft(LoraConfig(r=4, lora_alpha=3, target_modules=["0"]), base, torch.arange(7))
    tensors = {suffix: made.tensors[suffix] for suffix in ("lora_embedding_A", "lora_embedding_B")}
    tensors |= {"alpha": torch.tensor(3.0)}
    wanted = made.merged.weight - base.weight
    assert difference(change(tensors, base.weight), wanted) < 1e-12
    assert difference(change(tensors, base.weight, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize(
    ("down", "up", "message"),
    [
        ((4, 7), (5, 3), "its ranks differ"),
        ((4, 7, 1), (5, 4), "no embedding pair"),
        ((0, 7), (5, 0), "holds no values"),
    ],
)
def test_factors_that_make_no_change_are_refused(down, up, message):
    with pytest.raises(ValueError, match=message):
        EMBEDDING.rank({"embedding_down": down, "embedding_up": up})
