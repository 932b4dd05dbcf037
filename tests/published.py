"""A pipeline as people publish theirs: with much beside it that nobody needs."""

import shutil
from pathlib import Path

BESIDE = (
    "README.md",
    ".gitattributes",
    "tiny.safetensors",
    "tiny.ckpt",
    "grid.png",
    "assets/example.png",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder/flax_model.msgpack",
    "vae/model.onnx",
)


def publish(base: Path, folder: Path) -> Path:
    """Copy a pipeline's folder, and put the rest of a repository beside it."""
    shutil.copytree(base, folder)
    for name in BESIDE:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(base / "unet" / "diffusion_pytorch_model.safetensors", folder / name)
    return folder
