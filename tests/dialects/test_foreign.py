"""Files that are no LoRA, or more than one: each is named for what it is, with what to do."""

import io
import zipfile

import pytest
import torch
from diffusers import ControlNetModel
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor
from peft import VeraConfig, get_peft_model, get_peft_model_state_dict

from lorakit_cli.errors import CorruptFileError, NotALoraError
from lorakit_cli.service.reading import look_at, open_adapter
from tests.checkpoints import DENOISER, open_clip_tensors, prefixed, unet_tensors
from tests.dialects.judging import judge, write
from tests.dialects.layouts import LAYOUTS, adapter
from tests.kinds.trainers import randomise


def refusal(path):
    with pytest.raises(NotALoraError) as refused:
        open_adapter(path)
    return str(refused.value).removeprefix(str(path))


def test_a_control_lora(tmp_path):
    tensors = {
        "lora_controlnet": torch.tensor([]),
        "input_blocks.1.0.in_layers.2.down": torch.randn(4, 16, 3, 3),
        "input_blocks.1.0.in_layers.2.up": torch.randn(16, 4, 1, 1),
        "input_blocks.1.0.in_layers.0.weight": torch.randn(16),
        "input_hint_block.0.weight": torch.randn(16, 3, 3, 3),
        "zero_convs.0.0.weight": torch.randn(16, 16, 1, 1),
    }
    assert "a control-LoRA" in refusal(write(tmp_path / "a.safetensors", tensors))
    assert "loads it as a ControlNet" in refusal(write(tmp_path / "a.safetensors", tensors))


def test_what_diffusers_saves_of_custom_diffusion(tmp_path):
    processor = CustomDiffusionAttnProcessor(hidden_size=8, cross_attention_dim=12)
    stem = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor"
    tensors = {f"{stem}.{name}": value for name, value in processor.state_dict().items()}
    assert any("_custom_diffusion" in key for key in tensors)
    text = refusal(write(tmp_path / "a.safetensors", tensors))
    assert "a Custom Diffusion file" in text
    assert "load_attn_procs" in text


@pytest.mark.parametrize("projections", [True, False])
def test_what_peft_saves_of_vera(tmp_path, projections):
    config = VeraConfig(r=2, target_modules=["to_q"], save_projection=projections)
    model = get_peft_model(torch.nn.ModuleDict({"to_q": torch.nn.Linear(16, 16)}), config)
    model.save_pretrained(tmp_path)
    assert "a VeRA adapter" in refusal(tmp_path / "adapter_model.safetensors")


@pytest.mark.parametrize("name", ["FourierFTConfig", "RandLoraConfig", "HRAConfig", "C3AConfig", "MissConfig"])
def test_what_peft_saves_of_algorithms_that_lorakit_does_not_know(tmp_path, name):
    import peft

    options = {"FourierFTConfig": {"n_frequency": 9}, "C3AConfig": {"block_size": 4}}.get(name, {"r": 4})
    config = getattr(peft, name)(target_modules=["0"], **options)
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(16, 16)), config)
    randomise(model)
    model.save_pretrained(tmp_path)
    assert "an algorithm that lorakit does not know; merge it with peft" in refusal(
        tmp_path / "adapter_model.safetensors"
    )


def test_a_file_packed_for_a_quantized_base(tmp_path):
    stem = "transformer_blocks.0.attn.to_q"
    tensors = {f"{stem}.qweight": torch.zeros(8, 4, dtype=torch.int8), f"{stem}.wscales": torch.ones(8),
               f"{stem}.proj_down": torch.ones(8, 4), f"{stem}.proj_up": torch.ones(8, 4),
               f"{stem}.smooth_factor": torch.ones(8)}  # fmt: skip
    assert "a nunchaku (SVDQuant) file" in refusal(write(tmp_path / "a.safetensors", tensors))


def test_a_full_checkpoint(family, tmp_path):
    _, parts = family("sd1")
    tensors = prefixed(unet_tensors(parts["unet"]), DENOISER)
    tensors |= open_clip_tensors(parts["text_encoder"], "cond_stage_model.model.")
    text = refusal(write(tmp_path / "a.safetensors", tensors))
    assert "a full checkpoint" in text
    assert "give it as --base" in text


def test_the_weights_of_a_whole_model(family, tmp_path):
    folder, parts = family("sd1")
    assert "the weights of a whole model" in refusal(folder / "unet" / "diffusion_pytorch_model.safetensors")
    net = ControlNetModel.from_unet(parts["unet"])
    assert "the weights of a whole model" in refusal(write(tmp_path / "a.safetensors", net.state_dict()))


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        ({"emb_params": torch.ones(2, 12)}, "embedding"),
        ({"clip_l": torch.ones(2, 12), "clip_g": torch.ones(2, 16)}, "embedding"),
        ({"string_to_param.*": torch.ones(2, 12)}, "embedding"),
        ({"bundle_emb.cat.string_to_param.*": torch.ones(2, 12)}, "cat"),
        ({"<s1>": torch.ones(12)}, "<s1>"),
        ({"<my-cat>": torch.ones(12)}, "<my-cat>"),
    ],
)
def test_a_textual_inversion_alone(tmp_path, tensors, name):
    """As A1111 keeps it, as SDXL's trainers, cloneofsimo and diffusers' learned_embeds do."""
    metadata = {"<s1>": "<embed>"} if "<s1>" in tensors else None
    text = refusal(write(tmp_path / "learned_embeds.safetensors", tensors, metadata))
    assert f"a textual inversion ({name})" in text
    assert "load_textual_inversion" in text


@pytest.mark.parametrize(
    "bundle",
    [
        {"bundle_emb.cat.string_to_param.*": torch.ones(2, 12)},
        {"bundle_emb.cat.clip_l": torch.ones(2, 12), "bundle_emb.cat.clip_g": torch.ones(2, 16)},
        {"bundle_emb.cat.text_encoder": torch.ones(2, 12)},
    ],
)
def test_a_lora_with_words_bundled_in_it_is_a_lora(family, tmp_path, bundle):
    folder, parts = family("sd1")
    kohya = next(layout for layout in LAYOUTS if layout.name == "kohya")
    tensors, wanted = adapter(kohya, "sd1", parts)
    file = open_adapter(write(tmp_path / "a.safetensors", tensors | bundle))
    assert dict(file.embeddings) == {"cat": tuple(sorted(bundle))}
    assert (file.unknown_keys, file.problems) == ((), ())
    plain = judge(folder, write(tmp_path / "b.safetensors", tensors), wanted)
    assert [layer.keys for layer in file.layers] == [layer.keys for layer in plain.layers]


def test_whole_modules_beside_the_factors_are_not_passed_over(tmp_path):
    """peft's modules_to_save, without the configuration that says so."""
    model = torch.nn.ModuleDict({"to_q": torch.nn.Linear(16, 16), "proj_out": torch.nn.Linear(16, 16)})
    from peft import LoraConfig

    made = get_peft_model(model, LoraConfig(r=2, target_modules=["to_q"], modules_to_save=["proj_out"]))
    tensors = get_peft_model_state_dict(made)
    file = look_at(write(tmp_path / "a.safetensors", tensors))
    assert set(file.unknown_keys) == {"base_model.model.proj_out.weight", "base_model.model.proj_out.bias"}


def test_a_pickle_under_another_name(tmp_path):
    path = tmp_path / "a.safetensors"
    data = io.BytesIO()
    torch.save({"a": torch.ones(2)}, data)
    path.write_bytes(data.getvalue())
    assert zipfile.is_zipfile(path)
    with pytest.raises(CorruptFileError, match="pickle"):
        open_adapter(path)
