"""Z-Image, in the names of its single-file checkpoint, which follows the code of Lumina 2.

https://huggingface.co/Comfy-Org/z_image_turbo
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from lorakit_cli.architectures.renames import Renames, write
from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name

_ATTENTION = {
    "qkv": "to_q to_k to_v",
    "q_norm": "norm_q",
    "k_norm": "norm_k",
    "out": "to_out.0",
}
_TABLES = (
    *(
        Renames(f"{blocks}.{{}}.attention.", f"{blocks}.{{}}.attention.", _ATTENTION)
        for blocks in ("layers", "noise_refiner", "context_refiner")
    ),
    # diffusers keeps one embedder and one last layer for each size of patch; there is one size, 2 by 2 by 1.
    Renames(
        "",
        "all_",
        {
            "x_embedder": "x_embedder.2-1",
            "final_layer.linear": "final_layer.2-1.linear",
            "final_layer.adaLN_modulation.1": "final_layer.2-1.adaLN_modulation.1",
        },
    ),
)


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of a ZImageTransformer2DModel have in the single-file checkpoint."""
    return write(_TABLES, modules)


Z_IMAGE = Architecture(
    name="Z-Image",
    denoiser="transformer",
    classes=frozenset({"ZImageTransformer2DModel"}),
    marks=re.compile(
        r"(layers|noise_refiner|context_refiner)_\d+_(attention|feed_forward|attention_norm|ffn_norm|adaLN)"
        r"|cap_embedder_|t_embedder_mlp|all_x_embedder|all_final_layer"
    ),
    native=native,
    parameters=partial(sizes, "z_image"),
    widths=partial(widths, "z_image"),
    variants={"Z-Image": ("Z-Image", "Z-Image-Turbo")},
)
