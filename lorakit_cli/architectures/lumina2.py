"""Lumina-Image 2.0, in the names of its own code.

https://github.com/Alpha-VLLM/Lumina-Image-2.0/blob/main/models/model.py
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lorakit_cli.architectures.renames import Renames, write
from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name

_BLOCK = {
    # Keys and values have fewer heads than queries: the three are not of one size.
    "attention.qkv": "attn.to_q attn.to_k attn.to_v",
    "attention.q_norm": "attn.norm_q",
    "attention.k_norm": "attn.norm_k",
    "attention.out": "attn.to_out.0",
    "feed_forward.w1": "feed_forward.linear_1",
    "feed_forward.w2": "feed_forward.linear_2",
    "feed_forward.w3": "feed_forward.linear_3",
    "attention_norm2": "norm2",
}
_MODULATED = {**_BLOCK, "attention_norm1": "norm1.norm", "adaLN_modulation.1": "norm1.linear"}
_TABLES = (
    Renames("layers.{}.", "layers.{}.", _MODULATED),
    Renames("noise_refiner.{}.", "noise_refiner.{}.", _MODULATED),
    Renames("context_refiner.{}.", "context_refiner.{}.", {**_BLOCK, "attention_norm1": "norm1"}),
    Renames(
        "",
        "",
        {
            "t_embedder.mlp.0": "time_caption_embed.timestep_embedder.linear_1",
            "t_embedder.mlp.2": "time_caption_embed.timestep_embedder.linear_2",
            "cap_embedder.0": "time_caption_embed.caption_embedder.0",
            "cap_embedder.1": "time_caption_embed.caption_embedder.1",
            # Only a scale: there is nothing to swap.
            "final_layer.adaLN_modulation.1": "norm_out.linear_1",
            "final_layer.linear": "norm_out.linear_2",
        },
    ),
)


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of a Lumina2Transformer2DModel have in Lumina's code."""
    return write(_TABLES, modules)


LUMINA2 = Architecture(
    name="Lumina2",
    denoiser="transformer",
    classes=frozenset({"Lumina2Transformer2DModel"}),
    marks=re.compile(
        r"(layers|noise_refiner|context_refiner)_\d+_(attn|attention|feed_forward|norm[12]|ffn_norm|adaLN)"
        r"|time_caption_embed_|cap_embedder_|t_embedder_mlp"
    ),
    native=native,
    parameters=partial(sizes, "lumina2"),
    widths=partial(widths, "lumina2"),
    variants={"Lumina-Image 2.0": ("Lumina-Image 2.0", "Neta Lumina")},
)
