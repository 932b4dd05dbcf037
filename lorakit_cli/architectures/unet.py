"""The UNets of Stable Diffusion 1, 2 and XL, in the names of CompVis' (ldm) and Stability's (sgm) code.

https://github.com/Stability-AI/generative-models/blob/main/sgm/modules/diffusionmodules/openaimodel.py
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from lorakit_cli.architectures.tables import sizes, widths
from lorakit_cli.core.architecture import Architecture, Name
from lorakit_cli.core.late import late

_RESNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding": "label_emb",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_LAYER = late(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
_SAMPLER = late(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv")
_MIDDLE = late(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
# What every published UNet has, for a list of modules that does not show it.
_LAYERS_PER_BLOCK = 2


class _Blocks(NamedTuple):
    """What the numbers of sgm's flat list of blocks depend on: layers per down block, up blocks with attention."""

    layers: int
    attentive: frozenset[str]

    @classmethod
    def of(cls, found: Iterable[re.Match[str]]) -> "_Blocks":
        layers: set[int] = set()
        attentive: set[str] = set()
        for side, block, sort, layer in {match.group(1, 2, 3, 4) for match in found}:
            layers.add(int(layer) + (side == "down"))
            if (side, sort) == ("up", "attentions"):
                attentive.add(block)
        return cls(max(layers, default=_LAYERS_PER_BLOCK), frozenset(attentive))

    def layer(self, found: re.Match[str]) -> str:
        """Write a module in one of a block's layers in sgm's name."""
        side, block, sort, layer, rest = found.groups()
        # A down block ends in a downsampler with a number of its own, an up block has one layer more.
        number = (self.layers + 1) * int(block) + int(layer)
        stem = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
        return _inside(f"{stem}.{0 if sort == 'resnets' else 1}", sort, rest)

    def other(self, module: str) -> str | None:
        """Write any other module in sgm's name, None where it has none."""
        if module in _TOP:
            return _TOP[module]
        if found := _MIDDLE.fullmatch(module):
            sort, layer, rest = found.groups()
            return _inside(f"middle_block.{2 * int(layer) if sort == 'resnets' else 1}", sort, rest)
        if found := _SAMPLER.fullmatch(module):
            side, block = found.groups()
            last = (self.layers + 1) * (int(block) + 1)
            if side == "down":
                return f"input_blocks.{last}.0.op"
            # The upsampler stands behind the last resnet and, where there is one, its attention.
            return f"output_blocks.{last - 1}.{2 if block in self.attentive else 1}.conv"
        return None


def _inside(stem: str, sort: str, rest: str) -> str:
    return f"{stem}.{_RESNET_PARTS.get(rest, rest) if sort == 'resnets' else rest}"


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of a UNet2DConditionModel have in ldm's and sgm's code."""
    found = [(module, _LAYER.fullmatch(module)) for module in modules]
    blocks = _Blocks.of(layer for _, layer in found if layer)
    for module, layer in found:
        text = blocks.layer(layer) if layer else blocks.other(module)
        if text is not None:
            yield Name(text, (module,))


MARKS = late(
    r"(down|up)_blocks_\d+_(resnets|attentions|downsamplers|upsamplers)_|mid_block_(resnets|attentions)_"
    r"|(input|output)_blocks_\d+_|middle_block_\d+_|time_embed(_[02]|ding_linear_[12])|label_emb|add_embedding"
    r"|(^|_)conv(_norm)?_(in|out)$",
    re.MULTILINE,
)

_CLASSES = frozenset({"UNet2DConditionModel"})
# Both codes have the same transformers in their attentions.
UNCHANGED = ".transformer_blocks."

SD1 = Architecture(
    name="SD1.x",
    denoiser="unet",
    classes=_CLASSES,
    marks=MARKS,
    native=native,
    parameters=partial(sizes, "sd1"),
    widths=partial(widths, "sd1"),
    variants={"SD1.x": ("Stable Diffusion 1.4", "Stable Diffusion 1.5")},
    unchanged=UNCHANGED,
)
SD2 = Architecture(
    name="SD2.x",
    denoiser="unet",
    classes=_CLASSES,
    marks=MARKS,
    native=native,
    parameters=partial(sizes, "sd2"),
    widths=partial(widths, "sd2"),
    variants={
        "SD2.x": (
            "Stable Diffusion 2 base (epsilon)",
            "Stable Diffusion 2 (v-prediction)",
            "Stable Diffusion 2.1 base (epsilon)",
            "Stable Diffusion 2.1 (v-prediction)",
            "SD Turbo",
        )
    },
    unchanged=UNCHANGED,
)
SDXL = Architecture(
    name="SDXL",
    denoiser="unet",
    classes=_CLASSES,
    marks=MARKS,
    native=native,
    parameters=partial(sizes, "sdxl"),
    widths=partial(widths, "sdxl"),
    variants={
        "SDXL": (
            "Stable Diffusion XL",
            "SDXL Turbo",
            "Pony Diffusion V6 XL",
            "Illustrious XL",
            "NoobAI-XL",
            "NoobAI-XL (v-prediction)",
            "Animagine XL",
            "Playground v2.5",
            "Kolors",
        ),
        "SDXL refiner": ("Stable Diffusion XL refiner",),
    },
    unchanged=UNCHANGED,
)
