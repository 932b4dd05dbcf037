"""The blocks of published models, as their module names say them."""

import pytest

from lorakit_cli.core.blocks import Position, blocks_of
from tests.core.indexes import component, published

STACKS = {
    "FLUX.1": {"transformer_blocks": 19, "single_transformer_blocks": 38},
    "FLUX.2 dev": {"transformer_blocks": 8, "single_transformer_blocks": 48},
    "SD3.5 Medium": {"transformer_blocks": 24},
    "Wan T2V 14B": {"blocks": 40},
    # Its image embedder has numbered layers too, which are no blocks of the model.
    "Wan 2.1 I2V 14B": {"blocks": 40},
    "Qwen-Image": {"transformer_blocks": 60},
    "Z-Image": {"noise_refiner": 2, "context_refiner": 2, "layers": 30},
    "Lumina-Image 2.0": {"noise_refiner": 2, "context_refiner": 2, "layers": 26},
    "HunyuanVideo": {"transformer_blocks": 20, "single_transformer_blocks": 40},
    "AuraFlow": {"joint_transformer_blocks": 4, "single_transformer_blocks": 32},
    "HiDream-I1": {"double_stream_blocks": 16, "single_stream_blocks": 32, "caption_projection": 49},
}
OUTSIDE = {
    "FLUX.1": {"x_embedder", "context_embedder", "time_text_embed", "norm_out", "proj_out"},
    "Wan 2.1 I2V 14B": {"patch_embedding", "condition_embedder", "scale_shift_table", "proj_out"},
    "Z-Image": {
        "all_x_embedder", "all_final_layer", "t_embedder", "cap_embedder", "x_pad_token", "cap_pad_token",
    },
    "HunyuanVideo": {"x_embedder", "context_embedder", "time_text_embed", "norm_out", "proj_out"},
}  # fmt: skip


@pytest.mark.parametrize("size", STACKS)
def test_the_stacks_of_a_transformer(size):
    blocks = blocks_of(published(size).components["transformer"])
    assert blocks.groups == {name: dict.fromkeys(range(count), 0) for name, count in STACKS[size].items()}
    if size in OUTSIDE:
        assert set(blocks.outside) == OUTSIDE[size]


@pytest.mark.parametrize(
    ("size", "name", "group", "count", "outside"),
    [
        ("SD1.x", "text_encoder", "layers", 12, {"embeddings", "final_layer_norm"}),
        ("SDXL", "text_encoder_2", "layers", 32, {"embeddings", "final_layer_norm", "text_projection"}),
        ("FLUX.1", "text_encoder_2", "block", 24, {"shared", "final_layer_norm"}),
        ("SD3 Medium", "text_encoder_3", "block", 24, {"shared", "final_layer_norm"}),
    ],
)
def test_the_layers_of_a_text_encoder_whatever_they_are_wrapped_in(size, name, group, count, outside):
    blocks = blocks_of(published(size).components[name])
    assert blocks.groups == {group: dict.fromkeys(range(count), 0)}
    assert set(blocks.outside) >= outside
    assert set(blocks.outside) - outside <= {"embed_tokens"}


@pytest.mark.parametrize(
    ("module", "position"),
    [
        ("transformer_blocks.1.attn.to_q", Position("transformer_blocks", 1)),
        ("transformer_blocks.10.attn.to_q.weight", Position("transformer_blocks", 10)),
        ("single_transformer_blocks.1.proj_out", Position("single_transformer_blocks", 1)),
        ("single_transformer_blocks.10.proj_out.bias", Position("single_transformer_blocks", 10)),
        ("proj_out.weight", Position("proj_out")),
        ("time_text_embed.timestep_embedder.linear_1", Position("time_text_embed")),
    ],
)
def test_a_block_goes_by_its_very_number_in_its_very_stack(module, position):
    assert blocks_of(published("FLUX.1").components["transformer"]).locate(module) == position


def test_numbered_layers_without_anything_inside_are_no_blocks():
    own = component("transformer", ["cap.0.weight", "cap.1.weight", "cap.1.bias", "layers.0.attn.weight"])
    blocks = blocks_of(own)
    assert (blocks.groups, blocks.outside) == ({"layers": {0: 0}}, ("cap",))
    assert blocks.locate("cap.1.weight") == Position("cap")


def test_what_stands_outside_the_blocks_of_a_unet():
    blocks = blocks_of(published("SDXL").components["unet"])
    assert list(blocks.groups) == ["down", "mid", "up"]
    assert blocks.groups["up"] == {0: 3, 1: 3, 2: 0}
    assert set(blocks.outside) == {"conv_in", "time_embedding", "add_embedding", "conv_norm_out", "conv_out"}
