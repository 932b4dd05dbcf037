"""lorakit applies LoRA adapters to diffusers pipelines, exactly and said beforehand."""

__version__ = "0.1.0"
