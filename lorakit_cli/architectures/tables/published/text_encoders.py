"""The text encoders that published models share."""

from lorakit_cli.architectures.tables.published.model import Model


def _clip(class_name: str, width: int, layers: int, heads: int) -> Model:
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
    depth = {"num_hidden_layers": layers, "num_attention_heads": heads}
    return Model(class_name, shape | depth | {"vocab_size": 49408, "max_position_embeddings": 77})


TEXT_ENCODERS = {
    "CLIP-L": _clip("CLIPTextModel", 768, 12, 12),
    "CLIP-L with projection": _clip("CLIPTextModelWithProjection", 768, 12, 12),
    # Published without its 24th layer, which Stable Diffusion 2 does not use.
    "OpenCLIP-H": _clip("CLIPTextModel", 1024, 23, 16),
    "OpenCLIP-G with projection": _clip("CLIPTextModelWithProjection", 1280, 32, 20),
    "T5-XXL": Model(
        "T5EncoderModel",
        {
            "d_model": 4096,
            "d_ff": 10240,
            "d_kv": 64,
            "num_heads": 64,
            "num_layers": 24,
            "vocab_size": 32128,
            "relative_attention_num_buckets": 32,
            "feed_forward_proj": "gated-gelu",
        },
    ),
}
