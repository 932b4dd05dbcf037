"""What modules a FLUX.1 transformer has in diffusers, read from its tensors' names in a single-file checkpoint."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from lorakit_cli.core.architecture import Shape

_TOP = (
    "x_embedder",
    "context_embedder",
    *(
        f"time_text_embed.{embedder}_embedder.linear_{layer}"
        for embedder in ("timestep", "guidance", "text")
        for layer in (1, 2)
    ),
    "norm_out.linear",
    "proj_out",
)
# schnell is not told how strongly to follow the prompt.
OPTIONAL = re.compile(r"time_text_embed\.guidance_embedder\..+")
_DOUBLE = (
    "norm1.linear",
    "norm1_context.linear",
    *(f"attn.{part}" for part in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")),
    *(f"attn.{part}" for part in ("norm_q", "norm_k", "norm_added_q", "norm_added_k", "to_out.0", "to_add_out")),
    *(f"{side}.net.{layer}" for side in ("ff", "ff_context") for layer in ("0.proj", "2")),
)
_SINGLE = (
    "norm.linear",
    *(f"attn.{part}" for part in ("to_q", "to_k", "to_v", "norm_q", "norm_k")),
    "proj_mlp",
    "proj_out",
)
# A number too long for any model would be counted up to.
_BLOCK = re.compile(r"(double|single)_blocks\.(\d{1,3})\..+")


def modules(names: Collection[str]) -> list[str]:
    """List the modules of the diffusers transformer whose tensors have these original names."""
    counts = {"double": 0, "single": 0}
    for name in names:
        if found := _BLOCK.fullmatch(name):
            counts[found[1]] = max(counts[found[1]], int(found[2]) + 1)
    double = [f"transformer_blocks.{n}.{part}" for n in range(counts["double"]) for part in _DOUBLE]
    single = [f"single_transformer_blocks.{n}.{part}" for n in range(counts["single"]) for part in _SINGLE]
    return [*_TOP, *double, *single]


def config(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Give the configuration of a FLUX.1 transformer, in diffusers' words; all but the split of rotary axes shows."""
    width, channels = shapes["x_embedder.weight"]
    head = shapes["transformer_blocks.0.attn.norm_q.weight"][0]
    return {
        "in_channels": channels,
        "num_layers": _count(shapes, "transformer_blocks"),
        "num_single_layers": _count(shapes, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes["context_embedder.weight"][1],
        "pooled_projection_dim": shapes["time_text_embed.text_embedder.linear_1.weight"][1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in shapes,
    }


def pipeline(shapes: Mapping[str, Mapping[str, Shape]]) -> str:
    """Name the diffusers pipeline of a FLUX.1 checkpoint; its input channels tell those given more than noise."""
    channels = shapes["transformer"]["x_embedder.weight"][1]
    return {128: "FluxControlPipeline", 384: "FluxFillPipeline"}.get(channels, "FluxPipeline")


def _count(shapes: Mapping[str, Shape], stem: str) -> int:
    return 1 + max((int(name.split(".")[1]) for name in shapes if name.startswith(stem + ".")), default=-1)
