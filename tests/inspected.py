"""A small file as kohya's trainer writes it, and what `inspect --json` says of any file."""

import torch
from safetensors.torch import save_file

FIELDS = {
    "schema", "path", "usable", "verdict", "architecture", "confidence", "reasons", "candidates",
    "stated_architectures", "dialect", "layouts", "algorithms", "components", "layers", "ranks", "alphas", "scales",
    "dtypes", "size", "unknown_keys", "embeddings", "few_step", "triggers", "triggers_detail", "training",
    "merge_history", "beside", "hashes", "problems", "match", "keys", "scan", "strength",
}  # fmt: skip


def kohya(path, metadata=None, **changes):
    """Write a small file as kohya's trainer does, two layers of SD1.x, with some tensors changed."""
    module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_"
    tensors = {}
    for part in "kv":
        tensors |= {
            f"{module}{part}.lora_down.weight": torch.ones(4, 768),
            f"{module}{part}.lora_up.weight": torch.ones(320, 4),
            f"{module}{part}.alpha": torch.tensor(2.0),
        }
    tensors |= {f"{module}{name}": value for name, value in changes.items()}
    save_file({name: value for name, value in tensors.items() if value is not None}, path, metadata)
    return path
