"""FLUX.2, in the names of Black Forest Labs' code.

https://github.com/black-forest-labs/flux2/blob/main/src/flux2/model.py
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lorakit_cli.architectures.flux import DOUBLE_ATTENTION
from lorakit_cli.architectures.renames import Renames, scaled, write
from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name

_TABLES = (
    Renames(
        "double_blocks.{}.",
        "transformer_blocks.{}.",
        {
            **DOUBLE_ATTENTION,
            "img_mlp.0": "ff.linear_in",
            "img_mlp.2": "ff.linear_out",
            "txt_mlp.0": "ff_context.linear_in",
            "txt_mlp.2": "ff_context.linear_out",
        },
    ),
    Renames(
        "single_blocks.{}.",
        "single_transformer_blocks.{}.",
        {
            **scaled({"norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k"}),
            "linear1": "attn.to_qkv_mlp_proj",
            "linear2": "attn.to_out",
        },
    ),
    Renames(
        "",
        "",
        {
            "img_in": "x_embedder",
            "txt_in": "context_embedder",
            "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
            "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
            "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
            "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
            "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
            "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
            "single_stream_modulation.lin": "single_stream_modulation.linear",
            "final_layer.linear": "proj_out",
            "final_layer.adaLN_modulation.1": "norm_out.linear",
        },
        # Here shift comes before scale, in diffusers after it.
        swapped=frozenset({"final_layer.adaLN_modulation.1"}),
    ),
)


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of a Flux2Transformer2DModel have in Black Forest Labs' code."""
    return write(_TABLES, modules)


FLUX2 = Architecture(
    name="FLUX.2",
    denoiser="transformer",
    classes=frozenset({"Flux2Transformer2DModel"}),
    marks=re.compile(
        r"(double|single)_blocks_\d+_|single_transformer_blocks_\d+_|(double|single)_stream_modulation"
        r"|(?<!\d_)transformer_blocks_\d+_(attn|ff|ff_context)_"
        r"|time_guidance_embed_|(time|guidance)_in_(in|out)_layer"
    ),
    native=native,
    parameters=partial(sizes, "flux2"),
    widths=partial(widths, "flux2"),
    variants={
        "FLUX.2 dev": ("FLUX.2 [dev]",),
        "FLUX.2 klein 4B": ("FLUX.2 [klein] 4B", "FLUX.2 [klein] Base 4B"),
        "FLUX.2 klein 9B": ("FLUX.2 [klein] 9B", "FLUX.2 [klein] Base 9B"),
    },
)
