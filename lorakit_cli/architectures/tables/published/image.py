"""Transformers that make pictures."""

from lorakit_cli.architectures.tables.published.model import Model, Sizes

_FLUX1 = Model(
    "FluxTransformer2DModel",
    {
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        # dev has it, schnell does not; they are alike in all else.
        "guidance_embeds": True,
    },
)


def _flux2(double: int, single: int, heads: int, text: int, guidance: bool) -> Model:
    config = {
        "patch_size": 1,
        "in_channels": 128,
        "num_layers": double,
        "num_single_layers": single,
        "num_attention_heads": heads,
        "attention_head_dim": 128,
        "joint_attention_dim": text,
        "timestep_guidance_channels": 256,
        "mlp_ratio": 3.0,
        "guidance_embeds": guidance,
    }
    return Model("Flux2Transformer2DModel", config)


_HUNYUAN_IMAGE = Model(
    "HunyuanImageTransformer2DModel",
    {
        "in_channels": 64,
        "out_channels": 64,
        "patch_size": (1, 1),
        "num_layers": 20,
        "num_single_layers": 40,
        "num_refiner_layers": 2,
        "num_attention_heads": 28,
        "attention_head_dim": 128,
        "mlp_ratio": 4.0,
        "qk_norm": "rms_norm",
        "text_embed_dim": 3584,
        "text_embed_2_dim": 1472,
        # The distilled model has these two, the other does not; they are alike in all else.
        "guidance_embeds": True,
        "use_meanflow": True,
    },
)
_QWEN_IMAGE = Model(
    "QwenImageTransformer2DModel",
    {
        "patch_size": 2,
        "in_channels": 64,
        "out_channels": 16,
        "num_layers": 60,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "joint_attention_dim": 3584,
        "guidance_embeds": False,
    },
)
_Z_IMAGE = Model(
    "ZImageTransformer2DModel",
    {
        "all_patch_size": (2,),
        "all_f_patch_size": (1,),
        "in_channels": 16,
        "dim": 3840,
        "n_layers": 30,
        "n_refiner_layers": 2,
        "n_heads": 30,
        "n_kv_heads": 30,
        "qk_norm": True,
        "cap_feat_dim": 2560,
    },
)
_LUMINA2 = Model(
    "Lumina2Transformer2DModel",
    {
        "patch_size": 2,
        "in_channels": 16,
        "hidden_size": 2304,
        "num_layers": 26,
        "num_refiner_layers": 2,
        "num_attention_heads": 24,
        "num_kv_heads": 8,
        "multiple_of": 256,
        "ffn_dim_multiplier": None,
        "cap_feat_dim": 2304,
    },
)


def _pixart(resolution: bool) -> Model:
    config = {
        "in_channels": 4,
        "out_channels": 8,
        "patch_size": 2,
        "sample_size": 128,
        "num_layers": 28,
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "cross_attention_dim": 1152,
        "caption_channels": 4096,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "use_additional_conditions": resolution,
    }
    return Model("PixArtTransformer2DModel", config)


_SANA = Model(
    "SanaTransformer2DModel",
    {
        "in_channels": 32,
        "out_channels": 32,
        "patch_size": 1,
        "num_layers": 20,
        "num_attention_heads": 70,
        "attention_head_dim": 32,
        "num_cross_attention_heads": 20,
        "cross_attention_head_dim": 112,
        "cross_attention_dim": 2240,
        "caption_channels": 2304,
        "mlp_ratio": 2.5,
        "attention_bias": False,
        "norm_elementwise_affine": False,
        "qk_norm": None,
        "guidance_embeds": False,
    },
)
_AURAFLOW = Model(
    "AuraFlowTransformer2DModel",
    {
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_mmdit_layers": 4,
        "num_single_dit_layers": 32,
        "num_attention_heads": 12,
        "attention_head_dim": 256,
        "joint_attention_dim": 2048,
        "caption_projection_dim": 3072,
        # Of 0.3; earlier models have 1024 positions.
        "pos_embed_max_size": 9216,
    },
)

_HIDREAM = Model(
    "HiDreamImageTransformer2DModel",
    {
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 16,
        "num_single_layers": 32,
        "num_attention_heads": 20,
        "attention_head_dim": 128,
        "caption_channels": [4096, 4096],
        "text_emb_dim": 2048,
        "num_routed_experts": 4,
        "num_activated_experts": 2,
        "axes_dims_rope": (64, 32, 32),
        "max_resolution": (128, 128),
        "llama_layers": [*range(32), *[31] * 16],
    },
)
_KREA2 = Model(
    "Krea2Transformer2DModel",
    {
        "in_channels": 64,
        "num_layers": 28,
        "num_attention_heads": 48,
        "num_key_value_heads": 12,
        "attention_head_dim": 128,
        "intermediate_size": 16384,
        "timestep_embed_dim": 256,
        "text_hidden_dim": 2560,
        "num_text_layers": 12,
        "text_num_attention_heads": 20,
        "text_num_key_value_heads": 20,
        "text_intermediate_size": 6912,
        "num_layerwise_text_blocks": 2,
        "num_refiner_text_blocks": 2,
    },
)

SIZES: Sizes = {
    "flux1": {"FLUX.1": {"transformer": _FLUX1, "text_encoder": "CLIP-L", "text_encoder_2": "T5-XXL"}},
    "flux2": {
        "FLUX.2 dev": {"transformer": _flux2(8, 48, 48, 15360, True)},
        "FLUX.2 klein 4B": {"transformer": _flux2(5, 20, 24, 7680, False)},
        "FLUX.2 klein 9B": {"transformer": _flux2(8, 24, 32, 12288, False)},
    },
    "hunyuan_image": {"HunyuanImage-2.1": {"transformer": _HUNYUAN_IMAGE}},
    "qwen_image": {"Qwen-Image": {"transformer": _QWEN_IMAGE}},
    "z_image": {"Z-Image": {"transformer": _Z_IMAGE}},
    "lumina2": {"Lumina-Image 2.0": {"transformer": _LUMINA2}},
    "pixart": {
        "PixArt-Sigma": {"transformer": _pixart(False)},
        "PixArt-Alpha 1024": {"transformer": _pixart(True)},
    },
    "sana": {"Sana 1.6B": {"transformer": _SANA}},
    "auraflow": {"AuraFlow": {"transformer": _AURAFLOW}},
    "hidream": {"HiDream-I1": {"transformer": _HIDREAM}},
    "krea2": {"Krea 2": {"transformer": _KREA2}},
}
