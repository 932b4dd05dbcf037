"""Pipelines that no single file in the original layout can hold, and what is said of them."""

import re
from functools import cache
from pathlib import Path

import pytest

from lorakit_cli.architectures.original_checkpoint import original_checkpoint
from lorakit_cli.core.base_index import BaseComponent, BaseIndex, BaseTensor
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.errors import UnsupportedError
from tests import originals


@cache
def base_of(family):
    """Index a tiny pipeline as its headers would, without a folder."""
    pipeline = originals.build(family)
    components = {}
    for name, model in pipeline.components.items():
        if hasattr(model, "state_dict"):
            shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
            config = {"hidden_act": model.config.hidden_act} if name.startswith("text") else {}
            components[name] = component(name, type(model).__name__, shapes, config)
    return BaseIndex(Path("folder"), type(pipeline).__name__, components)


def component(name, class_name, shapes, config=None):
    tensors = {
        key: BaseTensor(TensorInfo("F32", shape, 0, 0), Path("folder", name, "w.safetensors"))
        for key, shape in shapes.items()
    }
    return BaseComponent(name, class_name, config or {}, tensors)


def with_component(base, name, class_name, shapes=None, config=None):
    return base._replace(components={**base.components, name: component(name, class_name, shapes or {}, config)})


def without(base, name):
    return base._replace(components={other: part for other, part in base.components.items() if other != name})


def changed(base, name, change):
    """Change the tensors of a component by `change(dict of shapes) -> dict of shapes`."""
    part = base.components[name]
    shapes = {key: tensor.info.shape for key, tensor in part.tensors.items()}
    return with_component(base, name, part.class_name, change(shapes), part.config)


def more(base, name, *tensors):
    return changed(base, name, lambda shapes: shapes | dict.fromkeys(tensors, (8, 8)))


def lacking(base, name, pattern):
    return changed(base, name, lambda shapes: {key: shapes[key] for key in shapes if not re.search(pattern, key)})


def renamed(base, name, **names):
    def rename(shapes):
        return {next((new + key[len(old) :] for old, new in names.items() if key.startswith(old)), key): shapes[key]
                for key in shapes}  # fmt: skip

    return changed(base, name, rename)


def reclassed(base, name, class_name):
    return base._replace(components={**base.components, name: base.components[name]._replace(class_name=class_name)})


def describe(base):
    return original_checkpoint(base, "model.safetensors", {})


def names_in(file):
    return set(re.findall(r'"([^"]+)":\{"dtype"', file.header[8:].decode()))


SD1, SD2, SDXL, REFINER = "sd1", "sd2", "sdxl", "refiner"
INSIDE = "down_blocks.1.attentions.0.transformer_blocks.0"


def deeper(shapes, layers):
    """Repeat the first layer of a text encoder so many times."""
    first = [key for key in shapes if ".layers.0." in key]
    return shapes | {key.replace(".0.", f".{layer}.", 1): shapes[key] for key in first for layer in range(layers)}


def unclip():
    """Tell a UNet of the noise on a picture in the way that SDXL's is told of the size."""
    base = without(base_of(REFINER), "text_encoder_2")
    base.components["text_encoder"] = base_of(SD2).components["text_encoder"]
    return renamed(base, "unet", add_embedding="class_embedding")


REFUSALS = {
    "flux": (
        lambda: BaseIndex(
            Path("folder"), "FluxPipeline", {"transformer": component("transformer", "FluxTransformer2DModel", {})}
        ),
        "folder is a FluxPipeline, and only SD1.x, SD2.x and SDXL have a single file that other programs read",
    ),
    "animatediff": (
        lambda: reclassed(base_of(SD1), "unet", "UNetMotionModel"),
        "folder is a StableDiffusionPipeline, and only SD1.x, SD2.x and SDXL",
    ),
    "controlnet": (
        lambda: with_component(base_of(SD1), "controlnet", "ControlNetModel"),
        "the original layout has no place for its controlnet",
    ),
    "ip adapter's eye": (
        lambda: with_component(base_of(SDXL), "image_encoder", "CLIPVisionModelWithProjection"),
        "the original layout has no place for its image_encoder",
    ),
    "another text encoder": (
        lambda: reclassed(base_of(SD1), "text_encoder", "T5EncoderModel"),
        "its text_encoder is of the class T5EncoderModel, and the original code has CLIPTextModel alone there",
    ),
    "another autoencoder": (
        lambda: reclassed(base_of(SD1), "vae", "AutoencoderTiny"),
        "its vae is of the class AutoencoderTiny, and the original code has AutoencoderKL alone there",
    ),
    "no vae": (lambda: without(base_of(SD2), "vae"), "it has no vae, without which no program can use the file"),
    "no text encoder": (lambda: without(base_of(SD1), "text_encoder"), "it has no text_encoder, without which"),
    "no large text encoder": (lambda: without(base_of(SDXL), "text_encoder_2"), "it has no text_encoder_2, without"),
    "no small text encoder": (
        lambda: without(base_of(SDXL), "text_encoder"),
        "its unet reads text features of 12 numbers, and there are 8 of text_encoder_2; is a text encoder missing?",
    ),
    "text encoders of another size": (
        lambda: base_of(SDXL)._replace(
            components={**base_of(SDXL).components, "text_encoder": base_of(SD1).components["text_encoder"]}
        ),
        "its unet reads text features of 12 numbers, and there are 12 of text_encoder and 8 of text_encoder_2",
    ),
    "two text encoders for one": (
        lambda: with_component(base_of(SD1), "text_encoder_2", "CLIPTextModelWithProjection"),
        "it has a second text encoder, and SD1.x and SD2.x have one",
    ),
    "a later family's vae": (
        lambda: lacking(base_of(SDXL), "vae", "post_quant"),
        "its vae has no post_quant_conv, so that it is of a later family",
    ),
    "playground": (
        lambda: with_component(
            base_of(SDXL),
            "vae",
            "AutoencoderKL",
            {key: tensor.info.shape for key, tensor in base_of(SDXL).components["vae"].tensors.items()},
            {"latents_mean": [-1.6, 1.1, 0.2, 0.3]},
        ),
        "its vae states a mean of latents, which would be lost with its configuration",
    ),
    "attention in a vae's block": (
        lambda: more(base_of(SD1), "vae", "encoder.down_blocks.0.attentions.0.to_q.weight"),
        "its vae has encoder.down_blocks.0.attentions.0.to_q.weight, which the original code has not",
    ),
    "lcm": (
        lambda: more(base_of(SDXL), "unet", "time_embedding.cond_proj.weight"),
        "its unet has time_embedding.cond_proj.weight, which the original code has not",
    ),
    "ip adapter": (
        lambda: more(base_of(SD1), "unet", f"{INSIDE}.attn2.processor.to_k_ip.0.weight", "encoder_hid_proj.x.weight"),
        f"its unet has {INSIDE}.attn2.processor.to_k_ip.0.weight and 1 more, which the original code has not",
    ),
    "gligen": (
        lambda: more(base_of(SD1), "unet", f"{INSIDE}.fuser.linear.weight"),
        f"its unet has {INSIDE}.fuser.linear.weight, which",
    ),
    "an unfused adapter": (
        lambda: more(base_of(SD1), "unet", f"{INSIDE}.attn1.to_q.lora_A.default.weight"),
        f"its unet has {INSIDE}.attn1.to_q.lora_A.default.weight, which",
    ),
    "an unfused adapter of the text encoder": (
        lambda: more(base_of(SD1), "text_encoder", "encoder.layers.0.self_attn.q_proj.lora_A.default.weight"),
        "its text_encoder has encoder.layers.0.self_attn.q_proj.lora_A.default.weight, which",
    ),
    "a head of its own": (
        lambda: more(base_of(SDXL), "text_encoder", "head.weight"),
        "its text_encoder has head.weight, which the original code has not",
    ),
    "a head of its own on openclip": (
        lambda: more(base_of(SDXL), "text_encoder_2", "head.weight"),
        "its text_encoder_2 has head.weight, which the original code has not",
    ),
    "a layer that is read no more": (
        lambda: changed(base_of(SD2), "text_encoder", lambda shapes: deeper(shapes, 24)),
        r"its text_encoder's text_model.encoder.layers.23.\S+ would not be found again in cond_stage_model.model.tra",
    ),
    "no middle": (
        lambda: lacking(base_of(SDXL), "unet", "^mid_block"),
        r"it is built otherwise than SD1.x, SD2.x and SDXL \(model.safetensors is incomplete: its unet has no "
        r"model.diffusion_model.middle_block",
    ),
    "blocks of unequal size": (
        lambda: lacking(base_of(SD1), "unet", r"^down_blocks\.1\.(resnets|attentions)\.1"),
        r"it is built otherwise than SD1.x, SD2.x and SDXL \(",
    ),
    "half a layer of openclip": (
        lambda: lacking(base_of(SD2), "text_encoder", r"layers\.1\.self_attn\.k_proj"),
        "its text_encoder has encoder.layers.1.self_attn.v_proj.weight and 3 more, which the original code has not",
    ),
    "unclip": (
        unclip,
        "its unet's class_embedding.linear_1.weight would not be found again in model.diffusion_model.label_emb.0.0.w",
    ),
    "upscaler": (
        lambda: more(base_of(SD2), "unet", "class_embedding.weight"),
        r"it is built otherwise than SD1.x, SD2.x and SDXL \(model.safetensors holds "
        "model.diffusion_model.label_emb.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_has_no_room_in_a_single_file_is_refused(case):
    make, message = REFUSALS[case]
    with pytest.raises(UnsupportedError, match=message) as caught:
        describe(make())
    assert str(caught.value).startswith("folder ")
    assert str(caught.value).endswith("; --out a folder instead")


def test_what_no_converter_keeps_is_left_out():
    base = with_component(base_of(SD1), "safety_checker", "StableDiffusionSafetyChecker", {"w.weight": (2, 2)})
    assert describe(base) == describe(base_of(SD1))


def test_the_pipelines_class_is_not_asked_for():
    for name in ("StableDiffusionInpaintPipeline", "MyOwnPipeline"):
        assert describe(base_of(SD1)._replace(class_name=name)) == describe(base_of(SD1))


@pytest.mark.parametrize("channels", [5, 8, 9])
@pytest.mark.parametrize("family", [SD1, SD2, SDXL])
def test_a_unet_that_reads_more_than_latents_is_kept(family, channels):
    wider = changed(base_of(family), "unet", lambda shapes: shapes | {"conv_in.weight": (8, channels, 3, 3)})
    assert names_in(describe(wider)) == names_in(describe(base_of(family)))


@pytest.mark.parametrize(("family", "prefix"), [(SD1, "transformer.text_model."), (SD2, "model.transformer.")])
def test_where_no_activation_is_stated_the_unet_tells_which_text_encoder_is_meant(family, prefix):
    base = base_of(family)
    part = base.components["text_encoder"]._replace(config={})
    bare = base._replace(components={**base.components, "text_encoder": part})
    assert names_in(describe(bare)) == names_in(describe(base))
    assert any(name.startswith(f"cond_stage_model.{prefix}") for name in names_in(describe(bare)))
