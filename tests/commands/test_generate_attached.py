"""Adapters beside the weights: because --attach asks for it, or because the base is quantized. Compared by latents."""

import json
import shutil

import pytest
import torch
from diffusers import FluxTransformer2DModel, QuantoConfig
from safetensors.torch import save_file

from tests.commands.conftest import names
from tests.guides import apart, assert_same, draw
from tests.outputs import refused

SMALL = ("--width", 16, "--height", 16, "--steps", 1, "--seed", 0)
NOTE = "the transformer is quantized (quanto): adapters are attached, not fused"
LAYER = "transformer_blocks.0.attn.to_q"
FOREIGN = {
    "lokr": {"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(16, 16)},
    "loha": {
        f"hada_w{n}_{end}": torch.ones(32, 1).mT if end == "b" else torch.ones(32, 1) for n in "12" for end in "ab"
    },
    "dora": {
        "lora_A.weight": torch.ones(1, 32),
        "lora_B.weight": torch.ones(32, 1),
        "lora_magnitude_vector": torch.ones(32),
    },
}


def test_attached_is_fused_within_rounding(guide, latents):
    scales = json.dumps({"pixel": {guide.denoiser: 0.5}})
    given = ("-l", f"{guide.toy}:0.8", "-l", f"{guide.pixel}:-0.5", "--block-scales", scales)
    assert_same(latents(guide.base, *given, "--attach"), latents(guide.base, *given), guide.bare)


@pytest.fixture(scope="module")
def packed(guides, tmp_path_factory):
    """The base of FLUX with its transformer in whole numbers, as diffusers saves it, and the folder it is in."""
    guide, folder = guides("flux"), tmp_path_factory.mktemp("packed") / "flux"
    shutil.copytree(guide.base, folder)
    config = QuantoConfig(weights_dtype="int8")
    model = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer", quantization_config=config)
    shutil.rmtree(folder / "transformer")
    model.save_pretrained(folder / "transformer")
    return guide, folder


def unpacked(guide, folder):
    """Load what a quantized base stands for: its values as floating numbers."""
    values = guide.pipeline(folder=folder).transformer.state_dict()
    plain = guide.pipeline()
    for name, parameter in plain.transformer.named_parameters():
        parameter.data = floats(values, name)
    return plain


def floats(values, name):
    if name in values:
        return values[name].detach().float()
    return values[f"{name}._data"].float() * values[f"{name}._scale"]


def test_onto_a_quantized_base_adapters_are_attached(packed, latents, lorakit):
    guide, folder = packed
    plain = unpacked(guide, folder)
    bare = draw(plain)
    assert apart(latents(folder), bare) < 2e-5
    # Quantization itself is to be seen.
    assert apart(bare, guide.bare) > 1e-3
    plain.load_lora_weights(guide.folder, weight_name="toy.safetensors", adapter_name="toy")
    plain.set_adapters("toy", 0.7)
    wanted = draw(plain)
    assert_same(latents(folder, "-l", f"{guide.toy}:0.7"), wanted, bare)
    done = lorakit("generate", "-b", folder, *SMALL, "-l", guide.toy, "--json", "-o", "x.png", "x")
    assert json.loads(done.stdout)["attached"] is True
    assert done.stderr.splitlines() == [NOTE]


def test_what_is_attached_to_a_quantized_base_changes_from_picture_to_picture(packed, latents, here):
    guide, folder = packed
    alone = [latents(folder, "-l", f"{one}:0.7", prompt="x") for one in (guide.toy, guide.pixel)]
    (here / "prompts.txt").write_text(f"x <lora:{guide.toy}:0.7>\nx <lora:{guide.pixel}:0.7>\nx\n")
    drawn = latents(folder, "--prompt-file", "prompts.txt", prompt=None)
    # In which order is left to whoever draws.
    for wanted in (*alone, latents(folder, prompt="x")):
        assert sorted(apart(ours, wanted) < 2e-5 for ours in drawn) == [False, False, True]


def test_a_quantized_base_is_planned_inspected_and_not_fused(packed, lorakit, here):
    guide, folder = packed
    expected = json.loads(lorakit("list-adapters", "-b", guide.base, "-l", guide.toy, "--json").stdout)["adapters"]
    assert json.loads(lorakit("list-adapters", "-b", folder, "-l", guide.toy, "--json").stdout)["adapters"] == expected
    dry = lorakit("generate", "-b", folder, "-l", guide.toy, "--dry-run", "x")
    assert (dry.exit_code, dry.stderr.splitlines()) == (0, [NOTE])
    for verb in (
        ("fuse", "-b", folder, "-l", guide.toy),
        ("extract", "-b", guide.base, "--tuned", folder, "--rank", 4),
    ):
        assert "the transformer of" in (message := refused(lorakit(*verb, "-o", "out.safetensors")))
        assert "is quantized (quanto)" in message
    assert names(here) == []


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("quantized", [False, True])
def test_what_peft_cannot_attach_is_named(packed, lorakit, here, kind, quantized):
    guide, folder = packed
    save_file(
        {f"transformer.{LAYER}.{end}": value.contiguous() for end, value in FOREIGN[kind].items()}, "odd.safetensors"
    )
    base = ("-b", folder) if quantized else ("-b", guide.base, "--attach")
    message = refused(lorakit("generate", *base, *SMALL, "-q", "-l", "./odd.safetensors", "-o", "x.png", "x"))
    assert message.startswith(f"odd uses {kind}, which peft cannot attach; ")
    assert ("take the model that it was made from" in message) is quantized
    assert ("leave --attach out" in message) is not quantized
    assert names(here) == ["odd.safetensors"]
