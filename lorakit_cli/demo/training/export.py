"""Write what was trained as a diffusers folder in half precision, the way the package carries it."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from lorakit_cli.core.recipe import RECIPE_FILE
from lorakit_cli.demo.training import autoencoder, denoiser
from lorakit_cli.demo.training.tokens import build_tokenizer

GENERATE = {"steps": 20, "guidance": 4.0}


def export(work: Path, base: Path) -> None:
    """Write the base to a folder that must not exist yet."""
    unet, text_encoder = denoiser.load(work)
    pipeline = StableDiffusionPipeline(
        vae=autoencoder.load(work),
        text_encoder=text_encoder,
        tokenizer=build_tokenizer(),
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(**denoiser.NOISE_SCHEDULE, timestep_spacing="trailing"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(base)
    # transformers would otherwise load this component in half precision beside a UNet in single precision.
    config = base / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    (base / RECIPE_FILE).write_text(json.dumps({"schema": "lorakit/base/1", "generate": GENERATE}, indent=2) + "\n")


def export_adapters(work: Path, adapters: Path) -> None:
    """Copy the trained adapters."""
    adapters.mkdir(parents=True, exist_ok=True)
    for path in (work / "adapters").glob("*.safetensors"):
        shutil.copyfile(path, adapters / path.name)
