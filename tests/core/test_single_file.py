"""Single-file checkpoints: where each parameter of diffusers' model lies, and what is no base."""

import json

import pytest
import torch
from safetensors.torch import save_file

from lorakit_cli.errors import BaseModelError
from tests import checkpoints
from tests.checkpoints import DENOISER, prefixed
from tests.placed import read, require_every_parameter
from tests.sparse import sdxl_unet, write_sparse

VAE = {"first_stage_model.decoder.conv_in.weight": torch.zeros(2, 2)}


def write(path, tensors):
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    return path


@pytest.mark.parametrize("prefix", [DENOISER, "diffusion_model.", ""])
@pytest.mark.parametrize(("layers", "levels"), [(2, 4), (1, 3), (3, 2), (2, 1)])
def test_every_parameter_of_a_unet_lies_where_it_is_said_to(here, prefix, layers, levels):
    unet = checkpoints.build_unet(12, layers, levels)
    path = write(here / "unet.safetensors", prefixed(checkpoints.unet_tensors(unet), prefix))
    index = require_every_parameter(path, {"unet": unet})
    assert (index.path, index.class_name) == (path, "StableDiffusionPipeline")
    assert index.components["unet"].config == {"cross_attention_dim": 12, "in_channels": 4}


@pytest.mark.parametrize("bare", [False, True], ids=["usual", "without-text-model"])
def test_every_parameter_of_an_sd1_checkpoint_lies_where_it_is_said_to(here, bare):
    models = {"unet": checkpoints.build_unet(12), "text_encoder": checkpoints.build_text_encoder(12)}
    text = checkpoints.hugging_face_tensors(models["text_encoder"])
    if bare:
        text = {name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    tensors = prefixed(checkpoints.unet_tensors(models["unet"]), DENOISER) | VAE
    tensors |= prefixed(text, "cond_stage_model.transformer.")
    stem = "" if bare else "text_model."
    tensors[f"cond_stage_model.transformer.{stem}embeddings.position_ids"] = torch.arange(77)[None]
    tensors |= {"betas": torch.zeros(3), "model_ema.decay": torch.tensor(0.5)}
    index = require_every_parameter(write(here / "sd1.safetensors", tensors), models)
    held = {name for component in index.components.values() for name in component.tensors}
    assert held < tensors.keys()


def test_every_parameter_of_an_sd2_checkpoint_lies_where_it_is_said_to(here):
    models = {"unet": checkpoints.build_unet(8), "text_encoder": checkpoints.build_text_encoder(8, layers=23)}
    prefix = "cond_stage_model.model."
    tensors = prefixed(checkpoints.unet_tensors(models["unet"]), DENOISER)
    tensors |= checkpoints.open_clip_tensors(models["text_encoder"], prefix)
    # The file has one block more than diffusers, and a projection that it does not use.
    last = {name.replace(".22.", ".23."): tensor for name, tensor in tensors.items() if ".resblocks.22." in name}
    assert len(last) == 12
    tensors |= last | {f"{prefix}text_projection": torch.zeros(8, 8), f"{prefix}logit_scale": torch.tensor(4.6)}
    require_every_parameter(write(here / "sd2.safetensors", tensors), models)


def sdxl(channels=4):
    models = {
        "unet": checkpoints.build_unet(24, levels=3, xl=True, channels=channels),
        "text_encoder": checkpoints.build_text_encoder(8),
        "text_encoder_2": checkpoints.build_text_encoder(16, layers=3, projected=True),
    }
    tensors = prefixed(checkpoints.unet_tensors(models["unet"]), DENOISER) | VAE
    text = checkpoints.hugging_face_tensors(models["text_encoder"])
    tensors |= prefixed(text, "conditioner.embedders.0.transformer.")
    prefix = "conditioner.embedders.1.model."
    tensors |= checkpoints.open_clip_tensors(models["text_encoder_2"], prefix)
    return models, tensors | {prefix + "logit_scale": torch.tensor(4.6)}


@pytest.mark.parametrize(
    ("channels", "pipeline"), [(4, "StableDiffusionXLPipeline"), (9, "StableDiffusionXLInpaintPipeline")]
)
def test_every_parameter_of_an_sdxl_checkpoint_lies_where_it_is_said_to(here, channels, pipeline):
    models, tensors = sdxl(channels)
    index = require_every_parameter(write(here / "sdxl.safetensors", tensors), models)
    assert index.class_name == pipeline
    assert index.components["unet"].config == {"cross_attention_dim": 24, "in_channels": channels}


def test_a_refiner_has_the_larger_text_encoder_alone(here):
    models = {
        "unet": checkpoints.build_unet(16, levels=4, xl=True),
        "text_encoder_2": checkpoints.build_text_encoder(16, projected=True),
    }
    tensors = prefixed(checkpoints.unet_tensors(models["unet"]), DENOISER)
    tensors |= checkpoints.open_clip_tensors(models["text_encoder_2"], "conditioner.embedders.0.model.")
    index = require_every_parameter(write(here / "refiner.safetensors", tensors), models)
    assert index.class_name == "StableDiffusionXLImg2ImgPipeline"


@pytest.mark.parametrize("prefix", [DENOISER, ""])
@pytest.mark.parametrize("guided", [True, False], ids=["dev", "schnell"])
def test_every_parameter_of_a_flux_transformer_lies_where_it_is_said_to(here, prefix, guided):
    flux = checkpoints.build_flux(guided)
    path = write(here / "flux.safetensors", prefixed(checkpoints.flux_tensors(flux), prefix))
    index = require_every_parameter(path, {"transformer": flux})
    assert index.class_name == "FluxPipeline"
    config = index.components["transformer"].config
    assert config == {name: flux.config[name] for name in config}
    assert len(config) == 8


def test_a_flux_checkpoint_with_text_encoders_is_read_whole(here):
    from transformers import T5Config, T5EncoderModel

    models = {
        "transformer": checkpoints.build_flux(channels=384),
        "text_encoder": checkpoints.build_text_encoder(8),
        "text_encoder_2": T5EncoderModel(T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)),
    }
    tensors = prefixed(checkpoints.flux_tensors(models["transformer"]), DENOISER)
    # Newer programs name the scales of these norms like every other weight.
    tensors = {name.replace("_norm.scale", "_norm.weight"): tensor for name, tensor in tensors.items()}
    tensors |= prefixed(checkpoints.hugging_face_tensors(models["text_encoder"]), "text_encoders.clip_l.transformer.")
    tensors["text_encoders.clip_l.transformer.text_projection.weight"] = torch.eye(8)
    state = models["text_encoder_2"].state_dict()
    del state["encoder.embed_tokens.weight"]
    tensors |= prefixed(state, "text_encoders.t5xxl.transformer.") | {"vae.decoder.conv_in.weight": torch.zeros(2)}
    index = require_every_parameter(write(here / "flux.safetensors", tensors), models)
    assert index.class_name == "FluxFillPipeline"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: (
                tensors.pop(DENOISER + "output_blocks.4.0.in_layers.2.weight")
                is tensors.pop(DENOISER + "output_blocks.4.0.in_layers.2.bias")
            ),
            "is incomplete: its unet has no model.diffusion_model.output_blocks.4.0.in_layers.2",
        ),
        (
            lambda tensors: tensors.update({DENOISER + "time_mixer.weight": torch.zeros(1)}),
            "holds model.diffusion_model.time_mixer.weight, which no unet that lorakit knows has; "
            "is it another kind of model?",
        ),
        (
            lambda tensors: tensors.update({DENOISER + "out.2.scale_weight": torch.zeros(1)}),
            "is quantized with scales of its own, to which nothing can be added; take the file in 16 bit",
        ),
        (
            lambda tensors: tensors.update(
                {"conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight": torch.zeros(32, 16)}
            ),
            "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight should hold 3 projections but "
            "has the shape [32, 16]",
        ),
    ],
    ids=["incomplete", "more", "quantized", "misshapen"],
)
def test_a_checkpoint_that_is_not_understood_whole_is_refused(here, change, message):
    tensors = sdxl()[1]
    change(tensors)
    path = write(here / "sdxl.safetensors", tensors)
    with pytest.raises(BaseModelError) as caught:
        read(path)
    assert str(caught.value).removeprefix(str(path)).lstrip(": ") == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "is an adapter, not a base"),
        ("first_stage_model.decoder.conv_in.weight", "is a VAE alone"),
        ("decoder.up_blocks.0.resnets.0.conv1.weight", "is a VAE alone"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "is a text encoder alone"),
        ("encoder.block.0.layer.0.SelfAttention.k.weight", "is a text encoder alone"),
        ("down_blocks.0.resnets.0.conv1.weight", "is one component of a diffusers pipeline"),
        ("transformer_blocks.0.attn.to_q.weight", "is one component of a diffusers pipeline"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "is a model of a family whose single files"),
        ("double_stream_modulation_img.lin.weight", "is a model of a family whose single files"),
        ("control_model.input_blocks.0.0.weight", "is a ControlNet"),
        ("emb_params", "is a textual inversion"),
        ("something.weight", "is no base lorakit knows: it has 1 tensors, such as something.weight"),
    ],
)
def test_what_is_no_base_is_called_what_it_is(here, name, message):
    path = write(here / "some.safetensors", {name: torch.zeros(2, 2)})
    with pytest.raises(BaseModelError, match=message):
        read(path)


def test_block_numbers_beyond_any_model_are_not_counted_up_to(here):
    unet = prefixed(checkpoints.unet_tensors(checkpoints.build_unet(12)), DENOISER)
    for name in ("input_blocks.99999999999.0.op.weight", "output_blocks.99999999999.0.in_layers.0.weight"):
        path = write(here / "unet.safetensors", unet | {DENOISER + name: torch.zeros(1)})
        with pytest.raises(BaseModelError, match="99999999999"):
            read(path)


def test_a_checkpoint_of_full_size_is_placed_whole(here):
    """Write SDXL's tensors, without values, under the names of its own code, and place all 1680 of the UNet."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        unet = sdxl_unet()
    tensors = prefixed(checkpoints.unet_tensors(unet), DENOISER)
    path = write_sparse(here / "sdxl.safetensors", {key: ("F16", tuple(t.shape)) for key, t in tensors.items()})
    component = read(path).components["unet"]
    shapes = {name: place.shape(component.tensors[place.tensor].info.shape) for name, place in component.places.items()}
    assert shapes == {name: tuple(parameter.shape) for name, parameter in unet.named_parameters()}
    assert len(shapes) == 1680
    assert component.config["cross_attention_dim"] == 2048
    assert json.dumps(component.config)
