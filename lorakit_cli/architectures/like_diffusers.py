"""Families whose adapters carry the names of diffusers: PixArt, Sana, AuraFlow, CogVideoX, Mochi, HiDream, Krea 2."""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name

# The families share most of these names; which of them it is shows in the shapes.
_MARKS = re.compile(
    r"^(single_|joint_|double_stream_|single_stream_)?(transformer_)?blocks_\d+_"
    r"(attn[12]?|ff|ff_context|norm[12]|norm1_context|block|img_mlp|mlp)_|adaln_single_|caption_projection_",
    re.MULTILINE,
)


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write no other names than those of diffusers."""
    yield from ()


def _family(name: str, table: str, *classes: str) -> Architecture:
    return Architecture(
        name=name,
        denoiser="transformer",
        classes=frozenset(classes),
        marks=_MARKS,
        native=native,
        parameters=partial(sizes, table),
        widths=partial(widths, table),
        variants={},
    )


PIXART = _family("PixArt", "pixart", "PixArtTransformer2DModel")
SANA = _family("Sana", "sana", "SanaTransformer2DModel")
AURAFLOW = _family("AuraFlow", "auraflow", "AuraFlowTransformer2DModel")
COGVIDEOX = _family("CogVideoX", "cogvideox", "CogVideoXTransformer3DModel")
MOCHI = _family("Mochi", "mochi", "MochiTransformer3DModel")
HIDREAM = _family("HiDream", "hidream", "HiDreamImageTransformer2DModel")
HUNYUAN_IMAGE = _family("HunyuanImage", "hunyuan_image", "HunyuanImageTransformer2DModel")
KREA2 = _family("Krea 2", "krea2", "Krea2Transformer2DModel")
