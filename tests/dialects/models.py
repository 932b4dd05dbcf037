"""Tiny real models of every family, a block or two deep, saved as pipeline folders."""

import json
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
import transformers
from torch import nn

from tests.checkpoints import build_text_encoder, build_unet

_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
_WAN = {
    "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "num_layers": 1,
    "ffn_dim": 48, "text_dim": 10, "freq_dim": 8,
}  # fmt: skip
_TEXT = {"joint_attention_dim": 12}
TRANSFORMERS = {
    "flux": ("FluxTransformer2DModel", {
        **_HEADS, **_TEXT, "in_channels": 4, "num_layers": 2, "num_single_layers": 1, "pooled_projection_dim": 10,
        "guidance_embeds": True, "axes_dims_rope": (4, 2, 2),
    }),
    # The first block has the second attention of SD3.5, the last one only reads the context.
    "sd3": ("SD3Transformer2DModel", {
        **_HEADS, **_TEXT, "sample_size": 4, "in_channels": 4, "out_channels": 4, "num_layers": 2,
        "caption_projection_dim": 16, "pooled_projection_dim": 10, "pos_embed_max_size": 4,
        "dual_attention_layers": (0,), "qk_norm": "rms_norm",
    }),
    "wan": ("WanTransformer3DModel", _WAN),
    "wan i2v": ("WanTransformer3DModel", {**_WAN, "image_dim": 6, "added_kv_proj_dim": 24}),
    "qwen_image": ("QwenImageTransformer2DModel", {
        **_HEADS, **_TEXT, "in_channels": 4, "out_channels": 4, "num_layers": 1, "axes_dims_rope": (4, 2, 2),
    }),
    "z_image": ("ZImageTransformer2DModel", {
        "in_channels": 4, "dim": 16, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2,
        "cap_feat_dim": 10, "axes_dims": [4, 2, 2], "axes_lens": [8, 8, 8],
    }),
    # Three heads for queries, one for keys and values.
    "lumina2": ("Lumina2Transformer2DModel", {
        "sample_size": 4, "in_channels": 4, "hidden_size": 24, "num_layers": 1, "num_refiner_layers": 1,
        "num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 8, "cap_feat_dim": 10,
        "axes_dim_rope": (4, 2, 2), "axes_lens": (8, 8, 8),
    }),
    "hunyuan_video": ("HunyuanVideoTransformer3DModel", {
        **_HEADS, "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_single_layers": 1,
        "num_refiner_layers": 1, "text_embed_dim": 12, "pooled_projection_dim": 10, "rope_axes_dim": (2, 4, 2),
    }),
    "flux2": ("Flux2Transformer2DModel", {
        **_HEADS, **_TEXT, "in_channels": 4, "num_layers": 1, "num_single_layers": 1,
        "axes_dims_rope": (2, 2, 2, 2), "timestep_guidance_channels": 8,
    }),
    "ltx_video": ("LTXVideoTransformer3DModel", {
        **_HEADS, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 16, "num_layers": 1,
        "caption_channels": 10,
    }),
}  # fmt: skip
# `sd1 small` is for what does not ask for every block there is.
UNETS = {"sd1": {"levels": 4}, "sd1 small": {"levels": 2, "layers": 1}, "sdxl": {"levels": 3, "xl": True}}
PIPELINES = {
    "sd1 small": "StableDiffusionPipeline",
    "sd1": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline", "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline", "flux2": "Flux2Pipeline", "wan": "WanPipeline", "wan i2v": "WanImageToVideoPipeline",
    "qwen_image": "QwenImagePipeline", "z_image": "ZImagePipeline", "lumina2": "Lumina2Pipeline",
    "hunyuan_video": "HunyuanVideoPipeline", "ltx_video": "LTXPipeline",
}  # fmt: skip


def _t5(width: int = 12) -> nn.Module:
    config = transformers.T5Config(
        vocab_size=9, d_model=width, d_ff=20, d_kv=4, num_heads=2, num_layers=1, feed_forward_proj="gated-gelu"
    )
    return transformers.T5EncoderModel(config)


def _gemma() -> nn.Module:
    config = transformers.Gemma2Config(
        vocab_size=9, hidden_size=12, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4,
    )  # fmt: skip
    return transformers.Gemma2Model(config)


def _transformer(family: str) -> nn.Module:
    class_name, config = TRANSFORMERS[family]
    model: nn.Module = getattr(diffusers, class_name)(**config)
    return model


_TEXTS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "sd1": {"text_encoder": lambda: build_text_encoder(12)},
    "sdxl": {"text_encoder": lambda: build_text_encoder(8), "text_encoder_2": lambda: build_text_encoder(4, 1, True)},
    "flux": {"text_encoder": lambda: build_text_encoder(10), "text_encoder_2": _t5},
    "sd3": {
        "text_encoder": lambda: build_text_encoder(8, projected=True),
        "text_encoder_2": lambda: build_text_encoder(4, projected=True),
        "text_encoder_3": _t5,
    },
    "lumina2": {"text_encoder": _gemma},
}


def components(family: str) -> dict[str, nn.Module]:
    """Build the denoiser and the text encoders of a family, random values."""
    torch.manual_seed(7)
    parts = {"unet": build_unet(12, **UNETS[family])} if family in UNETS else {"transformer": _transformer(family)}
    parts |= {name: build() for name, build in _TEXTS.get(family, {}).items()}
    for part in parts.values():
        for value in part.parameters():
            # Norms start as ones and biases as zeros, which would hide what is done to them.
            value.data += 0.1 * torch.randn_like(value)
    return parts


def save(folder: Path, family: str, parts: dict[str, nn.Module]) -> Path:
    """Save models as the folder of a pipeline."""
    index = {"_class_name": PIPELINES[family]}
    for name, model in parts.items():
        model.save_pretrained(folder / name)
        index[name] = ["transformers" if name.startswith("text") else "diffusers", type(model).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
