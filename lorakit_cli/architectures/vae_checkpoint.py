"""The autoencoder of Stable Diffusion, in the names of CompVis' code (ldm), which Stability's (sgm) kept.

https://github.com/CompVis/latent-diffusion/blob/main/ldm/modules/diffusionmodules/model.py
"""

import re
from collections.abc import Iterator, Sequence

from lorakit_cli.core.architecture import Name

_RESNET_PARTS = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "conv_shortcut": "nin_shortcut",
}
# diffusers before 0.15 had a class of its own for this attention, with other names.
_ATTENTION_PARTS = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}
_ENDS = {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"}
_END = re.compile(r"(encoder|decoder)\.(conv_in|conv_norm_out|conv_out)")
_MIDDLE = re.compile(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_LAYER = re.compile(r"(?:encoder\.(down)|decoder\.(up))_blocks\.(\d+)\.resnets\.(\d+)\.(.+)")
_SAMPLER = re.compile(r"(?:encoder\.(down)_blocks\.(\d+)\.down|decoder\.(up)_blocks\.(\d+)\.up)samplers\.0\.conv")
_UP = re.compile(r"decoder\.up_blocks\.(\d+)\.")

# Between encoder and decoder; a model without them is of a later family.
BETWEEN = ("quant_conv", "post_quant_conv")
# The projections of the attention, linear layers in diffusers, are 1x1 convolutions there.
CONVOLUTIONS = re.compile(r"(?:encoder|decoder)\.mid\.attn_1\.(?:q|k|v|proj_out)\.weight")


def native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names that the modules of an AutoencoderKL have in ldm's code."""
    # It counts the decoder's blocks from the picture on, diffusers from the latents on.
    last = max((int(found[1]) for module in modules if (found := _UP.match(module))), default=0)
    for module in modules:
        text = _name(module, last)
        if text is not None:
            yield Name(text, (module,))


def _name(module: str, last: int) -> str | None:
    """Write a module in ldm's name, None where it has none; `last` is the number of the decoder's last block."""
    if module in BETWEEN:
        return module
    if found := _END.fullmatch(module):
        return f"{found[1]}.{_ENDS[found[2]]}"
    if found := _MIDDLE.fullmatch(module):
        side, sort, number, part = found.groups()
        if sort == "resnets" and part in _RESNET_PARTS:
            return f"{side}.mid.block_{int(number) + 1}.{_RESNET_PARTS[part]}"
        if sort == "attentions" and part in _ATTENTION_PARTS:
            return f"{side}.mid.attn_{int(number) + 1}.{_ATTENTION_PARTS[part]}"
        return None
    if found := _LAYER.fullmatch(module):
        down, _, block, layer, part = found.groups()
        return f"{_block(down, block, last)}.block.{layer}.{_RESNET_PARTS[part]}" if part in _RESNET_PARTS else None
    if found := _SAMPLER.fullmatch(module):
        down, number, _, up_number = found.groups()
        return f"{_block(down, number or up_number, last)}.{'down' if down else 'up'}sample.conv"
    return None


def _block(down: str | None, number: str, last: int) -> str:
    return f"encoder.down.{number}" if down else f"decoder.up.{last - int(number)}"
