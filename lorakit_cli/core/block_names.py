"""Name the block that a module belongs to, for numbers that are shown by block."""

import re

from lorakit_cli.core.stacks import unwrapped
from lorakit_cli.core.unet_blocks import PARTS, unet_block

_NUMBERED = re.compile(r"(\w+)\.(\d+)(?:\.|$)")
_FLAT = re.compile(r"mid_block|.*?_\d+(?=_|$)")
_LAST = frozenset({"conv_norm_out", "conv_out", "norm_out", "proj_out", "final_layer", "final_layer_norm"})
_UNET = re.compile(rf"({'|'.join(PARTS)})(?:(?:\.block|_blocks?)_?(\d+)?)?")


def block_of(component: str, module: str) -> str:
    """Name a module's block: `down.block_0` or `mid` in a UNet, `transformer_blocks.7` or `layers.3` elsewhere.

    A module outside all blocks goes by its first word.
    """
    block = unet_block(module)
    if block:
        return block[0] if block[0] == "mid" else f"{block[0]}.block_{block[1]}"
    module = unwrapped(component, module)
    numbered = _NUMBERED.match(module)
    return f"{numbered[1]}.{numbered[2]}" if numbered else module.partition(".")[0]


def block_of_flat(body: str) -> str:
    """Name a block after the beginning of a flattened stem, to its first number: which dots it had nobody can tell."""
    found = _FLAT.match(body)
    return found[0] if found else body


def block_order(component: str, block: str) -> tuple[bool, str, int, str, int]:
    """Give a key that sorts blocks as a model runs through them: the denoiser first, its ends at the ends."""
    denoiser = not component.startswith("text_encoder")
    unet = _UNET.fullmatch(block)
    if unet:
        return not denoiser, component, 2 + PARTS.index(unet[1]), "", int(unet[2] or 0)
    name, _, number = re.sub(r"_(\d+)$", r".\1", block).rpartition(".")
    if not number.isdecimal():
        return not denoiser, component, 9 if block in _LAST else 0, block, 0
    # The refiners of Lumina and Z-Image stand before the layers, the single blocks of FLUX after the double ones.
    stage = 1 if name.endswith("refiner") else 7 if name.startswith("single") else 6
    return not denoiser, component, stage, name, int(number)
