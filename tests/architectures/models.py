"""One model of each family, few blocks deep, and diffusers' own way from the original checkpoint to it."""

from dataclasses import dataclass
from typing import Any

import diffusers
from diffusers.loaders import single_file_utils

from lorakit_cli.architectures import flux, flux2, hunyuan_video, ltx_video, lumina2, sd3, unet, wan, z_image
from lorakit_cli.core.architecture import Architecture
from tests.architectures.checkpoints import state_of

UNETS = {
    "sd1": {"cross_attention_dim": 768},
    # The first block up has no attention in every UNet but SDXL's.
    "sd2": {"cross_attention_dim": 1024, "use_linear_projection": True, "attention_head_dim": (5, 10, 20, 20)},
    "sdxl": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "cross_attention_dim": 2048,
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "sdxl refiner": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (384, 768, 1536, 1536),
        "cross_attention_dim": 1280,
        "transformer_layers_per_block": 4,
        "attention_head_dim": (6, 12, 24, 24),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2560,
    },
    "unclip": {
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 2048,
        "cross_attention_dim": 1024,
    },
    "three layers": {"layers_per_block": 3, "block_out_channels": (32, 64, 64, 64)},
}
TINY = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4}
TRANSFORMERS = {
    # diffusers splits the first linear of FLUX' and HunyuanVideo's single blocks at 3072, Lumina's attention at 2304.
    "flux": (flux.FLUX, "Flux", {"num_layers": 2, "num_single_layers": 2, "guidance_embeds": True}),
    "flux schnell": (flux.FLUX, "Flux", {"num_layers": 1, "num_single_layers": 1}),
    "chroma": (flux.FLUX, "Chroma", {"num_layers": 2, "num_single_layers": 2, "approximator_layers": 2}),
    "flux2": (flux2.FLUX2, "Flux2", {"num_layers": 2, "num_single_layers": 3}),
    "flux2 klein": (flux2.FLUX2, "Flux2", {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": False}),
    "sd3": (sd3.SD3, "SD3", {"num_layers": 3, "pos_embed_max_size": 4}),
    "sd3.5": (sd3.SD3, "SD3", {"num_layers": 3, "dual_attention_layers": (0, 1), "qk_norm": "rms_norm"}),
    "wan": (wan.WAN, "Wan", {**TINY, "num_layers": 2, "ffn_dim": 48}),
    "wan i2v": (wan.WAN, "Wan", {**TINY, "num_layers": 2, "ffn_dim": 48, "image_dim": 6, "added_kv_proj_dim": 24}),
    "wan vace": (wan.WAN, "WanVACE", {**TINY, "num_layers": 4, "vace_layers": [0, 2], "vace_in_channels": 8}),
    "hunyuan_video": (
        hunyuan_video.HUNYUAN_VIDEO,
        "HunyuanVideo",
        {"num_layers": 2, "num_single_layers": 2, "num_refiner_layers": 2},
    ),
    "z_image": (z_image.Z_IMAGE, "ZImage", {"n_layers": 2, "n_refiner_layers": 2}),
    "lumina2": (lumina2.LUMINA2, "Lumina2", {"num_layers": 2, "num_refiner_layers": 2}),
    "ltx_video": (ltx_video.LTX_VIDEO, "LTXVideo", {"num_layers": 2}),
}
CLASSES = {
    "Flux": ("FluxTransformer2DModel", "convert_flux_transformer_checkpoint_to_diffusers"),
    "Chroma": ("ChromaTransformer2DModel", "convert_chroma_transformer_checkpoint_to_diffusers"),
    "Flux2": ("Flux2Transformer2DModel", "convert_flux2_transformer_checkpoint_to_diffusers"),
    "SD3": ("SD3Transformer2DModel", "convert_sd3_transformer_checkpoint_to_diffusers"),
    "Wan": ("WanTransformer3DModel", "convert_wan_transformer_to_diffusers"),
    "WanVACE": ("WanVACETransformer3DModel", "convert_wan_transformer_to_diffusers"),
    "HunyuanVideo": ("HunyuanVideoTransformer3DModel", "convert_hunyuan_video_transformer_to_diffusers"),
    "ZImage": ("ZImageTransformer2DModel", "convert_z_image_transformer_checkpoint_to_diffusers"),
    "Lumina2": ("Lumina2Transformer2DModel", "convert_lumina2_to_diffusers"),
    "LTXVideo": ("LTXVideoTransformer3DModel", "convert_ltx_transformer_checkpoint_to_diffusers"),
    "UNet": ("UNet2DConditionModel", "convert_ldm_unet_checkpoint"),
}


@dataclass(frozen=True)
class Model:
    """A model: the architecture under test, the parameters, and diffusers' converter with what it wants to know."""

    architecture: Architecture
    state: dict[str, Any]
    converter: str
    arguments: dict[str, Any]
    prefix: str = ""

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        return getattr(single_file_utils, self.converter)(dict(checkpoint), **self.arguments)


def build(name: str) -> Model:
    """Build one of the models above."""
    if name in UNETS:
        config = {"layers_per_block": 2, **UNETS[name]}
        class_name, converter = CLASSES["UNet"]
        state = state_of(getattr(diffusers, class_name), **config)
        return Model(unet.SDXL, state, converter, {"config": config}, "model.diffusion_model.")
    architecture, kind, config = TRANSFORMERS[name]
    class_name, converter = CLASSES[kind]
    return Model(architecture, state_of(getattr(diffusers, class_name), **config), converter, {})
