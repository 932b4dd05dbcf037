"""HunyuanVideo, in the names of Tencent's code.

https://github.com/Tencent-Hunyuan/HunyuanVideo/blob/main/hyvideo/modules/models.py
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lorakit_cli.architectures.renames import Renames, numbered, write
from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name

# `fc0` is what OneTrainer makes of fc1.
_TABLES = (
    Renames(
        "double_blocks.{}.",
        "transformer_blocks.{}.",
        {
            **numbered(
                {
                    "img_attn_qkv": "attn.to_q attn.to_k attn.to_v",
                    "txt_attn_qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
                }
            ),
            "img_attn_q_norm": "attn.norm_q",
            "img_attn_k_norm": "attn.norm_k",
            "img_attn_proj": "attn.to_out.0",
            "img_mlp.fc1": "ff.net.0.proj",
            "img_mlp.fc2": "ff.net.2",
            "img_mlp.fc0": "ff.net.0.proj",
            "img_mod.linear": "norm1.linear",
            "txt_attn_q_norm": "attn.norm_added_q",
            "txt_attn_k_norm": "attn.norm_added_k",
            "txt_attn_proj": "attn.to_add_out",
            "txt_mlp.fc1": "ff_context.net.0.proj",
            "txt_mlp.fc2": "ff_context.net.2",
            "txt_mlp.fc0": "ff_context.net.0.proj",
            "txt_mod.linear": "norm1_context.linear",
        },
    ),
    Renames(
        "single_blocks.{}.",
        "single_transformer_blocks.{}.",
        {
            **numbered({"linear1": "attn.to_q attn.to_k attn.to_v proj_mlp"}),
            "linear2": "proj_out",
            "q_norm": "attn.norm_q",
            "k_norm": "attn.norm_k",
            "modulation.linear": "norm.linear",
        },
    ),
    Renames(
        "txt_in.individual_token_refiner.blocks.{}.",
        "context_embedder.token_refiner.refiner_blocks.{}.",
        {
            **numbered({"self_attn_qkv": "attn.to_q attn.to_k attn.to_v"}),
            "self_attn_proj": "attn.to_out.0",
            "norm1": "norm1",
            "norm2": "norm2",
            "mlp.fc1": "ff.net.0.proj",
            "mlp.fc2": "ff.net.2",
            "mlp.fc0": "ff.net.0.proj",
            "adaLN_modulation.1": "norm_out.linear",
        },
    ),
    Renames(
        "txt_in.",
        "context_embedder.",
        {
            "input_embedder": "proj_in",
            "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
            "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
            "c_embedder.linear_1": "time_text_embed.text_embedder.linear_1",
            "c_embedder.linear_2": "time_text_embed.text_embedder.linear_2",
        },
    ),
    Renames(
        "",
        "",
        {
            "img_in.proj": "x_embedder.proj",
            "time_in.mlp.0": "time_text_embed.timestep_embedder.linear_1",
            "time_in.mlp.2": "time_text_embed.timestep_embedder.linear_2",
            "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
            "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
            "guidance_in.mlp.0": "time_text_embed.guidance_embedder.linear_1",
            "guidance_in.mlp.2": "time_text_embed.guidance_embedder.linear_2",
            "final_layer.linear": "proj_out",
            "final_layer.adaLN_modulation.1": "norm_out.linear",
        },
        # Here shift comes before scale, in diffusers after it.
        swapped=frozenset({"final_layer.adaLN_modulation.1"}),
    ),
)


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of a HunyuanVideoTransformer3DModel have in Tencent's code."""
    return write(_TABLES, modules)


HUNYUAN_VIDEO = Architecture(
    name="HunyuanVideo",
    denoiser="transformer",
    classes=frozenset({"HunyuanVideoTransformer3DModel", "HunyuanVideoFramepackTransformer3DModel"}),
    marks=re.compile(
        r"(double|single)_blocks_\d+_|single_transformer_blocks_\d+_|token_refiner_"
        r"|(?<!\d_)transformer_blocks_\d+_(attn|ff|ff_context|norm1|norm1_context)_"
        r"|time_text_embed_|(time|guidance)_in_mlp|vector_in_(in|out)_layer|txt_in_[tc]_embedder|img_in_proj"
    ),
    native=native,
    parameters=partial(sizes, "hunyuan_video"),
    widths=partial(widths, "hunyuan_video"),
    variants={"HunyuanVideo": ("HunyuanVideo", "HunyuanVideo-I2V (token replace)", "FastHunyuan")},
)
