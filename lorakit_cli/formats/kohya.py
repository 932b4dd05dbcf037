"""The layout of kohya's sd-scripts for UNets: a prefix for the component, then the module's name with `_` for `.`.

SD1.x and SD2.x files carry diffusers' module names, SDXL files those of Stability's original code (sgm); LCM and
older SDXL trainers wrote diffusers' names for SDXL too. Which a file has shows when it is looked up.
https://github.com/kohya-ss/sd-scripts/blob/main/networks/lora.py
"""

import re

from lorakit_cli.core.lora_file import KeyFormat

_PREFIXES = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}
# diffusers -> sgm, as in sd-scripts' library/sdxl_model_util.py; every UNet with such files has two layers per block.
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
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_LAYERS = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)(?:\.(.+))?")
_SAMPLERS = re.compile(r"(?:down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.conv")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)(?:\.(.+))?")


def _component_of(stem: str) -> str | None:
    return next((component for prefix, component in _PREFIXES.items() if stem.startswith(prefix)), None)


def _stems(component: str, module: str) -> tuple[str, ...]:
    names = (module, *_sgm_names(module)) if component == "unet" else (module,)
    prefixes = [prefix for prefix, part in _PREFIXES.items() if part == component]
    return tuple(prefix + name.replace(".", "_") for name in names for prefix in prefixes)


def _sgm_names(module: str) -> tuple[str, ...]:
    """Write a module of a diffusers UNet in sgm's names; an upsampler's depends on whether its block has attention."""
    if module in _TOP:
        return (_TOP[module],)
    if found := _LAYERS.fullmatch(module):
        side, block, sort, layer, rest = found.groups()
        number = 3 * int(block) + int(layer)
        stem = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
        return (_inside(f"{stem}.{0 if sort == 'resnets' else 1}", sort, rest),)
    if found := _MIDDLE.fullmatch(module):
        sort, layer, rest = found.groups()
        return (_inside(f"middle_block.{2 * int(layer) if sort == 'resnets' else 1}", sort, rest),)
    if found := _SAMPLERS.fullmatch(module):
        block, side = int(found[1]), found[2]
        if side == "down":
            return (f"input_blocks.{3 * (block + 1)}.0.op",)
        return tuple(f"output_blocks.{3 * block + 2}.{place}.conv" for place in (1, 2))
    return ()


def _inside(stem: str, sort: str, rest: str | None) -> str:
    if rest is None:
        return stem
    return f"{stem}.{_RESNET_PARTS.get(rest, rest) if sort == 'resnets' else rest}"


KOHYA = KeyFormat("kohya", _component_of, _stems)
