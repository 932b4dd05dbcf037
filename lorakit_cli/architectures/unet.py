"""The UNets of Stable Diffusion 1, 2 and XL, in the names of CompVis' (ldm) and Stability's (sgm) code.

https://github.com/Stability-AI/generative-models/blob/main/sgm/modules/diffusionmodules/openaimodel.py
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from lorakit_cli.architectures.tables import sizes
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


@dataclass(frozen=True, slots=True)
class _Blocks:
    """What the numbers of sgm's flat list of blocks depend on: layers per down block, up blocks with attention."""

    layers: int
    attentive: frozenset[str]

    @classmethod
    def of(cls, modules: Sequence[str]) -> "_Blocks":
        found = [match for module in modules if (match := _LAYER.fullmatch(module))]
        layers = [int(match[4]) + (match[1] == "down") for match in found]
        attentive = frozenset(match[2] for match in found if (match[1], match[3]) == ("up", "attentions"))
        return cls(max(layers, default=_LAYERS_PER_BLOCK), attentive)

    def name(self, module: str) -> str | None:
        """Write a module in sgm's name, None where it has none."""
        if module in _TOP:
            return _TOP[module]
        # A down block ends in a downsampler with a number of its own, an up block has one layer more.
        step = self.layers + 1
        if found := _LAYER.fullmatch(module):
            side, block, sort, layer, rest = found.groups()
            number = step * int(block) + int(layer)
            stem = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
            return _inside(f"{stem}.{0 if sort == 'resnets' else 1}", sort, rest)
        if found := _MIDDLE.fullmatch(module):
            sort, layer, rest = found.groups()
            return _inside(f"middle_block.{2 * int(layer) if sort == 'resnets' else 1}", sort, rest)
        if found := _SAMPLER.fullmatch(module):
            side, block = found.groups()
            if side == "down":
                return f"input_blocks.{step * (int(block) + 1)}.0.op"
            # The upsampler stands behind the last resnet and, where there is one, its attention.
            return f"output_blocks.{step * (int(block) + 1) - 1}.{2 if block in self.attentive else 1}.conv"
        return None


def _inside(stem: str, sort: str, rest: str) -> str:
    return f"{stem}.{_RESNET_PARTS.get(rest, rest) if sort == 'resnets' else rest}"


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of a UNet2DConditionModel have in ldm's and sgm's code."""
    blocks = _Blocks.of(modules)
    for module in modules:
        text = blocks.name(module)
        if text is not None:
            yield Name(text, (module,))


MARKS = late(
    r"(down|up)_blocks_\d+_(resnets|attentions|downsamplers|upsamplers)_|mid_block_(resnets|attentions)_"
    r"|(input|output)_blocks_\d+_|middle_block_\d+_|time_embed(_[02]|ding_linear_[12])|label_emb|add_embedding"
    r"|(^|_)conv(_norm)?_(in|out)$",
    re.MULTILINE,
)

_CLASSES = frozenset({"UNet2DConditionModel"})

SD1 = Architecture(
    name="SD1.x",
    denoiser="unet",
    classes=_CLASSES,
    marks=MARKS,
    native=native,
    parameters=partial(sizes, "sd1"),
    variants={"SD1.x": ("Stable Diffusion 1.4", "Stable Diffusion 1.5")},
)
SD2 = Architecture(
    name="SD2.x",
    denoiser="unet",
    classes=_CLASSES,
    marks=MARKS,
    native=native,
    parameters=partial(sizes, "sd2"),
    variants={
        "SD2.x": (
            "Stable Diffusion 2 base (epsilon)",
            "Stable Diffusion 2 (v-prediction)",
            "Stable Diffusion 2.1 base (epsilon)",
            "Stable Diffusion 2.1 (v-prediction)",
            "SD Turbo",
        )
    },
)
SDXL = Architecture(
    name="SDXL",
    denoiser="unet",
    classes=_CLASSES,
    marks=MARKS,
    native=native,
    parameters=partial(sizes, "sdxl"),
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
)
