"""Qwen-Image, which was published with diffusers' code: its modules have no other names.

https://huggingface.co/Qwen/Qwen-Image
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write no names: those of diffusers are the original ones."""
    return iter(())


QWEN_IMAGE = Architecture(
    name="Qwen-Image",
    denoiser="transformer",
    classes=frozenset({"QwenImageTransformer2DModel"}),
    marks=re.compile(
        r"(?<!\d_)transformer_blocks_\d+_(attn|(img|txt)_(mlp|mod))_|time_text_embed_timestep_embedder|txt_norm"
    ),
    native=native,
    parameters=partial(sizes, "qwen_image"),
    widths=partial(widths, "qwen_image"),
    variants={
        "Qwen-Image": (
            "Qwen-Image",
            "Qwen-Image-2512",
            "Qwen-Image-Edit",
            "Qwen-Image-Edit-2509",
            "Qwen-Image-Edit-2511",
        )
    },
)
