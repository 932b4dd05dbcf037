"""The published sizes of SD1.x, SD2.x and SDXL as single files: every name and shape, without values."""

from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL
from diffusers.loaders import single_file_utils
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.architectures.original_checkpoint import original_checkpoint
from lorakit_cli.core.architecture import expand
from lorakit_cli.core.base_index import BaseComponent, BaseIndex, BaseTensor
from lorakit_cli.core.tensor_file import parse_header
from lorakit_cli.core.tensor_info import TensorInfo
from tests.architectures.models import UNETS
from tests.architectures.test_vae_checkpoint import PUBLISHED

VAE = {"latent_channels": 4, **PUBLISHED}
CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
# size -> the UNet's configuration, and how many tensors the file has.
SIZES = {
    # Published files have the positions too, which older versions of transformers saved.
    "SD1.x": ("sd1", 686 + 196 + 248),
    "SD2.x": ("sd2", 686 + 23 * 12 + 4 + 248),
    # sd_xl_base_1.0 has 2515: these, the positions and OpenCLIP's logit scale.
    "SDXL": ("sdxl", 1680 + 196 + 389 + 248),
    "SDXL refiner": ("sdxl refiner", 1220 + 389 + 248),
}


def tables():
    return {size: table for known in ARCHITECTURES for size, table in known.parameters().items() if size in SIZES}


def full_size(size):
    """Make the index of a published pipeline in half precision, as its headers would give it."""
    with init_empty_weights():
        vae = {name: tuple(value.shape) for name, value in AutoencoderKL(**VAE).state_dict().items()}
    parts = {name: expand(table) for name, table in tables()[size].items()} | {"vae": vae}
    components = {}
    for name, shapes in parts.items():
        tensors = {
            key: BaseTensor(TensorInfo("F16", shape, 0, 0), Path(f"{name}.safetensors"))
            for key, shape in shapes.items()
        }
        projected = "text_projection.weight" in shapes
        class_name = CLASSES.get(name) or ("CLIPTextModelWithProjection" if projected else "CLIPTextModel")
        components[name] = BaseComponent(name, class_name, {}, tensors)
    return BaseIndex(Path("folder"), "StableDiffusionPipeline", components), parts


def text_encoder(shapes):
    """Build the text encoder that diffusers' converter asks for sizes."""
    projected = "text_projection.weight" in shapes
    width = next(shape[0] for name, shape in shapes.items() if name.endswith("final_layer_norm.weight"))
    config = CLIPTextConfig(hidden_size=width, projection_dim=width, num_hidden_layers=1, num_attention_heads=8)
    with init_empty_weights():
        return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def shapes_of(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("size", SIZES)
def test_diffusers_finds_every_parameter_of_a_published_model(size):
    base, parts = full_size(size)
    file = original_checkpoint(base, "model.safetensors", {})
    header, _ = parse_header(Path(file.name), file.header[8:], file.size)
    tensors = {name: torch.empty(info.shape, device="meta") for name, info in header.items()}
    config, count = SIZES[size]
    assert len(tensors) == count
    unet = single_file_utils.convert_ldm_unet_checkpoint(tensors, {"layers_per_block": 2, **UNETS[config]})
    assert shapes_of(unet) == parts["unet"]
    assert shapes_of(single_file_utils.convert_ldm_vae_checkpoint(tensors, VAE)) == parts["vae"]
    texts = {
        "SD1.x": {"text_encoder": ""},
        "SD2.x": {"text_encoder": "cond_stage_model.model."},
        "SDXL": {"text_encoder": "", "text_encoder_2": "conditioner.embedders.1.model."},
        "SDXL refiner": {"text_encoder_2": "conditioner.embedders.0.model."},
    }
    for name, prefix in texts[size].items():
        long_names = {
            key if key.startswith(("text_model.", "text_projection")) else "text_model." + key: shape
            for key, shape in parts[name].items()
        }
        if prefix:
            encoder = text_encoder(parts[name])
            found = single_file_utils.convert_open_clip_checkpoint(encoder, dict(tensors), prefix=prefix)
        else:
            found = single_file_utils.convert_ldm_clip_checkpoint(tensors)
        assert shapes_of(found) == long_names


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (
            "SD1.x",
            {
                "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320, 1, 1),
                "model.diffusion_model.output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
                "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
                "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
            },
        ),
        (
            "SD2.x",
            {
                "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
                "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320),
                "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight": (3072, 1024),
                "cond_stage_model.model.token_embedding.weight": (49408, 1024),
            },
        ),
        (
            "SDXL",
            {
                "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
                "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
                "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight": (77, 768),
                "conditioner.embedders.1.model.transformer.resblocks.31.mlp.c_proj.bias": (1280,),
                "conditioner.embedders.1.model.text_projection": (1280, 1280),
                "first_stage_model.encoder.mid.attn_1.k.weight": (512, 512, 1, 1),
            },
        ),
        (
            "SDXL refiner",
            {
                "model.diffusion_model.label_emb.0.0.weight": (1536, 2560),
                "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,),
                "conditioner.embedders.0.model.ln_final.weight": (1280,),
            },
        ),
    ],
)
def test_names_and_shapes_by_which_programs_tell_the_models_apart(size, expected):
    base, _ = full_size(size)
    file = original_checkpoint(base, "model.safetensors", {}, "F32")
    header, _ = parse_header(Path(file.name), file.header[8:], file.size)
    assert {name: header[name].shape for name in expected} == expected
    assert {info.dtype for info in header.values()} == {"F32"}
