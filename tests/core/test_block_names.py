import random

import pytest

from lorakit_cli.core.block_names import block_of, block_of_flat, block_order


@pytest.mark.parametrize(
    ("component", "module", "block"),
    [
        ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "down.block_1"),
        ("unet", "mid_block.resnets.1.conv1", "mid"),
        ("unet", "up_blocks.10.upsamplers.0.conv", "up.block_10"),
        ("unet", "time_embedding.linear_1", "time_embedding"),
        ("unet", "conv_in", "conv_in"),
        ("transformer", "single_transformer_blocks.37.proj_out", "single_transformer_blocks.37"),
        ("transformer", "transformer_blocks.3", "transformer_blocks.3"),
        ("transformer", "time_text_embed.timestep_embedder.linear_1", "time_text_embed"),
        ("transformer", "x_embedder", "x_embedder"),
        ("text_encoder", "text_model.encoder.layers.11.self_attn.q_proj", "layers.11"),
        ("text_encoder", "encoder.layers.11.self_attn.q_proj", "layers.11"),
        ("text_encoder_2", "encoder.block.4.layer.0.SelfAttention.q", "block.4"),
        ("text_encoder", "model.language_model.layers.2.mlp.up_proj", "layers.2"),
        ("text_encoder", "model.visual.blocks.2.mlp.up_proj", "visual"),
        ("text_encoder_2", "text_projection", "text_projection"),
        ("text_encoder", "text_model.final_layer_norm", "final_layer_norm"),
        ("text_encoder", "text_model.embeddings.token_embedding", "embeddings"),
    ],
)
def test_a_module_names_its_block(component, module, block):
    assert block_of(component, module) == block


@pytest.mark.parametrize(
    ("body", "block"),
    [
        ("down_blocks_0_attentions_1_proj_in", "down_blocks_0"),
        ("mid_block_attentions_0_proj_in", "mid_block"),
        ("double_blocks_18_img_attn_qkv", "double_blocks_18"),
        ("text_model_encoder_layers_3_mlp_fc1", "text_model_encoder_layers_3"),
        ("input_blocks_4_1_proj_in", "input_blocks_4"),
        ("proj_out", "proj_out"),
    ],
)
def test_a_flattened_stem_goes_by_its_beginning(body, block):
    assert block_of_flat(body) == block


@pytest.mark.parametrize(
    "blocks",
    [
        [
            ("unet", "conv_in"), ("unet", "time_embedding"), ("unet", "down.block_0"), ("unet", "down.block_2"),
            ("unet", "mid"), ("unet", "up.block_1"), ("unet", "conv_out"), ("text_encoder", "embeddings"),
            ("text_encoder", "layers.2"), ("text_encoder", "layers.10"), ("text_encoder", "final_layer_norm"),
            ("text_encoder_2", "layers.0"),
        ],
        [
            ("transformer", "x_embedder"), ("transformer", "context_refiner.0"),
            ("transformer", "transformer_blocks.9"), ("transformer", "transformer_blocks.10"),
            ("transformer", "single_transformer_blocks.0"), ("transformer", "proj_out"),
        ],
        [("unet", f"{part}") for part in ("down_blocks_0", "down_blocks_1", "mid_block", "up_blocks_0")],
        [("unet", f"{part}") for part in ("input_blocks_4", "input_blocks_11", "middle_block_1", "output_blocks_2")],
        [("transformer", f"{part}") for part in ("double_blocks_2", "double_blocks_11", "single_blocks_0")],
    ],
)  # fmt: skip
def test_blocks_are_sorted_as_a_model_runs_through_them(blocks):
    mixed = random.Random(1).sample(blocks, len(blocks))
    assert mixed != blocks
    assert sorted(mixed, key=lambda block: block_order(*block)) == blocks
