import math

import numpy as np
import pytest
import torch

from lorakit_cli.kinds.dora import DORA, DORA_LOKR, is_by_row
from tests.kinds.apply import change, difference, kinds_of
from tests.kinds.trainers import layer, lycoris, lycoris_modules, peft


def pair(rows, columns, kernel=()):
    rng = np.random.default_rng(0)
    down = torch.tensor(rng.normal(size=(2, columns, *kernel)))
    up = torch.tensor(rng.normal(size=(rows, 2, *[1] * len(kernel))))
    return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(3.0)}


def weight(*shape):
    return torch.tensor(np.random.default_rng(1).normal(size=shape))


def moved(tensors, base):
    """Give `W + scale * delta` of a pair of rank 2 and alpha 3, as an array."""
    down, up = tensors["lora_down.weight"].numpy(), tensors["lora_up.weight"].numpy()
    return base.numpy() + 1.5 * np.einsum("or,ri...->oi...", up.reshape(up.shape[:2]), down)


@pytest.mark.parametrize("kernel", [(), (3, 3)])
@pytest.mark.parametrize("suffix", ["dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight", "magnitude"])
def test_every_row_gets_its_magnitude(kernel, suffix):
    tensors, base = pair(4, 5, kernel), weight(4, 5, *kernel)
    direction = moved(tensors, base)
    lengths = [2.0, 0.5, 1.0, 3.0]
    wanted = np.stack([lengths[row] * direction[row] / math.sqrt((direction[row] ** 2).sum()) for row in range(4)])
    wanted = torch.tensor(wanted) - base
    for shape in [(4,), (4, *[1] * (1 + len(kernel))), *([(1, 4, 1, 1)] if kernel else [])]:
        found = change(tensors | {suffix: torch.tensor(lengths).reshape(shape)}, base)
        assert difference(found, wanted) < 1e-12
        single = change(tensors | {suffix: torch.tensor(lengths).reshape(shape)}, base, dtype=torch.float32)
        assert difference(single, wanted) < 1e-6


@pytest.mark.parametrize("kernel", [(), (3, 3)])
@pytest.mark.parametrize("rows", [4, 5])
def test_every_column_gets_its_magnitude(kernel, rows):
    tensors, base = pair(rows, 5, kernel), weight(rows, 5, *kernel)
    direction = moved(tensors, base)
    lengths = [2.0, 0.5, 1.0, 3.0, 1.5]
    columns = [lengths[c] * direction[:, c] / math.sqrt((direction[:, c] ** 2).sum()) for c in range(5)]
    wanted = torch.tensor(np.stack(columns, 1)) - base
    tensors["dora_scale"] = torch.tensor(lengths).reshape(1, 5, *[1] * len(kernel))
    assert kinds_of(tensors) == [DORA]
    assert difference(change(tensors, base), wanted) < 1e-12
    assert difference(change(tensors, base, dtype=torch.float32), wanted) < 1e-6


def test_a_square_convolution_is_by_column_for_lycoris_and_by_row_for_peft():
    shape = (1, 8, 1, 1)
    assert not is_by_row("magnitude", shape, 8, 8)
    assert is_by_row("row_magnitude", shape, 8, 8)
    assert is_by_row("magnitude", (8, 1), 8, 8)
    assert is_by_row("magnitude", (8,), 8, 8)


def test_what_has_no_length_stays_zero():
    tensors = {"lora_down.weight": torch.zeros(2, 3), "lora_up.weight": torch.zeros(4, 2)}
    base = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
    by_row = base + change(tensors | {"dora_scale": torch.full((4, 1), 10.0)}, base)
    assert by_row.tolist() == [[6.0, 0.0, 8.0], [0.0, 0.0, 0.0], [0.0, 0.0, 10.0], [0.0, 0.0, 10.0]]
    by_column = base + change(tensors | {"dora_scale": torch.full((1, 3), 10.0)}, base)
    assert by_column[:, :2].tolist() == [[10.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_the_magnitude_the_base_has_changes_nothing():
    base = weight(4, 5)
    tensors = pair(4, 5) | {"lora_up.weight": torch.zeros(4, 2), "dora_scale": base.norm(dim=1, keepdim=True)}
    assert change(tensors, base).abs().max() < 1e-15


WITH_KERNEL = ("conv3", "square_conv", "cube")
EVERY_LAYER = ("linear", "square", "conv1", *WITH_KERNEL)


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize(
    ("kind", "module", "factory", "name"),
    [
        *(("dora", "locon", "LoConModule", name) for name in EVERY_LAYER),
        *(("dora-tucker", "locon", "LoConModule", name) for name in WITH_KERNEL),
        *(("dora-loha", "loha", "LohaModule", name) for name in EVERY_LAYER),
        *(("dora-loha-tucker", "loha", "LohaModule", name) for name in WITH_KERNEL),
        *(("dora-lokr", "lokr", "LokrModule", name) for name in EVERY_LAYER),
    ],
)
def test_lycoris_agrees(kind, module, factory, name, by_row):
    base = layer(name)
    # LoHa and LoKr scale twice when they merge: only a scale of 1 tells the same.
    made = lycoris(
        getattr(lycoris_modules(module), factory),
        base,
        lora_dim=2,
        alpha=3 if module == "locon" else 2,
        use_tucker=kind.endswith("tucker"),
        weight_decompose=True,
        wd_on_out=by_row,
    )
    assert [known.name for known in kinds_of(made.state_dict())] == [kind]
    wanted = made.get_merged_weight(shape=base.weight.shape)[0] - base.weight
    assert difference(change(made.state_dict(), base.weight), wanted) < 1e-12
    assert difference(change(made.state_dict(), base.weight, dtype=torch.float32), wanted) < 1e-6


@pytest.mark.parametrize("name", ["linear", "square", "conv1", "conv3", "square_conv"])
def test_peft_agrees(name):
    from peft import LoraConfig

    base = layer(name)
    inputs = (
        torch.randn(2, base.in_features) if name in ("linear", "square") else torch.randn(1, base.in_channels, 6, 6)
    )
    made = peft(LoraConfig(r=4, lora_alpha=3, target_modules=["0"], use_dora=True), base, inputs.double())
    tensors = made.tensors | {"alpha": torch.tensor(3.0)}
    assert [known.name for known in kinds_of(tensors)] == ["dora"]
    wanted = made.merged.weight - base.weight
    assert difference(change(tensors, base.weight), wanted) < 1e-12
    assert difference(change(tensors, base.weight, dtype=torch.float32), wanted) < 1e-6
    assert difference(made.output, made.adapted) < 1e-12


def test_a_flattened_convolution_has_columns_of_its_own():
    shapes = {"lokr_w1": (2, 2), "lokr_w2_a": (4, 1), "lokr_w2_b": (1, 27)}
    assert DORA_LOKR.rank(shapes | {"magnitude": (1, 6, 1, 1)}) == 1
    assert DORA_LOKR.rank(shapes | {"magnitude": (8, 1, 1, 1)}) == 1
    with pytest.raises(ValueError, match="its magnitude is"):
        DORA_LOKR.rank(shapes | {"magnitude": (1, 7, 1, 1)})


def test_pefts_values_under_the_name_of_lycoris_are_by_row_where_they_are_no_columns():
    assert DORA.rank({"down": (2, 6, 3, 3), "up": (4, 2, 1, 1), "magnitude": (1, 4, 1, 1)}) == 2
    assert is_by_row("magnitude", (1, 4, 1, 1), 4, 6)


@pytest.mark.parametrize("magnitude", [(5,), (5, 1), (1, 5), (2, 3), (4, 6), (6, 1, 1, 1), (0,), ()])
@pytest.mark.parametrize("role", ["magnitude", "row_magnitude"])
def test_a_magnitude_of_neither_side_is_refused(role, magnitude):
    with pytest.raises(ValueError, match="its magnitude is"):
        DORA.rank({"down": (2, 6), "up": (4, 2), role: magnitude})


def test_a_magnitude_of_a_divisor_of_the_columns_is_refused_for_a_plain_layer():
    with pytest.raises(ValueError, match="4 rows and 6 columns"):
        change(pair(4, 6) | {"dora_scale": torch.ones(1, 3)}, weight(4, 6))
