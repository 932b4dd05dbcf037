"""The layouts and dtypes that adapters are written in, as options name them."""

from enum import StrEnum


class Layout(StrEnum):
    """Layouts to convert to."""

    diffusers = "diffusers"
    peft = "peft"
    kohya = "kohya"
    comfy = "comfy"


class Dtype(StrEnum):
    """Dtypes to store an adapter in."""

    fp16 = "fp16"
    bf16 = "bf16"
    fp32 = "fp32"
