"""Pipelines of full size with random values in fp16, and adapters for them: real in everything but what they draw."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.sparse import sdxl_unet

RANK = 32
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
ADAPTED_IN_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
_SPECIAL = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def modules(family: str) -> dict[str, nn.Module]:
    """Build the components of SD1.5 or SDXL without values."""
    with init_empty_weights():
        small = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12))
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        if family == "sd15":
            unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
            return {"unet": unet, "vae": vae, "text_encoder": small}
        sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
        large = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, projection_dim=1280, hidden_act="gelu"))
        return {"unet": sdxl_unet(), "vae": vae, "text_encoder": small, "text_encoder_2": large}


def write_pipeline(folder: Path, family: str) -> Path:
    """Write a pipeline that diffusers loads."""
    torch.manual_seed(0)
    index: dict[str, object] = {"scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    for name, module in modules(family).items():
        inside = folder / name
        inside.mkdir(parents=True)
        text = name.startswith("text")
        stem = "model" if text else "diffusion_pytorch_model"
        values = {key: _values(key, value) for key, value in module.state_dict().items()}
        save_file(values, inside / f"{stem}.safetensors", metadata={"format": "pt"})
        module.config.save_pretrained(inside) if text else module.save_config(inside)
        index[name] = ["transformers" if text else "diffusers", type(module).__name__]
        if text:
            tokenizer = name.replace("text_encoder", "tokenizer")
            _write_tokenizer(folder / tokenizer)
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
    EulerDiscreteScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    if family == "sd15":
        index |= {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    else:
        index |= {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_adapters(folder: Path, family: str) -> tuple[Path, Path]:
    """Write `toy` for UNet and text encoders, and `pixel` for the UNet alone."""
    paths = folder / "toy.safetensors", folder / "pixel.safetensors"
    for seed, path in enumerate(paths):
        generator = torch.Generator().manual_seed(seed)
        factors: dict[str, torch.Tensor] = {}
        for component, module in modules(family).items():
            if component == "unet" or (component != "vae" and path.stem == "toy"):
                for name, (rows, columns) in _linear(module, ADAPTED if component == "unet" else ADAPTED_IN_TEXT):
                    down = torch.randn(RANK, columns, generator=generator) * columns**-0.5
                    up = torch.randn(rows, RANK, generator=generator) * 0.02
                    factors[f"{component}.{name}.lora_A.weight"] = down.half()
                    factors[f"{component}.{name}.lora_B.weight"] = up.half()
        save_file(factors, path)
    return paths


def write_unet_adapters(folder: Path) -> tuple[Path, Path]:
    """Write two adapters for the UNet of SDXL."""
    paths = folder / "one.safetensors", folder / "two.safetensors"
    layers = dict(_linear(modules("sdxl")["unet"], ADAPTED))
    for seed, path in enumerate(paths):
        generator = torch.Generator().manual_seed(seed)
        factors: dict[str, torch.Tensor] = {}
        for name, (rows, columns) in layers.items():
            down = torch.randn(RANK, columns, generator=generator) * columns**-0.5
            up = torch.randn(rows, RANK, generator=generator) * 0.02
            factors |= {f"unet.{name}.lora_A.weight": down.half(), f"unet.{name}.lora_B.weight": up.half()}
        save_file(factors, path)
    return paths


def _values(name: str, value: torch.Tensor) -> torch.Tensor:
    if not value.dtype.is_floating_point:
        return torch.arange(value.numel()).reshape(value.shape)
    if value.dim() > 1:
        return (torch.randn(value.shape) * value.shape[1:].numel() ** -0.5).half()
    return torch.full(value.shape, float("norm" in name and name.endswith("weight"))).half()


def _linear(module: nn.Module, ends: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, int]]]:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(ends):
            yield name, (layer.out_features, layer.in_features)


def _write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of single letters."""
    folder.mkdir()
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    words = [*letters, *(letter + "</w>" for letter in letters), *dict.fromkeys(_SPECIAL.values())]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>", **_SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
