"""CLIP text encoders as single-file checkpoints name them, written from the names that transformers gives.

Where such a checkpoint keeps the encoder (`conditioner.embedders.0.`, `text_encoders.clip_l.`) is not part of the
names. transformers puts `text_model.` before its own, from version 5 on only where there is a projection; both ways
are understood.
"""

from collections.abc import Iterator, Sequence

from lorakit_cli.architectures.renames import Renames, write
from lorakit_cli.core.architecture import Name

_WRAPPER = "text_model."
# Outside the wrapper in every version of transformers.
_PROJECTION = "text_projection"


def clip(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names of a CLIPTextModel or CLIPTextModelWithProjection inside ldm's and ComfyUI's wrappers."""
    for module in modules:
        bare = module.startswith(_WRAPPER) or module == _PROJECTION
        yield Name(f"transformer.{'' if bare else _WRAPPER}{module}", (module,))


def open_clip(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names of a CLIPTextModel or CLIPTextModelWithProjection in OpenCLIP's code.

    `attn.in_proj` joins its parameters with `_` (`attn.in_proj_weight`), and `positional_embedding` is a parameter
    itself. The text projection is left out: OpenCLIP keeps it transposed, so that rows are not rows.
    https://github.com/mlfoundations/open_clip/blob/main/src/open_clip/transformer.py
    """
    wrapper = _WRAPPER if any(module.startswith(_WRAPPER) for module in modules) else ""
    return write(
        (
            Renames(
                "transformer.resblocks.{}.",
                f"{wrapper}encoder.layers.{{}}.",
                {
                    "attn.in_proj": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
                    "attn.out_proj": "self_attn.out_proj",
                    "ln_1": "layer_norm1",
                    "ln_2": "layer_norm2",
                    "mlp.c_fc": "mlp.fc1",
                    "mlp.c_proj": "mlp.fc2",
                },
            ),
            Renames(
                "",
                wrapper,
                {
                    "token_embedding": "embeddings.token_embedding",
                    "positional_embedding": "embeddings.position_embedding",
                    "ln_final": "final_layer_norm",
                },
            ),
        ),
        modules,
    )
