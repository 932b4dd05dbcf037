"""Transformers that make videos."""

from lorakit_cli.architectures.tables.published.model import Model, Sizes


def _wan(layers: int, heads: int, ffn: int, channels: tuple[int, int], image: bool = False) -> Model:
    config = {
        "patch_size": (1, 2, 2),
        "num_layers": layers,
        "num_attention_heads": heads,
        "attention_head_dim": 128,
        "ffn_dim": ffn,
        "in_channels": channels[0],
        "out_channels": channels[1],
        "text_dim": 4096,
        "freq_dim": 256,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "image_dim": 1280 if image else None,
        "added_kv_proj_dim": 128 * heads if image else None,
    }
    return Model("WanTransformer3DModel", config)


def _hunyuan_video(in_channels: int, guidance: bool, condition: str | None) -> Model:
    config = {
        "in_channels": in_channels,
        "out_channels": 16,
        "patch_size": 2,
        "patch_size_t": 1,
        "num_layers": 20,
        "num_single_layers": 40,
        "num_refiner_layers": 2,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "mlp_ratio": 4.0,
        "qk_norm": "rms_norm",
        "guidance_embeds": guidance,
        "text_embed_dim": 4096,
        "pooled_projection_dim": 768,
        "image_condition_type": condition,
    }
    return Model("HunyuanVideoTransformer3DModel", config)


def _ltx_video(layers: int, head: int) -> Model:
    config = {
        "in_channels": 128,
        "out_channels": 128,
        "patch_size": 1,
        "patch_size_t": 1,
        "num_layers": layers,
        "num_attention_heads": 32,
        "attention_head_dim": head,
        "cross_attention_dim": 32 * head,
        "caption_channels": 4096,
        "qk_norm": "rms_norm_across_heads",
        "norm_elementwise_affine": False,
        "attention_bias": True,
        "attention_out_bias": True,
    }
    return Model("LTXVideoTransformer3DModel", config)


def _cogvideox(layers: int, heads: int) -> Model:
    config = {
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "patch_size_t": None,
        "patch_bias": True,
        "num_layers": layers,
        "num_attention_heads": heads,
        "attention_head_dim": 64,
        "time_embed_dim": 512,
        "text_embed_dim": 4096,
        "attention_bias": True,
        "norm_elementwise_affine": True,
        "use_rotary_positional_embeddings": heads == 48,
        "use_learned_positional_embeddings": False,
    }
    return Model("CogVideoXTransformer3DModel", config)


_MOCHI = Model(
    "MochiTransformer3DModel",
    {
        "patch_size": 2,
        "in_channels": 12,
        "num_layers": 48,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "pooled_projection_dim": 1536,
        "text_embed_dim": 4096,
        "time_embed_dim": 256,
        "qk_norm": "rms_norm",
        "activation_fn": "swiglu",
    },
)

SIZES: Sizes = {
    "wan": {
        "Wan T2V 1.3B": {"transformer": _wan(30, 12, 8960, (16, 16))},
        "Wan T2V 14B": {"transformer": _wan(40, 40, 13824, (16, 16))},
        "Wan 2.1 I2V 14B": {"transformer": _wan(40, 40, 13824, (36, 16), image=True)},
        "Wan 2.2 I2V 14B": {"transformer": _wan(40, 40, 13824, (36, 16))},
        "Wan 2.2 TI2V 5B": {"transformer": _wan(30, 24, 14336, (48, 48))},
    },
    "hunyuan_video": {
        "HunyuanVideo": {"transformer": _hunyuan_video(16, True, None)},
        "HunyuanVideo I2V": {"transformer": _hunyuan_video(33, False, "latent_concat")},
    },
    "ltx_video": {
        "LTX-Video 2B": {"transformer": _ltx_video(28, 64)},
        "LTX-Video 13B": {"transformer": _ltx_video(48, 128)},
    },
    "cogvideox": {
        "CogVideoX 2B": {"transformer": _cogvideox(30, 30)},
        "CogVideoX 5B": {"transformer": _cogvideox(42, 48)},
    },
    "mochi": {"Mochi 1": {"transformer": _MOCHI}},
}
