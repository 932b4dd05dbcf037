"""The checkpoint in one file, as its original code keeps it, that a folder of SD1.x, SD2.x or SDXL becomes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorakit_cli.architectures import clip_checkpoint, unet_checkpoint, vae_checkpoint
from lorakit_cli.architectures.single_files import UNET
from lorakit_cli.core.architecture import Shape
from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.checkpoint_file import KeptTensor, checkpoint_file, kept_tensors, no_single_file
from lorakit_cli.core.checkpoint_wording import Wording
from lorakit_cli.core.single_file import index_tensors
from lorakit_cli.core.tensor_file import TensorFile, parse_header
from lorakit_cli.core.weights_file import WeightsFile
from lorakit_cli.errors import BaseModelError, UnsupportedError

# The original code has one class for each, so the class is the quickest sign of another family.
_CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}
# It looks at finished pictures only, and no converter keeps it.
_LEFT_OUT = frozenset({"safety_checker"})
# SDXL and its refiner are told size and crop by this.
_XL = "add_embedding.linear_1.weight"
_LAST_NORM = "text_model.final_layer_norm.weight"
# What transformers of before 4.31 saved though it only counts; OpenCLIP has no such tensor.
_POSITIONS = re.compile(r"text_model\.embeddings\.position_ids")

_UNET = Wording("unet", "model.diffusion_model.", unet_checkpoint.known_native)
_VAE = Wording("vae", "first_stage_model.", vae_checkpoint.native, convolutions=vae_checkpoint.CONVOLUTIONS)


def original_checkpoint(
    base: BaseIndex,
    name: str,
    metadata: Mapping[str, str],
    dtype: str | None = None,
    scheduler: Mapping[str, Any] | None = None,
) -> WeightsFile:
    """Describe the file `name` that a pipeline folder becomes in the original layout, from its headers alone.

    `dtype` is that of every floating tensor in the file, None for each its own. The file has these metadata only.
    `scheduler` is the configuration of the folder's, of which an SDXL that predicts velocity keeps a mark. Raises
    UnsupportedError where the layout has no room for something of the pipeline.
    """
    tensors = kept_tensors(base, _wordings(base), dtype)
    marks = _marks(scheduler or {}) if _XL in base.components["unet"].tensors else ()
    file = checkpoint_file(tensors, name, metadata, marks)
    _require_readable(base, tensors, file)
    return file


def _marks(scheduler: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the marks of an SDXL by which ComfyUI, and others since, know that it predicts velocity, and how it ends."""
    if scheduler.get("prediction_type") != "v_prediction":
        return ()
    return ("v_pred", "ztsnr") if scheduler.get("rescale_betas_zero_snr") else ("v_pred",)


def _clip(component: str, prefix: str) -> Wording:
    return Wording(component, prefix, clip_checkpoint.known_native)


def _open_clip(component: str, prefix: str) -> Wording:
    return Wording(
        component,
        prefix,
        clip_checkpoint.open_clip_native,
        clip_checkpoint.open_clip_parameter,
        clip_checkpoint.OPEN_CLIP_TRANSPOSED,
        needless=_POSITIONS,
    )


def _wordings(base: BaseIndex) -> tuple[Wording, ...]:
    """Say how the checkpoint keeps each component. Raises UnsupportedError where it has no room for one."""
    unet = base.components.get("unet")
    if unet is None or unet.class_name != _CLASSES["unet"]:
        raise UnsupportedError(
            f"{base.label} is a {base.class_name}, and only SD1.x, SD2.x and SDXL have a single file that other "
            "programs read; --out a folder instead"
        )
    for name, component in base.components.items():
        if name not in _CLASSES and name not in _LEFT_OUT:
            raise no_single_file(base, f"the original layout has no place for its {name}")
        if name in _CLASSES and component.class_name != _CLASSES[name]:
            where = f"its {name} is of the class {component.class_name}"
            raise no_single_file(base, f"{where}, and the original code has {_CLASSES[name]} alone there")
    for name in ("vae", "text_encoder_2" if _XL in unet.tensors else "text_encoder"):
        if name not in base.components:
            raise no_single_file(base, f"it has no {name}, without which no program can use the file")
    texts = _texts(base, unet)
    _require_features(base, unet)
    _require_vae(base)
    return (_UNET, *texts, _VAE)


def _texts(base: BaseIndex, unet: BaseComponent) -> tuple[Wording, ...]:
    """Say how the checkpoint keeps the text encoders: SDXL's refiner has the larger one alone."""
    if _XL in unet.tensors:
        if "text_encoder" not in base.components:
            return (_open_clip("text_encoder_2", "conditioner.embedders.0.model."),)
        return (
            _clip("text_encoder", "conditioner.embedders.0.transformer."),
            _open_clip("text_encoder_2", "conditioner.embedders.1.model."),
        )
    if "text_encoder_2" in base.components:
        raise no_single_file(base, "it has a second text encoder, and SD1.x and SD2.x have one")
    if _of_open_clip(base.components["text_encoder"], unet):
        return (_open_clip("text_encoder", "cond_stage_model.model."),)
    return (_clip("text_encoder", "cond_stage_model.transformer."),)


def _of_open_clip(encoder: BaseComponent, unet: BaseComponent) -> bool:
    """Tell SD2.x' text encoder, which the original code runs in OpenCLIP, from SD1.x'.

    OpenCLIP's activation is its own. Where none is stated, SD2.x shows in the UNet's linear layers around attention.
    """
    activation = encoder.config.get("hidden_act")
    if isinstance(activation, str):
        return activation == "gelu"
    around = [tensor.info.shape for name, tensor in unet.tensors.items() if name.endswith(".proj_in.weight")]
    return bool(around) and all(len(shape) == 2 for shape in around)


def _require_features(base: BaseIndex, unet: BaseComponent) -> None:
    """Raise UnsupportedError unless the UNet reads what the text encoders give, side by side."""
    read = unet_checkpoint.config(_shapes(unet))["cross_attention_dim"]
    widths = {
        name: _shapes(component).get(_LAST_NORM, (0,))[0]
        for name, component in base.components.items()
        if name.startswith("text_encoder")
    }
    if read != sum(widths.values()):
        given = " and ".join(f"{width} of {name}" for name, width in widths.items())
        reason = f"its unet reads text features of {read} numbers, and there are {given}; is a text encoder missing?"
        raise no_single_file(base, reason)


def _require_vae(base: BaseIndex) -> None:
    """Raise UnsupportedError for an autoencoder that the original code has not, or would use otherwise."""
    vae = base.components["vae"]
    for module in vae_checkpoint.BETWEEN:
        if f"{module}.weight" not in vae.tensors:
            raise no_single_file(base, f"its vae has no {module}, so that it is of a later family")
    if vae.config.get("latents_mean") is not None:
        raise no_single_file(base, "its vae states a mean of latents, which would be lost with its configuration")


def _shapes(component: BaseComponent) -> dict[str, Shape]:
    """Give the shapes of parameters as published files call them."""
    return {component.long_name(name): tensor.info.shape for name, tensor in component.tensors.items()}


def _require_readable(base: BaseIndex, tensors: Sequence[KeptTensor], file: WeightsFile) -> None:
    """Raise UnsupportedError unless reading the file finds every parameter of UNet and text encoders where it is put.

    So a pipeline that only resembles these models is found out: one that lacks layers, or has blocks of unequal size.
    """
    path = Path(file.name)
    header = parse_header(path, file.header[8:], file.size)
    try:
        index = index_tensors(TensorFile(path, path, *header, file.size), (UNET,))
    except BaseModelError as error:
        raise no_single_file(base, f"it is built otherwise than SD1.x, SD2.x and SDXL ({error})") from error
    for tensor in tensors:
        component = tensor.targets[0].component
        if component == "vae":
            continue
        for parameter, target in zip(tensor.parameters, tensor.targets, strict=True):
            if _POSITIONS.fullmatch(parameter):
                continue
            place = index.components[component].place(parameter)
            shape = base.components[component].tensors[target.tensor].info.shape
            if place is None or place.tensor != tensor.name or index.components[component].shape(parameter) != shape:
                reason = f"its {component}'s {parameter} would not be found again in {tensor.name}"
                raise no_single_file(base, reason)
