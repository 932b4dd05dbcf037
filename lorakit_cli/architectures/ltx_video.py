"""LTX-Video, in the names of Lightricks' code.

https://github.com/Lightricks/LTX-Video/blob/main/ltx_video/models/transformers/transformer3d.py
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lorakit_cli.architectures.renames import Renames, write
from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name

_TABLES = (
    Renames(
        "transformer_blocks.{}.",
        "transformer_blocks.{}.",
        {
            "attn1.q_norm": "attn1.norm_q",
            "attn1.k_norm": "attn1.norm_k",
            "attn2.q_norm": "attn2.norm_q",
            "attn2.k_norm": "attn2.norm_k",
        },
    ),
    Renames(
        "",
        "",
        {
            "patchify_proj": "proj_in",
            "adaln_single.emb.timestep_embedder.linear_1": "time_embed.emb.timestep_embedder.linear_1",
            "adaln_single.emb.timestep_embedder.linear_2": "time_embed.emb.timestep_embedder.linear_2",
            "adaln_single.linear": "time_embed.linear",
        },
    ),
)


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of an LTXVideoTransformer3DModel have in Lightricks' code."""
    return write(_TABLES, modules)


LTX_VIDEO = Architecture(
    name="LTX-Video",
    denoiser="transformer",
    classes=frozenset({"LTXVideoTransformer3DModel"}),
    # The blocks of a UNet's transformer look alike, behind the number of the attention.
    marks=re.compile(
        r"(?<!\d_)transformer_blocks_\d+_(attn[12]|ff|scale_shift_table)"
        r"|patchify_proj|adaln_single_|time_embed_(emb|linear)|caption_projection_"
    ),
    native=native,
    parameters=partial(sizes, "ltx_video"),
    widths=partial(widths, "ltx_video"),
    variants={"LTX-Video 2B": ("LTX-Video 2B 0.9", "LTX-Video 2B 0.9.1", "LTX-Video 2B 0.9.5", "LTX-Video 2B 0.9.6")},
)
