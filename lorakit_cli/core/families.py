"""Name the model family that an adapter was made for, or that a base belongs to, from shapes alone."""

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.kind import ANY
from lorakit_cli.core.lora_file import LoraFile, LoraLayer

# The width of the text features that cross attention reads tells the families of UNet apart.
_FAMILIES = {
    96: "lorakit demo",
    768: "SD1.x",
    1024: "SD2.x",
    1280: "SDXL refiner",
    2048: "SDXL",
}
ANOTHER = "another UNet"
"""What a family is called that has no name here."""
_CROSS_ATTENTION = ("attn2.to_k", "attn2.to_v", "attn2_to_k", "attn2_to_v")
_TRANSFORMERS = {
    "single_transformer_blocks.": "FLUX",
    "transformer_blocks.": "a diffusion transformer",
}


def family_of_width(width: int) -> str:
    """Name the family whose cross attention reads text features of this width."""
    return _FAMILIES.get(width, ANOTHER)


def adapter_family(file: LoraFile) -> str | None:
    """Name the family an adapter was made for, None where its layers do not tell."""
    width = _adapter_width(file)
    if width is not None:
        return family_of_width(width)
    for layer in file.layers:
        for mark, family in _TRANSFORMERS.items():
            if layer.component == "transformer" and layer.stem.removeprefix("transformer.").startswith(mark):
                return family
    return None


def base_family(base: BaseIndex) -> str:
    """Name the family of a base, or its pipeline class where the family is not known."""
    width = _base_width(base)
    return base.class_name if width is None else family_of_width(width)


def wrong_base(file: LoraFile, base: BaseIndex) -> str | None:
    """Say that an adapter is for another family of UNet, None where it is not or nobody can tell.

    Layers of equal shape exist in all of them, so that a part of the adapter would match by accident.
    """
    theirs, ours = _adapter_width(file), _base_width(base)
    if theirs is None or ours is None or theirs == ours:
        return None
    return (
        f"this adapter is for {family_of_width(theirs)} (attn2 input {theirs}); "
        f"the base is {family_of_width(ours)} ({ours})"
    )


def _adapter_width(file: LoraFile) -> int | None:
    layers = (layer for layer in file.layers if layer.component == "unet" and _bare(layer).endswith(_CROSS_ATTENTION))
    widths = (layer.delta_shape[1] for layer in layers if len(layer.delta_shape) > 1)
    return next((width for width in widths if width != ANY), None)


def _bare(layer: LoraLayer) -> str:
    return layer.format.body(layer.stem)


def _base_width(base: BaseIndex) -> int | None:
    unet = base.components.get("unet")
    width = unet.config.get("cross_attention_dim") if unet else None
    return width if isinstance(width, int) else None
