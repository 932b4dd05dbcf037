"""Build real but tiny pipelines and adapters with the libraries themselves, random weights."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from lorakit_cli.demo.training.tokens import build_tokenizer

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
CONVOLUTIONS = ["conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"]


def build_pipeline(width: int = 32, seed: int = 0) -> StableDiffusionPipeline:
    """Build a Stable Diffusion pipeline of SDXL's block layout whose text features are `width` wide."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    tokenizer = build_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        sample_size=16,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_adapter(
    path: Path,
    *,
    seed: int,
    rank: int = 4,
    alpha: float = 4,
    targets: list[str] | str | None = None,
    text: bool = True,
    width: int = 32,
    **config: object,
) -> Path:
    """Attach a random adapter with peft to a tiny pipeline, and write it with `save_lora_weights`."""
    pipeline = build_pipeline(width)
    torch.manual_seed(seed)
    parts = {"unet": pipeline.unet} | ({"text_encoder": pipeline.text_encoder} if text else {})
    tensors, metadata = {}, {}
    for name, module in parts.items():
        modules = targets or ATTENTION + CONVOLUTIONS if name == "unet" else ["q_proj", "k_proj", "v_proj", "out_proj"]
        settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, init_lora_weights=False, **config)
        module.add_adapter(settings, adapter_name="default")
        state = get_peft_model_state_dict(module)
        tensors[name] = state if name == "unet" else convert_state_dict_to_diffusers(state)
        metadata[f"{name}_lora_adapter_metadata"] = settings.to_dict()
    StableDiffusionPipeline.save_lora_weights(
        path.parent,
        unet_lora_layers=tensors["unet"],
        text_encoder_lora_layers=tensors.get("text_encoder"),
        weight_name=path.name,
        **metadata,
    )
    return path


def rewrite(source: Path, target: Path, change: object) -> Path:
    """Copy an adapter with its tensors changed by `change(dict) -> dict`, without metadata."""
    # Copies, since safetensors refuses tensors that share memory.
    save_file({name: tensor.clone() for name, tensor in change(load_file(source)).items()}, target)
    return target
