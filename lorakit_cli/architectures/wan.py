"""Wan 2.1 and 2.2, in the names of Wan's own code.

https://github.com/Wan-Video/Wan2.2/blob/main/wan/modules/model.py
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lorakit_cli.architectures.renames import Renames, write
from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name

_BLOCK = {
    "self_attn.q": "attn1.to_q",
    "self_attn.k": "attn1.to_k",
    "self_attn.v": "attn1.to_v",
    "self_attn.o": "attn1.to_out.0",
    "self_attn.norm_q": "attn1.norm_q",
    "self_attn.norm_k": "attn1.norm_k",
    "cross_attn.q": "attn2.to_q",
    "cross_attn.k": "attn2.to_k",
    "cross_attn.v": "attn2.to_v",
    "cross_attn.o": "attn2.to_out.0",
    "cross_attn.norm_q": "attn2.norm_q",
    "cross_attn.norm_k": "attn2.norm_k",
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "cross_attn.norm_k_img": "attn2.norm_added_k",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    # diffusers counts the norms in the order of use, Wan names the one of cross attention last.
    "norm2": "norm3",
    "norm3": "norm2",
    "modulation": "scale_shift_table",
}
_TABLES = (
    Renames("blocks.{}.", "blocks.{}.", _BLOCK),
    Renames("vace_blocks.{}.", "vace_blocks.{}.", {**_BLOCK, "before_proj": "proj_in", "after_proj": "proj_out"}),
    Renames(
        "",
        "",
        {
            "text_embedding.0": "condition_embedder.text_embedder.linear_1",
            "text_embedding.2": "condition_embedder.text_embedder.linear_2",
            "time_embedding.0": "condition_embedder.time_embedder.linear_1",
            "time_embedding.2": "condition_embedder.time_embedder.linear_2",
            "time_projection.1": "condition_embedder.time_proj",
            "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
            "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
            "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
            "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
            "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
            "head.head": "proj_out",
            "head.modulation": "scale_shift_table",
        },
    ),
)


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of a WanTransformer3DModel have in Wan's code."""
    return write(_TABLES, modules)


WAN = Architecture(
    name="Wan",
    denoiser="transformer",
    classes=frozenset({"WanTransformer3DModel", "WanVACETransformer3DModel"}),
    # The blocks of a UNet's transformer have attn1 and attn2 as well, behind the number of the attention.
    marks=re.compile(
        r"(?<!\d_transformer_)blocks_\d+_(self_attn|cross_attn|attn[12]|ffn|norm[23]|modulation|scale_shift_table)"
        r"|vace_blocks_\d+_|condition_embedder_|(text|time)_embedding_[02]|time_projection_1|img_emb_|head_head"
    ),
    native=native,
    parameters=partial(sizes, "wan"),
    widths=partial(widths, "wan"),
    # VACE has blocks of its own: an adapter that leaves these alone, as nearly all do, fits it too.
    variants={
        "Wan T2V 14B": (
            "Wan 2.1 T2V 14B",
            "Wan 2.1 VACE 14B",
            "Wan 2.2 T2V A14B (high noise)",
            "Wan 2.2 T2V A14B (low noise)",
        ),
        "Wan 2.1 I2V 14B": ("Wan 2.1 I2V 14B 480P", "Wan 2.1 I2V 14B 720P", "Wan 2.1 FLF2V 14B"),
        "Wan 2.2 I2V 14B": ("Wan 2.2 I2V A14B (high noise)", "Wan 2.2 I2V A14B (low noise)"),
        "Wan T2V 1.3B": ("Wan 2.1 T2V 1.3B", "Wan 2.1 VACE 1.3B"),
        "Wan 2.2 TI2V 5B": ("Wan 2.2 TI2V 5B",),
    },
)
