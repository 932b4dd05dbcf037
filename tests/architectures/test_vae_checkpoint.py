"""The autoencoder's original names, judged by diffusers' own reader, and by names known to the letter."""

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from lorakit_cli.architectures.vae_checkpoint import CONVOLUTIONS, native
from tests.architectures.checkpoints import assert_same, checkpoint, modules_of, state_of

# Of SD1.x, SD2.x and SDXL alike.
PUBLISHED = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
SMALL = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
}
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def old(name):
    """Spell the attention as diffusers did before 0.15."""
    return next((name.replace(f".{new}.", f".{former}.") for new, former in OLD.items() if f".{new}." in name), name)


@pytest.mark.parametrize("spelling", [str, old], ids=["new", "old"])
@pytest.mark.parametrize("config", [PUBLISHED, SMALL], ids=["published", "small"])
def test_diffusers_reads_an_autoencoder_in_our_names_as_the_model(config, spelling):
    state = state_of(AutoencoderKL, **config)
    spelt = {spelling(name): value for name, value in state.items()}
    modules = modules_of(spelt)
    names = list(native(modules))
    assert [name.parts[0] for name in names] == modules
    written = checkpoint(spelt, names, "first_stage_model.")
    assert len(written) == (248 if config is PUBLISHED else len(state))
    assert_same(convert_ldm_vae_checkpoint(written, config), state)


def test_names_known_to_the_letter():
    names = {name.parts[0]: name.text for name in native(modules_of(state_of(AutoencoderKL, **PUBLISHED)))}
    for module, text in {
        "encoder.down_blocks.0.resnets.0.norm1": "encoder.down.0.block.0.norm1",
        "encoder.down_blocks.2.downsamplers.0.conv": "encoder.down.2.downsample.conv",
        "encoder.down_blocks.1.resnets.0.conv_shortcut": "encoder.down.1.block.0.nin_shortcut",
        "decoder.up_blocks.0.resnets.2.conv2": "decoder.up.3.block.2.conv2",
        "decoder.up_blocks.3.resnets.0.conv_shortcut": "decoder.up.0.block.0.nin_shortcut",
        "decoder.up_blocks.0.upsamplers.0.conv": "decoder.up.3.upsample.conv",
        "decoder.mid_block.resnets.1.conv1": "decoder.mid.block_2.conv1",
        "decoder.mid_block.attentions.0.to_out.0": "decoder.mid.attn_1.proj_out",
        "encoder.mid_block.attentions.0.group_norm": "encoder.mid.attn_1.norm",
        "encoder.conv_norm_out": "encoder.norm_out",
        "post_quant_conv": "post_quant_conv",
    }.items():
        assert names[module] == text


def test_the_projections_of_the_attention_and_nothing_else_are_convolutions_there():
    state = state_of(AutoencoderKL, **PUBLISHED)
    matrices = {name for name, value in state.items() if value.ndim == 2}
    written = checkpoint({name: torch.zeros(1) for name in state}, native(modules_of(state)))
    assert len(matrices) == len([name for name in written if CONVOLUTIONS.fullmatch(name)]) == 8


@pytest.mark.parametrize(
    "module",
    [
        "encoder.down_blocks.0.attentions.0.to_q",
        "encoder.mid_block.attentions.0.to_k.lora_A.default",
        "encoder.mid_block.resnets.0.time_emb_proj",
        "decoder.mid_block.attentions.0.norm_q",
        "encoder.down_blocks.0.resnets.0.other",
        "bn",
    ],
)
def test_a_module_that_the_original_code_lacks_has_no_name(module):
    assert list(native([module])) == []
