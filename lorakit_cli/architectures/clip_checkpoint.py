"""What modules a text encoder has in transformers, read from the names of its tensors in a single-file checkpoint.

SD1.x and the smaller encoder of SDXL and FLUX lie there in transformers' own names, SD2.x and the larger encoder of
SDXL in OpenCLIP's. https://github.com/mlfoundations/open_clip/blob/main/src/open_clip/transformer.py
"""

import re
from collections.abc import Collection, Iterator, Sequence

from lorakit_cli.architectures.clip import open_clip as open_clip_names
from lorakit_cli.core.architecture import Name

_PARAMETER = re.compile(r"(.+)\.(?:weight|bias)")
_PREFIX = "text_model."
_POSITIONS = "positional_embedding"
_TOP = {
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding": _POSITIONS,
    "text_model.final_layer_norm": "ln_final",
}
_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_PROJECTIONS = tuple(f"self_attn.{part}_proj" for part in "qkv")
_BLOCK = re.compile(r"transformer\.resblocks\.(\d{1,3})\..+")
_PROJECTION = "text_projection"
# The ends of OpenCLIP's names: attention keeps its projections as in_proj_weight, embeddings are bare tensors.
OPEN_CLIP_ENDINGS = {"weight": (".weight", "_weight", ""), "bias": (".bias", "_bias")}
# It is applied from the other side.
OPEN_CLIP_TRANSPOSED = frozenset({_PROJECTION})
# The modules of the original code, and the positions, which older versions of transformers saved.
_KNOWN = re.compile(
    r"text_model\.(?:embeddings\.(?:token_embedding|position_embedding|position_ids)|final_layer_norm"
    rf"|encoder\.layers\.\d+\.(?:{'|'.join((*_LAYER, *_PROJECTIONS))}))"
)


def same(names: Collection[str]) -> list[str]:
    """List the modules of tensors that have transformers' names."""
    return list(dict.fromkeys(found[1] for name in names if (found := _PARAMETER.fullmatch(name))))


def same_native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names of modules that are named as in transformers."""
    return (Name(module, (module,)) for module in modules)


def clip(names: Collection[str]) -> list[str]:
    """List the modules of a CLIP text model; some merges have lost the outermost name."""
    return list(dict.fromkeys(_PREFIX + module.removeprefix(_PREFIX) for module in same(names)))


def clip_native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names of a CLIP text model's modules, with the outermost name and without."""
    for module in modules:
        yield Name(module, (module,))
        yield Name(module.removeprefix(_PREFIX), (module,))


def known_native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the names of the modules that CLIP's text model has in the original code, and of no others."""
    return same_native([module for module in modules if _KNOWN.fullmatch(module)])


def open_clip(names: Collection[str]) -> list[str]:
    """List the modules of transformers' CLIP whose tensors have these OpenCLIP names."""
    layers = 1 + max((int(found[1]) for name in names if (found := _BLOCK.fullmatch(name))), default=-1)
    inside = (*_LAYER, *_PROJECTIONS)
    projection = [_PROJECTION] if any(name.startswith(_PROJECTION) for name in names) else []
    return [
        *_TOP,
        *projection,
        *(f"text_model.encoder.layers.{layer}.{part}" for layer in range(layers) for part in inside),
    ]


def open_clip_native(modules: Sequence[str]) -> Iterator[Name]:
    """Write the OpenCLIP names of the modules of transformers' CLIP, with the projection that is kept transposed."""
    yield from open_clip_names(modules)
    if _PROJECTION in modules:
        yield Name(_PROJECTION, (_PROJECTION,))


def open_clip_parameter(text: str, parameter: str) -> str:
    """Name a parameter of a module as OpenCLIP does: attention joins it with `_`, some modules are parameters."""
    if text in (_POSITIONS, _PROJECTION):
        return text
    return f"{text}_{parameter}" if text.endswith(".in_proj") else f"{text}.{parameter}"
