"""Stable Diffusion, from 1 to 3.5."""

from lorakit_cli.architectures.tables.published.model import Model, Sizes


def _unet(width: int, blocks: str, channels: tuple[int, ...], head: object, **more: object) -> Model:
    """Describe a UNet; `blocks` has a letter for each of its downward blocks, `x` for those with cross attention."""
    down = tuple("CrossAttnDownBlock2D" if block == "x" else "DownBlock2D" for block in blocks)
    up = tuple("CrossAttnUpBlock2D" if block == "x" else "UpBlock2D" for block in reversed(blocks))
    config = {
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": channels,
        "cross_attention_dim": width,
        "attention_head_dim": head,
    }
    return Model("UNet2DConditionModel", config | more)


_SDXL = {"use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256}
_SD1_CHANNELS = (320, 640, 1280, 1280)


def _sd3(depth: int, positions: int, dual: int, qk_norm: str | None) -> Model:
    config = {
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": depth,
        "num_attention_heads": depth,
        "attention_head_dim": 64,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 64 * depth,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": positions,
        "dual_attention_layers": tuple(range(dual)),
        "qk_norm": qk_norm,
    }
    return Model("SD3Transformer2DModel", config)


_SD3_TEXT: dict[str, Model | str] = {
    "text_encoder": "CLIP-L with projection",
    "text_encoder_2": "OpenCLIP-G with projection",
    "text_encoder_3": "T5-XXL",
}

SIZES: Sizes = {
    "sd1": {"SD1.x": {"unet": _unet(768, "xxx-", _SD1_CHANNELS, 8), "text_encoder": "CLIP-L"}},
    "sd2": {
        "SD2.x": {
            "unet": _unet(1024, "xxx-", _SD1_CHANNELS, (5, 10, 20, 20), use_linear_projection=True),
            "text_encoder": "OpenCLIP-H",
        }
    },
    "sdxl": {
        "SDXL": {
            "unet": _unet(
                2048,
                "-xx",
                (320, 640, 1280),
                (5, 10, 20),
                transformer_layers_per_block=(1, 2, 10),
                projection_class_embeddings_input_dim=2816,
                **_SDXL,
            ),
            "text_encoder": "CLIP-L",
            "text_encoder_2": "OpenCLIP-G with projection",
        },
        "SDXL refiner": {
            "unet": _unet(
                1280,
                "-xx-",
                (384, 768, 1536, 1536),
                (6, 12, 24, 24),
                transformer_layers_per_block=4,
                projection_class_embeddings_input_dim=2560,
                **_SDXL,
            ),
            "text_encoder_2": "OpenCLIP-G with projection",
        },
    },
    "sd3": {
        "SD3 Medium": {"transformer": _sd3(24, 192, 0, None), **_SD3_TEXT},
        "SD3.5 Medium": {"transformer": _sd3(24, 384, 13, "rms_norm"), **_SD3_TEXT},
        "SD3.5 Large": {"transformer": _sd3(38, 192, 0, "rms_norm"), **_SD3_TEXT},
    },
}
