import itertools

import numpy as np
import pytest
import torch

from lorakit_cli.kinds.glora import GLORA, GLORA_OLD
from tests.kinds.apply import change, difference, kinds_of, shapes_of
from tests.kinds.trainers import layer, lycoris, lycoris_modules

NEW = {"a1.weight": (6, 2), "a2.weight": (2, 6), "b1.weight": (5, 2), "b2.weight": (2, 6)}
OLD = {"a1.weight": (2, 6), "a2.weight": (6, 2), "b1.weight": (2, 6), "b2.weight": (5, 2)}


def numbers(shapes):
    rng = np.random.default_rng(0)
    return {suffix: torch.tensor(rng.normal(size=shape)) for suffix, shape in shapes.items()}


def test_lycoris_layout_adds_a_product_and_the_weight_through_another():
    tensors = numbers(NEW)
    base = torch.tensor(np.random.default_rng(1).normal(size=(5, 6)))
    a1, a2, b1, b2, weight = (tensor.numpy() for tensor in (*tensors.values(), base))
    wanted = np.zeros((5, 6))
    for row, column, rank in itertools.product(range(5), range(6), range(2)):
        through = sum(weight[row, inner] * a1[inner, rank] for inner in range(6))
        wanted[row, column] += 1.5 * (through * a2[rank, column] + b1[row, rank] * b2[rank, column])
    tensors["alpha"] = torch.tensor(3.0)
    assert kinds_of(tensors) == [GLORA]
    assert difference(change(tensors, base), torch.tensor(wanted)) < 1e-12
    assert difference(change(tensors, base, dtype=torch.float32), torch.tensor(wanted)) < 1e-6


def test_the_older_layout_has_every_factor_the_other_way_round():
    tensors = numbers(OLD)
    base = torch.tensor(np.random.default_rng(1).normal(size=(5, 6)))
    a1, a2, b1, b2 = (tensor.numpy() for tensor in tensors.values())
    wanted = torch.tensor(1.5 * (b2 @ b1 + (base.numpy() @ a2) @ a1))
    tensors["alpha"] = torch.tensor(3.0)
    assert kinds_of(tensors) == [GLORA_OLD]
    assert difference(change(tensors, base), wanted) < 1e-12
    assert difference(change(tensors, base, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize("name", ["linear", "square", "conv1", "conv3", "square_conv", "line", "cube"])
def test_lycoris_agrees(name):
    glora = lycoris_modules("glora")
    base = layer(name)
    module = lycoris(glora.GLoRAModule, base, lora_dim=3, alpha=2)
    wanted = module.get_diff_weight()[0]
    assert [kind.name for kind in kinds_of(module.state_dict())] == ["glora"]
    assert difference(change(module.state_dict(), base.weight), wanted) < 1e-12
    assert difference(change(module.state_dict(), base.weight, dtype=torch.float32), wanted) < 1e-6


def test_a_square_layer_is_known_by_its_rank_being_the_smaller_side():
    square = {"a1.weight": (6, 2), "a2.weight": (2, 6), "b1.weight": (6, 2), "b2.weight": (2, 6)}
    assert kinds_of(numbers(square)) == [GLORA]
    turned = {suffix: shape[::-1] for suffix, shape in square.items()}
    assert kinds_of(numbers(turned)) == [GLORA_OLD]
    assert GLORA.delta_shape(shapes_of(numbers(square))) == GLORA_OLD.delta_shape(shapes_of(numbers(turned))) == (6, 6)


@pytest.mark.parametrize("kind", [GLORA, GLORA_OLD])
def test_factors_that_could_be_of_both_layouts_are_refused(kind):
    with pytest.raises(ValueError, match="ambiguous"):
        kind.rank(dict.fromkeys(("a1", "a2", "b1", "b2"), (6, 6)))


def test_a_rank_of_the_number_of_columns_is_clear_where_the_layer_is_not_square():
    tensors = numbers(NEW | {"a1.weight": (2, 2), "a2.weight": (2, 2), "b2.weight": (2, 2)})
    assert kinds_of(tensors) == [GLORA]
    assert GLORA.rank(shapes_of(tensors)) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"b1": (5, 3)}, "its ranks differ"),
        ({"b2": (2, 7)}, "different numbers of columns"),
        ({"a1": (6, 2, 3, 3)}, "no matrix"),
        ({"a1": (6,)}, "no matrix"),
        ({"b1": (0, 2)}, "holds no values"),
    ],
)
def test_factors_that_make_no_change_are_refused(changed, message):
    shapes = {"a1": (6, 2), "a2": (2, 6), "b1": (5, 2), "b2": (2, 6)} | changed
    assert not GLORA_OLD.when(shapes)
    with pytest.raises(ValueError, match=message):
        GLORA.rank(shapes)


def test_a_base_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"its factors are for \[5, 6\], the weight is \[6, 5\]"):
        change(numbers(NEW), torch.zeros(6, 5))
