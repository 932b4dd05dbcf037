"""What diffusers would make of an adapter file: layers that it scales wrongly, drops or refuses, without a word.

As of diffusers 0.42 with transformers 5: src/diffusers/loaders/lora_pipeline.py, lora_conversion_utils.py and
utils/peft_utils.py (get_peft_kwargs). Of the transformers only SD3 and FLUX.1 are known here.
"""

from collections import Counter
from collections.abc import Iterator

from lorakit_cli.core.late import late
from lorakit_cli.core.lora_file import LoraFile, LoraLayer
from lorakit_cli.core.shown import shown

_UNETS = ("SD1.x", "SD2.x", "SDXL")
_SD3, _FLUX = "SD3", "FLUX.1"
# Their alphas are kept under names that no module has, so they get the most common alpha of the file instead.
_ATTENTION = late(r"attn[12]?[._]to_(?:q|k|v|out)(?:[._]0)?$|self_attn[._](?:q|k|v|out)_proj$")
# Only SDXL's pipeline turns these into diffusers' names.
_ORIGINAL = late(r"(?!input_blocks_0_0$)(?:input_blocks|middle_block|output_blocks)_")
# These two it gives one name, so that neither is applied and the second's alpha counts for both.
_EMBEDDING = ("add_embedding_linear_1", "add_embedding_linear_2")
_BLOCKS = late(r"(?:double|single)_blocks_\d+_|(?:single_)?transformer_blocks_\d+_")
_T5 = {_SD3: "text_encoder_3", _FLUX: "text_encoder_2"}
_KOHYA_DOWN = ".lora_down.weight"
_MAGNITUDE = "dora_scale"
_LORA = "lora"
# Layouts of which it applies nothing, by architecture.
_NOTHING = {
    "plain": (*_UNETS, _SD3, _FLUX),
    "attn-procs": _UNETS,
    "peft": (*_UNETS, _SD3),
    "comfy": (*_UNETS, _SD3, _FLUX),
    "onetrainer": (*_UNETS, _SD3),
    "lycoris": (*_UNETS, _SD3),
    "kohya": (_SD3,),
    "cloneofsimo": (*_UNETS, _SD3, _FLUX),
}


def audit(file: LoraFile, architecture: str | None) -> list[str]:
    """Say what diffusers' load_lora_weights would do otherwise than the file means, one line each."""
    if architecture not in (*_UNETS, _SD3, _FLUX):
        return []
    refusal = _refusal(file, architecture)
    if refusal:
        return [f"diffusers refuses the file: {refusal}"]
    found = list(_without_effect(file, architecture))
    plain = all(layer.kind.name == _LORA for layer in file.layers)
    magnitudes = 0 if plain else sum(_has_magnitude(layer) for layer in file.layers)
    if magnitudes:
        found.append(f"diffusers drops the magnitudes of {magnitudes} DoRA layers and applies the rest as plain LoRA")
    wrong = mis_scaled(file, architecture)
    if wrong:
        layer = wrong[0]
        found.append(
            f"diffusers gives {len(wrong)} layers another scale than their own, such as {shown(layer.stem)} "
            f"(alpha {layer.alpha if layer.alpha is not None else 'missing'}, rank {layer.rank})"
        )
    return found


def _has_magnitude(layer: LoraLayer) -> bool:
    return any(key.endswith(_MAGNITUDE) for key in layer.keys.values())


def mis_scaled(file: LoraFile, architecture: str) -> list[LoraLayer]:
    """List the layers whose alpha diffusers leaves out or replaces by the most common one of their component.

    Where several alphas are equally common it takes the first in the file (for SDXL's original names, of the block
    that it reads first, which is not followed here).
    """
    if architecture == _FLUX and _is_peft_and_kohya(file):
        return [layer for layer in file.layers if layer.stem.startswith("transformer.") and layer.scale != 1.0]
    own = architecture == _FLUX and {layer.format.name for layer in file.layers} == {"diffusers"}
    if not own and not (architecture in _UNETS and _is_kohya(file)):
        return []
    common = _common_alphas(file)
    return [
        layer
        for layer in file.layers
        if layer.rank
        and (alpha := common.get(layer.components[0])) is not None
        and alpha / layer.rank != layer.scale
        and (layer.alpha is None or (not own and _loses_alpha(layer)))
        and not _is_dropped(layer, architecture)
    ]


def _common_alphas(file: LoraFile) -> dict[str, float]:
    alphas = Counter(
        [
            (layer.components[0], layer.alpha)
            for layer in file.layers
            if layer.alpha is not None and layer.rank and not layer.stem.endswith(_EMBEDDING[0])
        ]
    )
    common: dict[str, float] = {}
    for (component, alpha), _ in alphas.most_common():
        common.setdefault(component, alpha)
    return common


def _loses_alpha(layer: LoraLayer) -> bool:
    # In transformers 5 the first text encoder's names lack what the alphas' have before them.
    return layer.component == "text_encoder" or _ATTENTION.search(_body(layer)) is not None


def _is_kohya(file: LoraFile) -> bool:
    """Tell whether diffusers' reader takes the file for kohya's, which it does if all of it is."""
    return not file.embeddings and all(
        layer.format.name == "kohya" and not layer.stem.startswith("lora_te3_") for layer in file.layers
    )


def _is_peft_and_kohya(file: LoraFile) -> bool:
    """Tell whether a file has kohya's ends of keys behind diffusers' names."""
    return any(key.startswith("transformer.") and key.endswith(_KOHYA_DOWN) for key in file.tensors)


def _refusal(file: LoraFile, architecture: str) -> str | None:
    """Say why diffusers raises an error, None where it reads the file."""
    if file.embeddings:
        return "it has textual inversions beside the layers"
    names = {layer.format.name for layer in file.layers}
    unknown = sorted({layer.kind.name for layer in file.layers} - {"lora", "dora", "lora-bias"})
    if architecture in _UNETS and unknown:
        return f"it does not know {', '.join(unknown)}"
    if architecture == _FLUX:
        return _refusal_by_flux(file, names)
    if any(layer.format.name == "peft" and not layer.stem.startswith("base_model.") for layer in file.layers):
        return "it looks for modules called base_model.model"
    if architecture in _UNETS and _is_kohya(file):
        return None
    stray = next((key for key in file.tensors if "lora" not in key and not key.endswith(_MAGNITUDE)), None)
    return f"it takes {shown(stray)} for no part of a LoRA" if stray else None


def _refusal_by_flux(file: LoraFile, names: set[str]) -> str | None:
    double = next((layer.stem for layer in file.layers if layer.stem.startswith("lora_unet__")), None)
    if double:
        return f"it does not know names such as {shown(double)}"
    if "lycoris" in names:
        return "it does not know names that begin with lycoris_"
    own = next(
        (layer.stem for layer in file.layers if layer.format.name == "peft" and ".transformer_bl" in layer.stem), None
    )
    return f"of peft's layout it reads the original names alone, not {shown(own)}" if own else None


def _is_dropped(layer: LoraLayer, architecture: str) -> bool:
    if layer.format.name != "kohya":
        return False
    if architecture == _FLUX:
        return layer.component == "transformer" and not _BLOCKS.match(_body(layer))
    if architecture == "SDXL":
        return layer.component == "unet" and layer.stem.endswith(_EMBEDDING) and _body(layer) in _EMBEDDING
    return architecture in _UNETS and layer.component == "unet" and _ORIGINAL.match(_body(layer)) is not None


def _body(layer: LoraLayer) -> str:
    return layer.format.body(layer.stem)


def _without_effect(file: LoraFile, architecture: str) -> Iterator[str]:
    # Control adapters and kohya's ends of keys have readers of their own.
    read = architecture == _FLUX and any(key.endswith((_KOHYA_DOWN, ".query_norm.scale")) for key in file.tensors)
    counts: Counter[str] = Counter()
    for layer in file.layers:
        name = layer.format.name
        if architecture in _NOTHING.get(name, ()) and not layer.stem.startswith(f"{layer.component}.") and not read:
            counts[name] += 1
    for name, count in counts.items():
        yield f"diffusers loads {count} layers in the {name} layout without an error and without an effect"
    if counts:
        return
    dropped = [layer for layer in file.layers if _is_dropped(layer, architecture)]
    if dropped:
        yield f"diffusers drops {len(dropped)} layers without an error, such as {shown(dropped[0].stem)}"
    text = _T5.get(architecture)
    third = sum(layer.stem.startswith((f"{text}.", "lora_te3_")) for layer in file.layers) if text else 0
    if third:
        yield f"diffusers drops the {third} layers of T5"
    if architecture == _FLUX:
        yield from _lost_by_flux(file)


def _lost_by_flux(file: LoraFile) -> Iterator[str]:
    if _is_peft_and_kohya(file):
        text = sum(layer.stem.startswith("lora_te") for layer in file.layers)
        if text:
            yield f"diffusers drops the {text} layers of the text encoders"
    theirs = [layer for layer in file.layers if layer.stem.startswith("lora_transformer_")]
    other = [layer for layer in file.layers if "_attn_" not in layer.stem] if theirs else []
    if other:
        yield f"diffusers refuses or drops {len(other)} layers: of OneTrainer's older layout it reads attention alone"
