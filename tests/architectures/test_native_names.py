"""Original names, judged by diffusers' own readers of original checkpoints, and by names known to the letter."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import QwenImageTransformer2DModel, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lorakit_cli.architectures.clip import clip, open_clip
from lorakit_cli.architectures.qwen_image import QWEN_IMAGE
from lorakit_cli.architectures.wan import WAN
from lorakit_cli.core.architecture import Name
from tests.architectures.checkpoints import ALIASES, assert_same, checkpoint, modules_of, state_of
from tests.architectures.models import TINY, TRANSFORMERS, UNETS, build

KEYS = Path(__file__).parent.parent / "data" / "keys"
MODELS = (*UNETS, *TRANSFORMERS)
model = cache(build)


def names_of(name):
    return list(model(name).architecture.native(modules_of(model(name).state)))


@pytest.mark.parametrize("name", MODELS)
def test_diffusers_reads_a_checkpoint_in_our_names_as_the_model(name):
    written = checkpoint(model(name).state, names_of(name), model(name).prefix)
    assert_same(model(name).convert(written), model(name).state)


# Modules that the original code calls as diffusers does.
SHARED = {
    "chroma": r"distilled_guidance_layer\.(in|out)_proj",
    "sd3": "context_embedder",
    "sd3.5": "context_embedder",
    "wan": "patch_embedding",
    "wan i2v": "patch_embedding",
    "wan vace": "(vace_)?patch_embedding",
    "z_image": r"(layers|noise_refiner|context_refiner)\.\d+\.(feed_forward\.w[123]|(attention|ffn)_norm[12])"
    r"|(layers|noise_refiner)\.\d+\.adaLN_modulation\.0|t_embedder\.mlp\.[02]|cap_embedder\.[01]|(x|cap)_pad_token",
    "lumina2": r"(layers|noise_refiner|context_refiner)\.\d+\.ffn_norm[12]|x_embedder",
    "ltx_video": r"transformer_blocks\.\d+\.(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|scale_shift_table)"
    r"|caption_projection\.linear_[12]|proj_out|scale_shift_table",
}


@pytest.mark.parametrize("name", MODELS)
def test_only_modules_called_the_same_in_both_go_without_a_name(name):
    # diffusers' readers let such names pass, and with them any that we forgot.
    named = {part for meaning in names_of(name) if not ALIASES.search(meaning.text) for part in meaning.parts}
    unnamed = [module for module in modules_of(model(name).state) if module not in named]
    assert [module for module in unnamed if not re.fullmatch(SHARED.get(name, "-"), module)] == []


@pytest.mark.parametrize("name", MODELS)
def test_no_name_means_two_modules_dotted_or_flattened(name):
    modules = modules_of(model(name).state)
    meant = {}
    for meaning in (*names_of(name), *(Name(module, (module,)) for module in modules)):
        for text in {meaning.text, meaning.text.replace(".", "_")}:
            assert meant.setdefault(text, meaning.parts) == meaning.parts


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_name_is_written_where_all_its_parts_are_given_and_nowhere_else(name):
    native = model(name).architecture.native
    for meaning in names_of(name):
        # Whether a block only reads its context shows in the rest of it.
        if "context_block.adaLN" not in meaning.text:
            assert meaning in list(native(meaning.parts))
        for missing in meaning.parts:
            rest = [module for module in modules_of(model(name).state) if module != missing]
            assert meaning.text not in {other.text for other in native(rest)}


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("sdxl", "input_blocks.4.1.transformer_blocks.0.attn1.to_q", "down_blocks.1.attentions.0.…"),
        ("sdxl", "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj", "down_blocks.2.attentions.1.…"),
        ("sdxl", "output_blocks.5.1.proj_in", "up_blocks.1.attentions.2.proj_in"),
        ("sdxl", "output_blocks.2.2.conv", "up_blocks.0.upsamplers.0.conv"),
        ("sdxl", "input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"),
        ("sdxl", "middle_block.2.out_layers.3", "mid_block.resnets.1.conv2"),
        ("sdxl", "label_emb.0.2", "add_embedding.linear_2"),
        ("sdxl", "out.2", "conv_out"),
        ("sd1", "output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"),
        ("sd1", "output_blocks.8.2.conv", "up_blocks.2.upsamplers.0.conv"),
        ("sd1", "input_blocks.11.0.skip_connection", None),
        ("sd1", "input_blocks.11.0.in_layers.2", "down_blocks.3.resnets.1.conv1"),
        (
            "flux",
            "double_blocks.1.txt_attn.qkv",
            "transformer_blocks.1.attn.add_q_proj transformer_blocks.1.attn.add_k_proj "
            "transformer_blocks.1.attn.add_v_proj",
        ),
        ("flux", "double_blocks.0.img_attn.qkv.2", "transformer_blocks.0.attn.to_v"),
        ("flux", "double_blocks.0.img_attn.norm.query_norm", "transformer_blocks.0.attn.norm_q"),
        ("flux", "double_blocks.0.img_attn.norm.query_norm.scale", "transformer_blocks.0.attn.norm_q"),
        ("flux", "single_blocks.1.linear1.3", "single_transformer_blocks.1.proj_mlp"),
        (
            "flux",
            "single_blocks.1.linear1.qkv",
            "single_transformer_blocks.1.attn.to_q single_transformer_blocks.1.attn.to_k "
            "single_transformer_blocks.1.attn.to_v",
        ),
        ("flux schnell", "guidance_in.in_layer", None),
        ("chroma", "double_blocks.0.img_mod.lin", None),
        ("flux2", "single_blocks.2.linear1", "single_transformer_blocks.2.attn.to_qkv_mlp_proj"),
        ("flux2", "single_blocks.2.linear1.0", None),
        ("flux2", "double_blocks.0.img_mlp.2", "transformer_blocks.0.ff.linear_out"),
        ("sd3.5", "joint_blocks.1.x_block.attn2.qkv.0", "transformer_blocks.1.attn2.to_q"),
        ("sd3.5", "joint_blocks.2.x_block.attn2.qkv", None),
        ("sd3.5", "joint_blocks.2.context_block.mlp.fc1", None),
        ("wan", "blocks.1.cross_attn.k", "blocks.1.attn2.to_k"),
        ("wan", "blocks.1.norm3", "blocks.1.norm2"),
        ("wan", "blocks.1.modulation", "blocks.1.scale_shift_table"),
        ("wan", "head.modulation", "scale_shift_table"),
        ("wan", "blocks.1.cross_attn.k_img", None),
        ("wan i2v", "blocks.1.cross_attn.k_img", "blocks.1.attn2.add_k_proj"),
        ("wan vace", "vace_blocks.1.self_attn.o", "vace_blocks.1.attn1.to_out.0"),
        ("hunyuan_video", "double_blocks.0.img_attn_qkv.1", "transformer_blocks.0.attn.to_k"),
        ("hunyuan_video", "double_blocks.0.img_mlp.fc0", "transformer_blocks.0.ff.net.0.proj"),
        (
            "hunyuan_video",
            "txt_in.individual_token_refiner.blocks.1.self_attn_proj",
            "context_embedder.token_refiner.refiner_blocks.1.attn.to_out.0",
        ),
        ("z_image", "noise_refiner.1.attention.out", "noise_refiner.1.attention.to_out.0"),
        ("z_image", "final_layer.adaLN_modulation.1", "all_final_layer.2-1.adaLN_modulation.1"),
        ("lumina2", "context_refiner.0.attention_norm1", "context_refiner.0.norm1"),
        ("lumina2", "layers.0.attention_norm1", "layers.0.norm1.norm"),
        ("ltx_video", "adaln_single.linear", "time_embed.linear"),
    ],
)
def test_names_known_to_the_letter(name, text, parts):
    tail = text.partition("transformer_blocks")
    expected = None if parts is None else tuple(parts.replace("…", tail[1] + tail[2]).split(" "))
    assert {meaning.text: meaning.parts for meaning in names_of(name)}.get(text) == expected


@pytest.mark.parametrize(
    ("name", "swapped"),
    [
        ("flux", {"final_layer.adaLN_modulation.1"}),
        ("chroma", set()),
        ("flux2", {"final_layer.adaLN_modulation.1"}),
        ("hunyuan_video", {"final_layer.adaLN_modulation.1"}),
        ("sd3", {"final_layer.adaLN_modulation.1", "joint_blocks.2.context_block.adaLN_modulation.1"}),
        ("wan", set()),
        ("z_image", set()),
        ("lumina2", set()),
        ("ltx_video", set()),
        ("sdxl", set()),
    ],
)
def test_only_norms_of_shift_and_scale_are_swapped(name, swapped):
    assert {meaning.text for meaning in names_of(name) if meaning.swapped} == swapped


def test_every_module_that_sd_scripts_names_for_sdxl_has_that_name():
    listed = json.loads((KEYS / "kohya_sdxl.json").read_text())["tensors"]
    stems = {key.partition(".")[0] for key in listed if key.startswith("lora_unet_")}
    names = {f"lora_unet_{meaning.text.replace('.', '_')}" for meaning in names_of("sdxl")}
    assert len(stems) > 700
    assert stems - names == set()


def test_the_modules_of_qwen_image_have_no_other_names():
    assert list(QWEN_IMAGE.native(modules_of(state_of(QwenImageTransformer2DModel, num_layers=1)))) == []


def test_the_first_and_last_frame_of_wan_have_a_place():
    # diffusers' reader leaves this one out, its conversion script for the published model does not.
    state = state_of(WanTransformer3DModel, **TINY, num_layers=1, image_dim=6, pos_embed_seq_len=4)
    place = Name("img_emb.emb_pos", ("condition_embedder.image_embedder.pos_embed",))
    assert place in list(WAN.native(modules_of(state)))


CLIP = CLIPTextConfig(
    vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, projection_dim=8
)


@pytest.mark.parametrize("text_class", [CLIPTextModel, CLIPTextModelWithProjection])
def test_diffusers_reads_openclip_in_our_names_as_the_text_encoder(text_class):
    state = state_of(text_class, CLIP)
    encoder_state = {name: value for name, value in state.items() if name != "text_projection.weight"}
    prefix = "conditioner.embedders.1.model."
    written = checkpoint(encoder_state, open_clip(modules_of(state)), prefix)
    assert f"{prefix}transformer.resblocks.1.attn.in_proj_bias" in written
    assert f"{prefix}positional_embedding" in written
    with torch.device("meta"):
        encoder = text_class(CLIP)
    expected = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in encoder_state.items()}
    assert_same(convert_open_clip_checkpoint(encoder, written, prefix), expected)


@pytest.mark.parametrize("text_class", [CLIPTextModel, CLIPTextModelWithProjection])
def test_diffusers_reads_clip_in_our_names_as_the_text_encoder(text_class):
    state = state_of(text_class, CLIP)
    written = checkpoint(state, clip(modules_of(state)), "conditioner.embedders.0.")
    projection = "text_projection.weight"
    expected = {
        name if name == projection else f"text_model.{name.removeprefix('text_model.')}": value
        for name, value in state.items()
    }
    assert_same(convert_ldm_clip_checkpoint(written), expected)
