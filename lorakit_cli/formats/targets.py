"""The layouts that adapters are written in: diffusers', peft's, kohya's and ComfyUI's."""

from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.target_layout import TargetLayout, Write
from lorakit_cli.errors import UnsupportedError

# LyCORIS' ends of keys, which kohya's programs and ComfyUI read.
_LYCORIS = {
    "down": "lora_down.weight",
    "up": "lora_up.weight",
    "mid": "lora_mid.weight",
    "magnitude": "dora_scale",
    "row_magnitude": "dora_scale",
    "diff": "diff",
    "bias_diff": "diff_b",
    "up_bias": "diff_b",
    "norm_diff": "w_norm",
    "norm_bias_diff": "b_norm",
    "ia3_weight": "weight",
    "on_input": "on_input",
    "oft_blocks": "oft_blocks",
    "rescale": "rescale",
    "sparse_indices": "bias_indices",
    "sparse_values": "bias_values",
    "sparse_size": "bias_size",
    "value": "set_weight",
} | {
    **{f"{part}{n}": f"{part}{n}.weight" for part in "ab" for n in (1, 2)},
    **{role: role for role in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
    **{role: role for role in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")},
}
# What ComfyUI reads of LyCORIS.
_COMFY_KINDS = frozenset(
    {
        "lora", "lora-tucker", "loha", "loha-tucker", "lokr", "glora", "glora-old", "dora", "dora-tucker", "dora-loha",
        "dora-loha-tucker", "dora-lokr", "diag-oft", "boft", "full", "bias", "lora-bias", "norm", "norm-bias",
    }
)  # fmt: skip
_PEFT = {
    "down": "lora_A.weight",
    "up": "lora_B.weight",
    "magnitude": "lora_magnitude_vector",
    "row_magnitude": "lora_magnitude_vector",
}
# transformers puts the adapter's name before the last part of a key, and the magnitude is a module with a weight.
_TRANSFORMERS = dict.fromkeys(("magnitude", "row_magnitude"), "lora_magnitude_vector.weight")
_PEFT_KINDS = frozenset({"lora", "dora"})
# The widths of the CLIP text encoders, by the names ComfyUI gives them.
_CLIP = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}
_DENOISERS = ("unet", "transformer")
_KOHYA_ENCODERS = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_", "text_encoder_3": "lora_te3_"}
# What pipelines of diffusers load adapters into, beside CLIP text encoders.
_LOADED = frozenset({"unet", "transformer", "transformer_2", "connectors", "text_conditioner"})


def _kohya(base: BaseIndex, component: BaseComponent) -> Write:
    if component.name in _DENOISERS:
        prefix = "lora_unet_"
    elif component.name not in _KOHYA_ENCODERS:
        raise UnsupportedError(f"kohya's layout has no name for a {component.name}")
    elif [name for name in base.components if name.startswith("text_encoder")] == ["text_encoder"]:
        prefix = "lora_te_"
    else:
        # T5 is number 3 wherever it stands.
        prefix = "lora_te3_" if _is_t5(component) else _KOHYA_ENCODERS[component.name]
    return lambda module: prefix + component.long_name(module).replace(".", "_")


def _comfy(base: BaseIndex, component: BaseComponent) -> Write:
    if component.name in _DENOISERS:
        return lambda module: f"diffusion_model.{module}"
    name = "t5xxl" if _is_t5(component) else None
    if component.is_clip:
        name = _CLIP.get(_width(component), "clip_g" if component.name == "text_encoder_2" else "clip_l")
    if name is None:
        raise UnsupportedError(f"ComfyUI's layout has no name for a {component.name} of class {component.class_name}")
    return lambda module: f"text_encoders.{name}.transformer.{component.long_name(module)}"


def _diffusers(base: BaseIndex, component: BaseComponent) -> Write:
    # Of two, the first decides whether the pipeline is one that loads adapters into them.
    first = base.components.get("text_encoder", component)
    encoder = component.name in ("text_encoder", "text_encoder_2") and component.is_clip and first.is_clip
    if component.name not in _LOADED and not encoder:
        raise UnsupportedError(
            f"diffusers' load_lora_weights loads nothing into a {component.name} of class {component.class_name}; "
            "the kohya, comfy and peft layouts hold it"
        )
    return lambda module: f"{component.name}.{component.long_name(module)}"


def _peft(base: BaseIndex, component: BaseComponent) -> Write:
    return lambda module: f"base_model.model.{component.live_name(module)}"


def _is_t5(component: BaseComponent) -> bool:
    return component.class_name.startswith("T5")


def _width(component: BaseComponent) -> int:
    shapes = (
        tensor.info.shape for name, tensor in component.tensors.items() if name.endswith("final_layer_norm.weight")
    )
    return next(shapes, (0,))[0]


def _never(component: BaseComponent) -> bool:
    return False


def _original(component: BaseComponent) -> bool:
    return True


def _as_trained(component: BaseComponent) -> bool:
    """Say whether sd-scripts trains a model under its original names: all but the first two Stable Diffusions."""
    return component.name != "unet" or any(name.startswith("add_embedding.") for name in component.modules)


TARGETS = {
    target.name: target
    for target in (
        TargetLayout("diffusers", _diffusers, _never, _PEFT, _PEFT_KINDS, alpha=False, text_suffixes=_TRANSFORMERS),
        TargetLayout("peft", _peft, _never, _PEFT, _PEFT_KINDS, alpha=False),
        TargetLayout("kohya", _kohya, _as_trained, _LYCORIS, _COMFY_KINDS | {"ia3", "sparse"}, alpha=True),
        TargetLayout("comfy", _comfy, _original, _LYCORIS, _COMFY_KINDS | {"replacement"}, alpha=True),
    )
}
