"""Where the blocks lie that block weights number: those of Stable Diffusion's UNets, in the original code, and FLUX's.

BASE is the text encoders, IN00 the first convolution, M00 the middle; a short row names only blocks with attention.
"""

from collections.abc import Mapping
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.block_weights import BlockWeights
from lorakit_cli.core.blocks import Blocks, Position, blocks_of
from lorakit_cli.core.bound_scales import BoundComponent
from lorakit_cli.core.late import late
from lorakit_cli.errors import BlockScalesError

# What the blocks of a UNet with as many levels are called in a short row.
_SHORT = {
    4: ("IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "M00", *(f"OUT{n:02}" for n in range(3, 12))),
    3: ("IN04", "IN05", "IN07", "IN08", "M00", *(f"OUT{n:02}" for n in range(6))),
}
_LAYER = late(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.")
_FLUX = "FluxTransformer2DModel"
_FLUX_STACKS = {"D": "transformer_blocks", "S": "single_transformer_blocks"}
_FLUX_ENDS = {"IN": ("x_embedder", "context_embedder", "time_text_embed"), "OUT": ("norm_out", "proj_out")}
# A stage of the original code: two layers and a sampler, or three layers.
_STAGE = 3


class _Numbering(NamedTuple):
    """How a base is numbered: the rows of names that it takes, and where each name lies in the denoiser."""

    rows: tuple[tuple[str, ...], ...]
    component: str
    blocks: Blocks
    places: Mapping[str, tuple[Position, ...]]
    encoders: Mapping[str, tuple[str, ...]]


def bind_weights(where: str, weights: BlockWeights, base: BaseIndex) -> Mapping[str, float | BoundComponent]:
    """Give the scale of every place of a base. Raises BlockScalesError that says which rows it takes.

    A block that a row leaves out has 0, as in the web UIs; what is no block keeps 1.
    """
    encoders = [name for name in base.components if name.startswith("text_encoder")]
    denoisers = [name for name in base.components if name.startswith(("unet", "transformer"))]
    if not weights.numbers and not weights.preset:
        return dict.fromkeys(encoders, weights.te) | dict.fromkeys(denoisers, weights.unet)
    numbering = _unet(base) or _flux(base)
    if numbering is None:
        raise BlockScalesError(
            f"{where}: block weights number the blocks of SD1.x, SD2.x, SDXL and FLUX.1 only; for this base write "
            f"JSON, such as {_example(base, denoisers)}"
        )
    numbers = weights.of_length([len(row) for row in numbering.rows])
    if numbers is None:
        given = f"the preset {weights.preset}" if weights.preset else f"{len(weights.numbers)} block weights"
        rows = " or ".join(f"{len(row)} ({', '.join(_runs(row))})" for row in numbering.rows)
        raise BlockScalesError(f"{where}: {given} for another kind of base; this one takes {rows}")
    row = next(row for row in numbering.rows if len(row) == len(numbers))
    given_to = dict(zip(row, numbers, strict=True))
    bound: dict[str, float | BoundComponent] = {}
    for name, own in numbering.encoders.items():
        bound |= {encoder: weights.te * given_to[name] for encoder in own if encoder in base.components}
    blocks = numbering.blocks
    places = [place for group in blocks.groups for place in blocks.positions(group)]
    values = dict.fromkeys(places, 0.0) | dict.fromkeys(map(Position, blocks.outside), weights.unet)
    for name, positions in numbering.places.items():
        values |= dict.fromkeys(positions, weights.unet * given_to.get(name, 0.0))
    named = tuple(place.group for own in numbering.places.values() for place in own)
    bound[numbering.component] = BoundComponent(blocks, values, named)
    return bound


def _unet(base: BaseIndex) -> _Numbering | None:
    """Number a UNet of three or four levels with two layers each, None for another."""
    component = base.components.get("unet")
    if component is None:
        return None
    found = [(module, _LAYER.match(f"{module}.")) for module in component.modules]
    layers = [layer for _, layer in found if layer]
    levels = 1 + max((int(layer[2]) for layer in layers), default=0)
    resnets = {(layer[1], int(layer[4])) for layer in layers if layer[3] == "resnets"}
    if levels not in _SHORT or resnets != {("down", 0), ("down", 1), ("up", 0), ("up", 1), ("up", 2)}:
        return None
    total = _STAGE * levels
    groups = {"IN": dict.fromkeys(range(total), 0), "M": {0: 0}, "OUT": dict.fromkeys(range(total), 0)}
    outside = tuple(dict.fromkeys(own.group for own in map(_number, component.modules) if own.block is None))
    blocks = Blocks(groups, outside, _number, digits=2)
    names = {f"{group}{n:02}": (Position(group, n),) for group, counts in groups.items() for n in counts}
    attentive = {_number(module) for module, layer in found if layer and layer[3] == "attentions"}
    short = _SHORT[levels]
    rows = [("BASE", *names)]
    if attentive | {Position("M", 0)} == {names[name][0] for name in short}:
        rows.insert(0, ("BASE", *short))
    encoders = {"BASE": tuple(name for name in base.components if name.startswith("text_encoder"))}
    return _Numbering(tuple(rows), "unet", blocks, names, encoders)


def _number(module: str) -> Position:
    """Give the number that a module of a UNet has in the original code, or its first name."""
    layer = _LAYER.match(f"{module}.")
    if not layer:
        first = module.partition(".")[0]
        return {"mid_block": Position("M", 0), "conv_in": Position("IN", 0)}.get(first, Position(first))
    stage, place = _STAGE * int(layer[2]), int(layer[4])
    if layer[1] == "down":
        return Position("IN", stage + (_STAGE if layer[3] == "downsamplers" else 1 + place))
    return Position("OUT", stage + (_STAGE - 1 if layer[3] == "upsamplers" else place))


def _flux(base: BaseIndex) -> _Numbering | None:
    """Number the blocks of FLUX.1, as many as it has, None for another base."""
    component = base.components.get("transformer")
    if component is None or component.class_name != _FLUX:
        return None
    blocks = blocks_of(component)
    ends = {name: tuple(Position(own) for own in names if own in blocks.outside) for name, names in _FLUX_ENDS.items()}
    stacks = {
        f"{letter}{number:02}": (Position(stack, number),)
        for letter, stack in _FLUX_STACKS.items()
        for number in blocks.groups.get(stack, ())
    }
    row = ("CLIP", "T5", "IN", *stacks, "OUT")
    encoders = {"CLIP": ("text_encoder",), "T5": ("text_encoder_2",)}
    return _Numbering((row,), "transformer", blocks, ends | stacks, encoders)


def _runs(names: tuple[str, ...]) -> list[str]:
    """Write names with numbers in a row as runs."""
    runs: list[list[str]] = []
    for name in names:
        last = runs[-1][-1] if runs else ""
        if last[:-2] == name[:-2] and last[-2:].isdecimal() and int(last[-2:]) + 1 == int(name[-2:]):
            runs[-1].append(name)
        else:
            runs.append([name])
    return [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def _example(base: BaseIndex, denoisers: list[str]) -> str:
    for name in denoisers:
        component: BaseComponent = base.components[name]
        for group, counts in blocks_of(component).groups.items():
            numbers = list(counts)
            return f'{{"{name}": {{"{group}": {{"{numbers[0]}-{numbers[-1]}": 0.5}}}}}}'
    return '{"text_encoder": 0.5}'
