"""Name the model family that an adapter was made for, or that a base belongs to, from shapes alone."""

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.lora_file import LoraFile

# The width of the text features that cross attention reads tells the families of UNet apart.
_FAMILIES = {
    96: "lorakit demo",
    768: "SD1.x",
    1024: "SD2.x",
    1280: "SDXL refiner",
    2048: "SDXL",
}
_CROSS_ATTENTION = ("attn2.to_k", "attn2.to_v", "attn2_to_k", "attn2_to_v")
_TRANSFORMERS = {
    "single_transformer_blocks.": "FLUX",
    "transformer_blocks.": "a diffusion transformer",
}


def family_of_width(width: int) -> str:
    """Name the family whose cross attention reads text features of this width."""
    return _FAMILIES.get(width, f"a UNet with {width}-wide text features")


def adapter_family(file: LoraFile) -> str | None:
    """Name the family an adapter was made for, None where its layers do not tell."""
    for layer in file.layers:
        if layer.stem.endswith(_CROSS_ATTENTION):
            return family_of_width(layer.delta_shape[1])
    for layer in file.layers:
        for mark, family in _TRANSFORMERS.items():
            if layer.component == "transformer" and layer.stem.removeprefix("transformer.").startswith(mark):
                return family
    return None


def base_family(base: BaseIndex) -> str:
    """Name the family of a base, or its pipeline class where the family is not known."""
    unet = base.components.get("unet")
    width = unet.config.get("cross_attention_dim") if unet else None
    return family_of_width(width) if isinstance(width, int) else base.class_name
