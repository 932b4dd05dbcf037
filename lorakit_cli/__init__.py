"""lorakit applies, merges and bakes LoRA adapters into diffusers pipelines."""

__version__ = "0.1.0"
