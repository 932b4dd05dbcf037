"""FLUX.1, in the names of Black Forest Labs' code; Chroma is the same without the modulation.

https://github.com/black-forest-labs/flux/blob/main/src/flux/model.py
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lorakit_cli.architectures.renames import Renames, numbered, scaled, write
from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name

# FLUX.2 has them too.
DOUBLE_ATTENTION = {
    **numbered(
        {
            "img_attn.qkv": "attn.to_q attn.to_k attn.to_v",
            "txt_attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
        }
    ),
    **scaled(
        {
            "img_attn.norm.query_norm": "attn.norm_q",
            "img_attn.norm.key_norm": "attn.norm_k",
            "txt_attn.norm.query_norm": "attn.norm_added_q",
            "txt_attn.norm.key_norm": "attn.norm_added_k",
        }
    ),
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
}
_TABLES = (
    Renames(
        "double_blocks.{}.",
        "transformer_blocks.{}.",
        {
            **DOUBLE_ATTENTION,
            "img_mlp.0": "ff.net.0.proj",
            "img_mlp.2": "ff.net.2",
            "txt_mlp.0": "ff_context.net.0.proj",
            "txt_mlp.2": "ff_context.net.2",
            "img_mod.lin": "norm1.linear",
            "txt_mod.lin": "norm1_context.linear",
        },
    ),
    Renames(
        "single_blocks.{}.",
        "single_transformer_blocks.{}.",
        {
            **numbered({"linear1": "attn.to_q attn.to_k attn.to_v proj_mlp"}),
            # XLabs trains these three of the four alone.
            "linear1.qkv": "attn.to_q attn.to_k attn.to_v",
            **scaled({"norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k"}),
            "linear2": "proj_out",
            "modulation.lin": "norm.linear",
        },
    ),
    Renames(
        "",
        "",
        {
            "img_in": "x_embedder",
            # OneTrainer writes HunyuanVideo's name here too.
            "img_in.proj": "x_embedder",
            "txt_in": "context_embedder",
            "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
            "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
            "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
            "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
            "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
            "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
            "final_layer.linear": "proj_out",
            "final_layer.adaLN_modulation.1": "norm_out.linear",
        },
        # Here shift comes before scale, in diffusers after it.
        swapped=frozenset({"final_layer.adaLN_modulation.1"}),
    ),
    # Chroma reckons all modulation in one place. https://huggingface.co/lodestones/Chroma
    Renames(
        "distilled_guidance_layer.layers.{}.",
        "distilled_guidance_layer.layers.{}.",
        {"in_layer": "linear_1", "out_layer": "linear_2"},
    ),
    Renames("distilled_guidance_layer.norms.{}", "distilled_guidance_layer.norms.{}", {".scale": ""}),
)


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of a FluxTransformer2DModel or ChromaTransformer2DModel have in BFL's code."""
    return write(_TABLES, modules)


FLUX = Architecture(
    name="FLUX.1",
    denoiser="transformer",
    classes=frozenset({"FluxTransformer2DModel", "ChromaTransformer2DModel"}),
    marks=re.compile(
        r"(double|single)_blocks_\d+_|single_transformer_blocks_\d+_"
        r"|(?<!\d_)transformer_blocks_\d+_(attn|ff|ff_context|norm1|norm1_context)_"
        r"|time_text_embed_|(time|vector|guidance)_in_(in|out)_layer|distilled_guidance_layer_"
    ),
    native=native,
    parameters=partial(sizes, "flux1"),
    widths=partial(widths, "flux1"),
    # schnell has no guidance, Chroma no modulation; Fill, Canny and Depth read more channels: an adapter that
    # leaves these modules alone, as nearly all do, fits each of them.
    variants={
        "FLUX.1": (
            "FLUX.1 [dev]",
            "FLUX.1 [schnell]",
            "FLUX.1 Krea [dev]",
            "FLUX.1 Kontext [dev]",
            "FLUX.1 Fill [dev]",
            "FLUX.1 Canny [dev]",
            "FLUX.1 Depth [dev]",
            "Chroma",
        )
    },
)
