"""Tiny whole pipelines of Stable Diffusion's families, and the plain way to write what a WeightsFile describes."""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.weights_file import WeightsFile
from lorakit_cli.demo.training.tokens import build_tokenizer

FAMILIES = ("sd1", "sd2", "sdxl", "refiner")
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def build(family: str) -> DiffusionPipeline:
    """Build a pipeline of random values, with the blocks, projections and text encoders that the family has."""
    torch.manual_seed(5)
    tokenizer = build_tokenizer()
    xl = family in ("sdxl", "refiner")
    texts: dict[str, nn.Module | None] = {
        "sd1": {"text_encoder": _text_encoder(12, 2, "quick_gelu", len(tokenizer))},
        "sd2": {"text_encoder": _text_encoder(12, 3, "gelu", len(tokenizer))},
        "sdxl": {
            "text_encoder": _text_encoder(4, 3, "quick_gelu", len(tokenizer)),
            "text_encoder_2": _text_encoder(8, 2, "gelu", len(tokenizer), projected=True),
        },
        "refiner": {
            "text_encoder": None,
            "text_encoder_2": _text_encoder(12, 2, "gelu", len(tokenizer), projected=True),
        },
    }[family]
    parts: dict[str, nn.Module | None] = {"unet": _unet(family), "vae": _vae(), **texts}
    for part in parts.values():
        for value in part.parameters() if part else ():
            # Norms start as ones and biases as zeros, which would hide that two of them change places.
            value.data += 0.1 * torch.randn_like(value)
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    if not xl:
        rest = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return StableDiffusionPipeline(**parts, tokenizer=tokenizer, scheduler=scheduler, **rest)
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionXLImg2ImgPipeline
    first = tokenizer if family == "sdxl" else None
    return kind(**parts, tokenizer=first, tokenizer_2=tokenizer, scheduler=scheduler)


def _unet(family: str) -> nn.Module:
    levels = 3 if family == "sdxl" else 4
    plain = {"sd1": {3}, "sd2": {3}, "sdxl": {0}, "refiner": {0, 3}}[family]
    sorts = ["" if level in plain else "CrossAttn" for level in range(levels)]
    more = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 * 4 + 8 if family == "sdxl" else 5 * 4 + 12,
        "transformer_layers_per_block": 2,
    }
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=[8, 16, 16, 16][:levels],
        down_block_types=[f"{sort}DownBlock2D" for sort in sorts],
        up_block_types=[f"{sort}UpBlock2D" for sort in reversed(sorts)],
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=4,
        use_linear_projection=family != "sd1",
        **(more if family in ("sdxl", "refiner") else {}),
    )


def _text_encoder(width: int, layers: int, activation: str, words: int, projected: bool = False) -> nn.Module:
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        hidden_act=activation,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _vae() -> nn.Module:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 8, 8),
        layers_per_block=2,
        norm_num_groups=4,
        sample_size=32,
    )


def write(file: WeightsFile, base: BaseIndex, folder: Path) -> Path:
    """Write what is described, tensor by tensor, and require that it lies where it is said to."""
    path = folder / file.name
    values = {component: folder_tensors(base, component) for component in base.components}
    with path.open("wb") as target:
        target.write(file.header)
        for piece in file.pieces:
            assert target.tell() == piece.begin
            value = values[piece.target.component][piece.target.tensor].to(DTYPES[piece.dtype])
            value = value.T if piece.transposed else value
            target.write(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        assert target.tell() == file.size
    return path


def folder_tensors(base: BaseIndex, component: str) -> Mapping[str, torch.Tensor]:
    """Read the tensors of a component from all its files."""
    tensors: dict[str, torch.Tensor] = {}
    for file in {tensor.local_file for tensor in base.components[component].tensors.values()}:
        tensors |= load_file(file)
    return tensors
