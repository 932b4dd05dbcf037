"""What only values show, or dtypes: factors that fit a base's names and shapes and still cannot be added to it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from lorakit_cli.core.fitting import fits
from lorakit_cli.core.kind import ANY
from lorakit_cli.errors import CorruptFileError, LoraFileError
from lorakit_cli.service.reading import open_adapter
from tests.dialects.judging import changes, plan_of
from tests.dialects.models import components, save

STEM = "transformer.transformer_blocks.0.attn.to_q"
PAIR = {"lora_A.weight": torch.ones(2, 16), "lora_B.weight": torch.ones(16, 2)}


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return save(tmp_path_factory.mktemp("flux"), "flux", components("flux"))


def adapter(path, parts):
    save_file({f"{STEM}.{end}": value for end, value in parts.items()}, path)
    return open_adapter(path)


def sparse(place, size):
    return PAIR | {
        "bias_indices": torch.tensor([[place], [0]]),
        "bias_values": torch.ones(1),
        "bias_size": torch.tensor(size),
    }


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e8m0fnu], ids=lambda dtype: str(dtype)
)
def test_factors_that_are_no_floating_numbers_are_refused(tmp_path, dtype):
    with pytest.raises(CorruptFileError, match="no values but quantized ones"):
        adapter(tmp_path / "a.safetensors", {end: value.to(dtype) for end, value in PAIR.items()})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (sparse(20, [16, 16]), "outside a tensor"),
        (sparse(0, [8, 32]), "changes 8 rows, the base has 16"),
        ({"ia3_l": torch.ones(1, 16, 1, 1)}, "ambiguous"),
    ],
    ids=["a place outside", "another shape of as many values", "rows or columns"],
)
def test_what_the_values_contradict_is_an_error_that_names_the_layer(flux, tmp_path, parts, message):
    plan = plan_of(flux, adapter(tmp_path / "a.safetensors", parts))
    with pytest.raises(LoraFileError, match=f"{STEM}.*{message}"):
        changes(plan)


def test_a_rotation_without_dimensions_is_refused(tmp_path):
    with pytest.raises(CorruptFileError, match="its oft_R is"):
        adapter(tmp_path / "a.safetensors", {"oft_R.weight": torch.ones(())})


@pytest.mark.parametrize("settings", [{}, {"r": 4, "rank_pattern": {"to_q": 0}}, {"r": 0.5}, {"r": -4}])
def test_an_alpha_without_a_rank_to_divide_it_by_is_refused(tmp_path, settings):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LOKR", "alpha": 8} | settings))
    with pytest.raises(CorruptFileError, match="no rank"):
        adapter(tmp_path / "adapter_model.safetensors", {f"lokr_w{n}": torch.ones(4, 4) for n in "12"})


@pytest.mark.parametrize(
    ("delta", "base"),
    [
        ((8, 4), (8, 4, 1, 1)),
        ((8, 4, 1, 1), (8, 4)),
        ((8, 36), (8, 4, 3, 3)),
        ((ANY, 4), (8, 4, 1, 1)),
        ((ANY, ANY), (8, 4, 3, 3)),
        ((ANY, ANY, ANY, ANY), (8, 4, 1, 1)),
        ((ANY,), (8,)),
    ],
)
def test_shapes_that_stand_for_each_other(delta, base):
    assert fits(delta, base)


@pytest.mark.parametrize(
    ("delta", "base"), [((8, 4, 3, 3), (8, 36)), ((8,), (8, 1)), ((8, 4), (4, 8)), ((), (1,)), ((8, 4, 3, 1), (8, 12))]
)
def test_shapes_that_do_not(delta, base):
    assert not fits(delta, base)


def test_a_link_to_what_peft_wrote_has_its_settings(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 16}))
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "ink.safetensors"
    direct = adapter(tmp_path / "adapter_model.safetensors", PAIR)
    link.symlink_to(tmp_path / "adapter_model.safetensors")
    assert [layer.scale for file in (direct, open_adapter(link)) for layer in file.layers] == [8.0, 8.0]
