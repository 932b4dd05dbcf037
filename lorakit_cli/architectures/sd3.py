"""Stable Diffusion 3 and 3.5, in the names of Stability's code.

https://github.com/Stability-AI/sd3.5/blob/main/mmditx.py
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lorakit_cli.architectures.renames import Renames, numbered, write
from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name

_TABLES = (
    Renames(
        "joint_blocks.{}.",
        "transformer_blocks.{}.",
        {
            **numbered(
                {
                    "x_block.attn.qkv": "attn.to_q attn.to_k attn.to_v",
                    "x_block.attn2.qkv": "attn2.to_q attn2.to_k attn2.to_v",
                    "context_block.attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
                }
            ),
            "x_block.attn.ln_q": "attn.norm_q",
            "x_block.attn.ln_k": "attn.norm_k",
            "x_block.attn.proj": "attn.to_out.0",
            "x_block.attn2.ln_q": "attn2.norm_q",
            "x_block.attn2.ln_k": "attn2.norm_k",
            "x_block.attn2.proj": "attn2.to_out.0",
            "x_block.mlp.fc1": "ff.net.0.proj",
            "x_block.mlp.fc2": "ff.net.2",
            "x_block.adaLN_modulation.1": "norm1.linear",
            "context_block.attn.ln_q": "attn.norm_added_q",
            "context_block.attn.ln_k": "attn.norm_added_k",
            "context_block.attn.proj": "attn.to_add_out",
            "context_block.mlp.fc1": "ff_context.net.0.proj",
            "context_block.mlp.fc2": "ff_context.net.2",
            "context_block.adaLN_modulation.1": "norm1_context.linear",
        },
    ),
    Renames(
        "",
        "",
        {
            "pos_embed": "pos_embed.pos_embed",
            "x_embedder.proj": "pos_embed.proj",
            "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
            "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
            "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
            "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
            "final_layer.linear": "proj_out",
            "final_layer.adaLN_modulation.1": "norm_out.linear",
        },
        # Here shift comes before scale, in diffusers after it.
        swapped=frozenset({"final_layer.adaLN_modulation.1"}),
    ),
)
_CONTEXT_NORM = "norm1_context.linear"


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of an SD3Transformer2DModel have in Stability's code.

    The last block only reads the context: it has no output for it, and its norm is one of shift and scale, whose
    order diffusers turns round.
    """
    known = frozenset(modules)
    for name in write(_TABLES, modules):
        block = name.parts[0].removesuffix(_CONTEXT_NORM)
        only_read = name.parts[0].endswith(_CONTEXT_NORM) and f"{block}attn.to_add_out" not in known
        yield name._replace(swapped=True) if only_read else name


SD3 = Architecture(
    name="SD3",
    denoiser="transformer",
    classes=frozenset({"SD3Transformer2DModel"}),
    marks=re.compile(
        r"joint_blocks_\d+_|(?<!\d_)transformer_blocks_\d+_(attn2?|ff|ff_context|norm1|norm1_context)_"
        r"|time_text_embed_|pos_embed_proj|[xty]_embedder_(mlp|proj)"
    ),
    native=native,
    parameters=partial(sizes, "sd3"),
    widths=partial(widths, "sd3"),
    variants={
        "SD3 Medium": ("Stable Diffusion 3 Medium",),
        "SD3.5 Medium": ("Stable Diffusion 3.5 Medium",),
        "SD3.5 Large": ("Stable Diffusion 3.5 Large", "Stable Diffusion 3.5 Large Turbo"),
    },
)
