"""Make and keep the training pictures of one style, and turn pictures into tensors and back."""

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lorakit_cli.demo.training.drawing import SIZE, draw
from lorakit_cli.demo.training.words import Scene, training_scenes

STYLES = ("base", "toy", "pixel", "both")
COUNTS = {"base": 14000, "toy": 5000, "pixel": 3000, "both": 3000}


def training_set(style: str, work: Path) -> tuple[list[Scene], np.ndarray]:
    """Return the scenes and uint8 pictures `[count, 64, 64, 3]` of one style, drawn once and kept in `work`."""
    rng = random.Random(f"pictures {style}")
    scenes = rng.choices(training_scenes(), k=COUNTS[style])
    kept = work / f"pictures_{style}.npy"
    if not kept.exists():
        pictures = np.empty((len(scenes), SIZE, SIZE, 3), np.uint8)
        for index, scene in enumerate(scenes):
            pictures[index] = np.asarray(draw(scene, style, rng))
        np.save(kept, pictures)
    return scenes, np.load(kept, mmap_mode="r")


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """Turn uint8 `[count, 64, 64, 3]` into floats `[count, 3, 64, 64]` in -1..1."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_image(picture: torch.Tensor) -> Image.Image:
    """Turn one `[3, 64, 64]` tensor in -1..1 into a picture."""
    values = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).numpy())
