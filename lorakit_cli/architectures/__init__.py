"""The architectures lorakit knows: one file for each family, and this list of them.

A family's file is loaded when it is asked for, since most files of adapters can belong to one or two of them only.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from lorakit_cli.core.architecture import Architecture

if TYPE_CHECKING:
    ARCHITECTURES: tuple[Architecture, ...]

_UNET = (
    "down_blocks_0_ up_blocks_0_ put_blocks_0_ mid_block_ middle_block_0_ time_embed label_emb add_embedding conv_in "
    "conv_out conv_norm"
)
# For each file its architectures and hints: whatever an architecture's `marks` fit has one of these texts in it,
# numbers being 0, `_` standing for `.` and `^` for the start of a name, once the transformer blocks inside a UNet's
# blocks are put aside.
_FAMILIES = {
    "unet": ("SD1 SD2 SDXL", _UNET),
    "sd3": ("SD3", "joint_blocks_0_ transformer_blocks_0_ time_text_embed_ pos_embed_proj _embedder_"),
    "flux": (
        "FLUX",
        "double_blocks_0_ single_blocks_0_ transformer_blocks_0_ time_text_embed_ _in_in_ _in_out_ "
        "distilled_guidance_layer_",
    ),
    "flux2": (
        "FLUX2",
        "double_blocks_0_ single_blocks_0_ transformer_blocks_0_ _stream_modulation time_guidance_embed_ _in_in_ "
        "_in_out_",
    ),
    "wan": (
        "WAN",
        "blocks_0_self_attn blocks_0_cross_attn blocks_0_attn blocks_0_ffn blocks_0_norm blocks_0_modulation "
        "blocks_0_scale vace_blocks_0_ condition_embedder_ text_embedding_ time_embedding_0 time_embedding_2 "
        "time_projection_ img_emb_ head_head",
    ),
    "hunyuan_video": (
        "HUNYUAN_VIDEO",
        "double_blocks_0_ single_blocks_0_ transformer_blocks_0_ token_refiner_ time_text_embed_ _in_mlp vector_in_ "
        "txt_in_ img_in_proj",
    ),
    "qwen_image": ("QWEN_IMAGE", "transformer_blocks_0_ time_text_embed_timestep_embedder txt_norm"),
    "z_image": (
        "Z_IMAGE",
        "layers_0_attention layers_0_feed_forward layers_0_ffn_norm layers_0_adaLN refiner_0_ cap_embedder_ "
        "t_embedder_mlp all_x_embedder all_final_layer",
    ),
    "lumina2": (
        "LUMINA2",
        "layers_0_attn layers_0_attention layers_0_feed_forward layers_0_norm layers_0_ffn_norm layers_0_adaLN "
        "refiner_0_ time_caption_embed_ cap_embedder_ t_embedder_mlp",
    ),
    "ltx_video": ("LTX_VIDEO", "transformer_blocks_0_ patchify_proj adaln_single_ time_embed_ caption_projection_"),
    "like_diffusers": (
        "PIXART SANA AURAFLOW COGVIDEOX MOCHI HIDREAM HUNYUAN_IMAGE KREA2",
        "^blocks_0_ ^transformer_blocks_0_ ^single_ ^joint_ ^double_stream_ adaln_single_ caption_projection_",
    ),
    # A UNet of its own size.
    "demo": ("DEMO", _UNET),
}
_INNER, _ASIDE = "0_transformer_blocks_", "0_inner_"


def possible(text: str) -> list[Architecture]:
    """List the architectures that modules may belong to, given their names as `name_text` writes them."""
    outer = text.replace(_INNER, _ASIDE)
    loaded = [
        architecture
        for module, (_, hints) in _FAMILIES.items()
        if any(hint in outer for hint in hints.replace("^", "\n").split(" "))
        for architecture in _family(module)
    ]
    return [architecture for architecture in loaded if architecture.marks.search(text)]


@cache
def _family(module: str) -> tuple[Architecture, ...]:
    loaded = import_module(f"{__name__}.{module}")
    return tuple(getattr(loaded, name) for name in _FAMILIES[module][0].split())


def __getattr__(name: str) -> tuple[Architecture, ...]:
    """Give ARCHITECTURES, all of them. Raises AttributeError for any other name."""
    if name != "ARCHITECTURES":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return tuple(architecture for module in _FAMILIES for architecture in _family(module))
