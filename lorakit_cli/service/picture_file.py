"""Write a picture as PNG with text chunks that say how it was made."""

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

CHUNK = "lorakit"
PARAMETERS = "parameters"


def save_picture(picture: Image.Image, file: BinaryIO, made_with: Mapping[str, Any]) -> None:
    """Write a picture: the same values give the same bytes.

    The chunk `lorakit` is JSON with everything; `parameters` says it in the one-text form of the A1111 web UI,
    which most viewers read.
    """
    chunks = PngInfo()
    chunks.add_itxt(CHUNK, json.dumps(made_with, ensure_ascii=False, sort_keys=True))
    chunks.add_itxt(PARAMETERS, _parameters(made_with))
    picture.save(file, "PNG", pnginfo=chunks)


def _parameters(made_with: Mapping[str, Any]) -> str:
    tags = "".join(f" <lora:{adapter['name']}:{adapter['weight']:g}>" for adapter in made_with["adapters"])
    lines = [made_with["prompt"] + tags]
    if made_with["negative_prompt"]:
        lines.append(f"Negative prompt: {made_with['negative_prompt']}")
    hashes = ", ".join(f"{adapter['name']}: {adapter['sha256'][:12]}" for adapter in made_with["adapters"])
    settings = [
        f"Steps: {made_with['steps']}",
        f"Sampler: {made_with['scheduler']}",
        f"CFG scale: {made_with['guidance']}",
        f"Seed: {made_with['seed']}",
        f"Size: {made_with['width']}x{made_with['height']}",
        f"Model: {made_with['base']}",
        *([f'Lora hashes: "{hashes}"'] if hashes else []),
        f"Version: lorakit {made_with['lorakit']}",
    ]
    return "\n".join([*lines, ", ".join(settings)])
