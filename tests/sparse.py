"""Write safetensors files of full size that take no room: a true header over data nobody wrote."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

ITEM_SIZES = {"F32": 4, "F16": 2, "BF16": 2}


def write_sparse(
    path: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    metadata: Mapping[str, str] | None = None,
    alpha: float = 0.0,
) -> Path:
    """Write a header for name -> (dtype, shape); scalars called alpha get a value, the rest reads as zeros."""
    header: dict[str, object] = {"__metadata__": dict(metadata or {})}
    offset, values = 0, {}
    for name, (dtype, shape) in tensors.items():
        end = offset + ITEM_SIZES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        if name.endswith(".alpha"):
            values[offset] = torch.tensor(alpha, dtype={"F32": torch.float32, "F16": torch.float16}[dtype])
        offset = end
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
        for place, value in values.items():
            file.seek(8 + len(text) + place)
            file.write(value.numpy().tobytes())
    return path


def sdxl_unet() -> UNet2DConditionModel:
    """Build SDXL's UNet; without values where it is asked for so."""
    return UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(320, 640, 1280),
        cross_attention_dim=2048,
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def sparse_base(folder: Path, family: str) -> Path:
    """Write the UNet and text encoders of a full-size SD1.5 or SDXL pipeline, without values."""
    with init_empty_weights():
        if family == "sdxl":
            parts = {
                "unet": sdxl_unet(),
                "text_encoder": CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072)),
                "text_encoder_2": CLIPTextModelWithProjection(
                    CLIPTextConfig(
                        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20
                    )
                ),
            }
        else:
            parts = {
                "unet": UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8),
                "text_encoder": CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072)),
            }
    index = {"_class_name": "StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline"}
    for name, module in parts.items():
        stem = "diffusion_pytorch_model" if name == "unet" else "model"
        tensors = {key: ("F16", tuple(value.shape)) for key, value in module.state_dict().items()}
        write_sparse(folder / name / f"{stem}.safetensors", tensors)
        index[name] = ["diffusers" if name == "unet" else "transformers", type(module).__name__]
    config = {"cross_attention_dim": parts["unet"].config.cross_attention_dim}
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
