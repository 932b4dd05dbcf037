"""What modules a UNet has in diffusers, read from the names of its tensors in a single-file checkpoint, and back."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from lorakit_cli.architectures.unet import native
from lorakit_cli.core.architecture import Name, Shape

_TOP = ("conv_in", "time_embedding.linear_1", "time_embedding.linear_2", "conv_norm_out", "conv_out")
_EXTRA = ("add_embedding.linear_1", "add_embedding.linear_2")
_RESNET = ("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut")
# Only the models that are told size and crop have the embedding, only resnets that change the width the shortcut.
OPTIONAL = re.compile(r"add_embedding\..+|.+\.conv_shortcut")
# A number too long for any model would be counted up to.
_DOWNSAMPLER = re.compile(r"input_blocks\.(\d{1,3})\.0\.op\.weight")
# The second of a place is attention, or the upsampler of a block without attention.
_ATTENTION = re.compile(r"(?:middle_block|((?:in|out)put_blocks\.\d+))\.1\.(?!conv\.)(.+)\.(?:weight|bias)")
# The modules of the original code inside a block; what else stands there was added to it (IP-Adapter, GLIGEN).
_IN_BLOCK = re.compile(r".+\.(?:resnets|attentions)\.\d+\.")
_KNOWN = re.compile(
    rf".+\.resnets\.\d+\.(?:{'|'.join(_RESNET)})"
    r"|.+\.attentions\.\d+\.(?:norm|proj_in|proj_out"
    r"|transformer_blocks\.\d+\.(?:norm[123]|attn[12]\.to_(?:q|k|v|out\.0)|ff\.net\.(?:0\.proj|2)))"
)


def modules(names: Collection[str]) -> list[str]:
    """List the modules of the diffusers UNet whose tensors have these original names.

    The original numbers its places through: a convolution, then for each block its layers and a downsampler, which
    the last block lacks; the other way up likewise, with the upsampler behind the block's last layer.
    """
    samplers = [int(found[1]) for name in names if (found := _DOWNSAMPLER.fullmatch(name))]
    inputs, outputs = _last(names, "input_blocks"), _last(names, "output_blocks")
    # The first downsampler ends the first block; without any there is one block.
    places = min(samplers, default=inputs + 1)
    blocks = -(-(max(inputs, outputs) + 1) // places)
    inside = _attention_modules(names)
    listed = [*_TOP, *_EXTRA]
    for block in range(blocks):
        for layer in range(places):
            down, up = f"down_blocks.{block}", f"up_blocks.{block}"
            if layer < places - 1:
                listed += _layer(down, layer, inside.get(f"input_blocks.{places * block + layer + 1}", ()))
            elif block < blocks - 1:
                listed.append(f"{down}.downsamplers.0.conv")
            listed += _layer(up, layer, inside.get(f"output_blocks.{places * block + layer}", ()))
        if block < blocks - 1:
            listed.append(f"up_blocks.{block}.upsamplers.0.conv")
    listed += [f"mid_block.resnets.{layer}.{part}" for layer in (0, 1) for part in _RESNET]
    listed += [f"mid_block.attentions.0.{rest}" for rest in inside.get("middle_block", ())]
    return listed


def known_native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the native names of the modules that the original code has, and of no others."""
    return native([module for module in modules if _KNOWN.fullmatch(module) or not _IN_BLOCK.match(module)])


def config(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Give what shapes tell of a UNet's configuration, in diffusers' words."""
    width = next((shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), None)
    return {"cross_attention_dim": width, "in_channels": shapes["conv_in.weight"][1]}


def pipeline(shapes: Mapping[str, Mapping[str, Shape]]) -> str:
    """Name the diffusers pipeline of a UNet checkpoint; its input channels tell those for pictures to change."""
    unet = shapes["unet"]
    channels = unet["conv_in.weight"][1]
    if "add_embedding.linear_1.weight" in unet:
        # The refiner has the larger of SDXL's text encoders alone, and reads its features.
        alone = "text_encoder_2" in shapes and "text_encoder" not in shapes
        if alone or (len(shapes) == 1 and config(unet)["cross_attention_dim"] == 1280):
            return "StableDiffusionXLImg2ImgPipeline"
        changing = {8: "StableDiffusionXLInstructPix2PixPipeline", 9: "StableDiffusionXLInpaintPipeline"}
        return changing.get(channels, "StableDiffusionXLPipeline")
    changing = {
        5: "StableDiffusionDepth2ImgPipeline",
        8: "StableDiffusionInstructPix2PixPipeline",
        9: "StableDiffusionInpaintPipeline",
    }
    return changing.get(channels, "StableDiffusionPipeline")


def _last(names: Collection[str], stem: str) -> int:
    return max((int(name.split(".")[1]) for name in names if re.match(rf"{stem}\.\d{{1,3}}\.", name)), default=0)


def _layer(block: str, layer: int, attention: Collection[str]) -> Iterator[str]:
    for part in _RESNET:
        yield f"{block}.resnets.{layer}.{part}"
    for rest in attention:
        yield f"{block}.attentions.{layer}.{rest}"


def _attention_modules(names: Collection[str]) -> dict[str, dict[str, None]]:
    """List the modules inside each attention, which both codes name alike: by numbered place, each once."""
    inside: dict[str, dict[str, None]] = {}
    for name in names:
        if found := _ATTENTION.fullmatch(name):
            inside.setdefault(found[1] or "middle_block", {})[found[2]] = None
    return inside
