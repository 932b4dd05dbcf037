import pytest
import torch

from lorakit_cli.kinds.ia3 import IA3, IA3_PEFT
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, lycoris, lycoris_modules, peft


@pytest.mark.parametrize("name", ["linear", "square", "conv1", "conv3", "square_conv", "line", "cube"])
@pytest.mark.parametrize("on_input", [False, True])
def test_lycoris_agrees(name, on_input):
    ia3 = lycoris_modules("ia3")
    base = layer(name)
    module = lycoris(ia3.IA3Module, base, train_on_input=on_input)
    tensors = module.state_dict()
    assert kinds_of(tensors) == [IA3]
    wanted = module.get_merged_weight()[0] - base.weight
    assert difference(change(tensors, base.weight), wanted) < 1e-12
    assert difference(change(tensors, base.weight, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize("on_input", [0, 1])
def test_rows_or_columns_of_a_square_are_a_matter_of_the_flag(on_input):
    base = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    tensors = {"weight": torch.tensor([10.0, 100.0]), "on_input": torch.tensor(on_input)}
    wanted = [[10.0, 200.0], [30.0, 400.0]] if on_input else [[10.0, 20.0], [300.0, 400.0]]
    assert change(tensors, base).tolist() == wanted


@pytest.mark.parametrize("name", ["linear", "square", "conv1", "conv3"])
@pytest.mark.parametrize("feedforward", [False, True])
def test_peft_agrees_on_the_weight_and_on_the_bias(name, feedforward):
    from peft import IA3Config

    base = layer(name)
    inputs = torch.randn(2, base.in_features) if name in ("linear", "square") else torch.randn(1, 12, 6, 6)
    config = IA3Config(target_modules=["0"], feedforward_modules=["0"] if feedforward else [])
    made = peft(config, base, inputs.double())
    assert kinds_of(made.tensors) == [IA3_PEFT]
    wanted = made.merged.weight - base.weight
    assert difference(change(made.tensors, base.weight), wanted) < 1e-12
    assert difference(change(made.tensors, base.weight, dtype=torch.float32), wanted) < 1e-6
    (bias,) = IA3_PEFT.beside
    assert bias.parameter == "bias"
    found = change(made.tensors, base.bias, kind=bias)
    if feedforward:
        assert not found.any()
        assert torch.equal(made.merged.bias, base.bias)
    else:
        assert difference(found, made.merged.bias - base.bias) < 1e-12
    assert difference(made.output, made.adapted) < 1e-12


def test_rows_or_columns_of_a_square_convolution_are_unknown_and_refused():
    from peft import IA3Config

    base = layer("square_conv")
    made = peft(IA3Config(target_modules=["0"], feedforward_modules=[]), base, torch.randn(1, 16, 6, 6).double())
    with pytest.raises(ValueError, match="ambiguous"):
        change(made.tensors, base.weight)


@pytest.mark.parametrize("shape", [(4, 1), (1, 6)])
def test_numbers_for_the_other_side_are_refused(shape):
    with pytest.raises(ValueError, match="wrong for"):
        change({"ia3_l": torch.ones(shape)}, torch.zeros(6, 4), kind=IA3_PEFT)
    with pytest.raises(ValueError, match="fits neither side"):
        change({"weight": torch.ones(5), "on_input": torch.tensor(0)}, torch.zeros(6, 4))


@pytest.mark.parametrize(
    ("kind", "shapes", "message"),
    [
        (IA3, {"ia3_weight": (4, 5), "on_input": ()}, "no list of numbers"),
        (IA3, {"ia3_weight": (), "on_input": ()}, "no list of numbers"),
        (IA3, {"ia3_weight": (0,), "on_input": ()}, "holds no values"),
        (IA3, {"ia3_weight": (4,), "on_input": (2,)}, "must be one value"),
        (IA3_PEFT, {"ia3_l": (4, 5)}, "no list of numbers"),
        (IA3_PEFT, {"ia3_l": (4,)}, "does not say rows or columns"),
    ],
)
def test_tensors_that_are_no_numbers_for_one_side_are_refused(kind, shapes, message):
    with pytest.raises(ValueError, match=message):
        kind.rank(shapes)
