"""The tables of published models, against the libraries' own classes and against what is known of the models."""

import math
import subprocess
import sys
from pathlib import Path

import diffusers
import pytest
import torch
import transformers

from lorakit_cli.architectures import tables
from lorakit_cli.architectures.tables import published, sizes
from lorakit_cli.architectures.tables.write import compress
from lorakit_cli.core.architecture import expand

# The sizes of the published files, to the last parameter.
PARAMETERS = {
    ("sd1", "SD1.x", "unet"): 859_520_964,
    ("sd1", "SD1.x", "text_encoder"): 123_060_480,
    ("sd2", "SD2.x", "unet"): 865_910_724,
    ("sd2", "SD2.x", "text_encoder"): 340_387_840,
    ("sdxl", "SDXL", "unet"): 2_567_463_684,
    ("sdxl", "SDXL", "text_encoder"): 123_060_480,
    ("sdxl", "SDXL", "text_encoder_2"): 694_659_840,
    ("flux1", "FLUX.1", "transformer"): 11_901_408_320,
    ("flux1", "FLUX.1", "text_encoder_2"): 4_762_310_656,
    ("wan", "Wan T2V 1.3B", "transformer"): 1_418_996_800,
    ("wan", "Wan T2V 14B", "transformer"): 14_288_491_584,
    ("qwen_image", "Qwen-Image", "transformer"): 20_430_401_088,
    ("z_image", "Z-Image", "transformer"): 6_154_908_736,
    ("ltx_video", "LTX-Video 2B", "transformer"): 1_923_385_472,
}
# The round figures that the models are known by. Those of SD3 leave out its table of positions, a tensor of the file.
BILLIONS = {
    ("sdxl", "SDXL refiner"): 2.3,
    ("sd3", "SD3 Medium"): 2.03 + 192**2 * 1536e-9,
    ("sd3", "SD3.5 Medium"): 2.24 + 384**2 * 1536e-9,
    ("sd3", "SD3.5 Large"): 8.06 + 192**2 * 2432e-9,
    ("flux2", "FLUX.2 dev"): 32,
    ("flux2", "FLUX.2 klein 4B"): 4,
    ("flux2", "FLUX.2 klein 9B"): 9,
    ("wan", "Wan 2.1 I2V 14B"): 16.4,
    ("wan", "Wan 2.2 I2V 14B"): 14.3,
    ("wan", "Wan 2.2 TI2V 5B"): 5,
    ("hunyuan_video", "HunyuanVideo"): 12.8,
    ("hunyuan_video", "HunyuanVideo I2V"): 12.8,
    ("hunyuan_image", "HunyuanImage-2.1"): 17,
    ("lumina2", "Lumina-Image 2.0"): 2.6,
    ("ltx_video", "LTX-Video 13B"): 13,
    ("pixart", "PixArt-Sigma"): 0.6,
    ("pixart", "PixArt-Alpha 1024"): 0.6,
    ("sana", "Sana 1.6B"): 1.6,
    ("auraflow", "AuraFlow"): 6.8,
    ("cogvideox", "CogVideoX 2B"): 1.69,
    ("cogvideox", "CogVideoX 5B"): 5.57,
    ("mochi", "Mochi 1"): 10,
    ("hidream", "HiDream-I1"): 17,
    ("krea2", "Krea 2"): 12.9,
}
DENOISERS = [
    (name, size, part, model)
    for name, parts_of in published.ARCHITECTURES.items()
    for size, parts in parts_of.items()
    for part, model in parts.items()
    if isinstance(model, published.Model)
]
# Every use of a text encoder names the same table; one of them is enough.
TEXT_ENCODERS = [
    ("sd1", "SD1.x", "text_encoder", "CLIP-L"),
    ("sd2", "SD2.x", "text_encoder", "OpenCLIP-H"),
    ("sdxl", "SDXL", "text_encoder_2", "OpenCLIP-G with projection"),
    ("sd3", "SD3.5 Large", "text_encoder", "CLIP-L with projection"),
    ("flux1", "FLUX.1", "text_encoder_2", "T5-XXL"),
]


def built(model):
    """The floating tensors of a model that is built on the meta device, by name."""
    with torch.device("meta"):
        if hasattr(diffusers, model.class_name):
            module = getattr(diffusers, model.class_name)(**model.config)
        else:
            kind = getattr(transformers, model.class_name)
            module = kind(kind.config_class(**model.config))
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


def table(name, size, part="transformer"):
    return expand(sizes(name)[size][part])


@pytest.mark.parametrize(("name", "size", "part", "model"), DENOISERS, ids=[size for _, size, _, _ in DENOISERS])
def test_a_table_is_what_diffusers_builds(name, size, part, model):
    assert table(name, size, part) == built(model)


@pytest.mark.parametrize(("name", "size", "part", "model"), TEXT_ENCODERS, ids=[model for *_, model in TEXT_ENCODERS])
def test_a_table_is_what_transformers_builds(name, size, part, model):
    expected = built(published.TEXT_ENCODERS[model])
    # The same tensor as shared.weight, which is the name it is saved by.
    expected.pop("encoder.embed_tokens.weight", None)
    assert table(name, size, part) == expected


@pytest.mark.parametrize(("key", "count"), PARAMETERS.items(), ids=[f"{size} {part}" for _, size, part in PARAMETERS])
def test_a_model_has_as_many_parameters_as_were_published(key, count):
    assert sum(map(math.prod, table(*key).values())) == count


@pytest.mark.parametrize(("key", "billions"), BILLIONS.items(), ids=[size for _, size in BILLIONS])
def test_a_model_is_as_large_as_was_published(key, billions):
    name, size = key
    part = "unet" if name == "sdxl" else "transformer"
    assert sum(map(math.prod, table(name, size, part).values())) / 1e9 == pytest.approx(billions, rel=0.035)


def test_every_size_has_a_known_number_of_parameters():
    assert {(name, size) for name, size, _, _ in DENOISERS} == {(name, size) for name, size, *_ in PARAMETERS} | set(
        BILLIONS
    )


@pytest.mark.parametrize(
    ("name", "size", "part", "parameter", "shape"),
    [
        ("sd1", "SD1.x", "unet", "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight", (320, 768)),
        ("sd1", "SD1.x", "unet", "mid_block.attentions.0.proj_in.weight", (1280, 1280, 1, 1)),
        ("sd2", "SD2.x", "unet", "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight", (320, 1024)),
        ("sd2", "SD2.x", "unet", "mid_block.attentions.0.proj_in.weight", (1280, 1280)),
        ("sd2", "SD2.x", "text_encoder", "encoder.layers.22.self_attn.q_proj.weight", (1024, 1024)),
        ("sdxl", "SDXL", "unet", "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k.weight", (1280, 2048)),
        ("sdxl", "SDXL", "unet", "add_embedding.linear_1.weight", (1280, 2816)),
        ("sdxl", "SDXL refiner", "unet", "mid_block.attentions.0.transformer_blocks.3.attn2.to_k.weight", (1536, 1280)),
        ("sdxl", "SDXL", "text_encoder_2", "text_projection.weight", (1280, 1280)),
        ("sd3", "SD3 Medium", "transformer", "transformer_blocks.23.attn.add_q_proj.weight", (1536, 1536)),
        ("sd3", "SD3.5 Medium", "transformer", "transformer_blocks.12.attn2.to_q.weight", (1536, 1536)),
        ("sd3", "SD3.5 Large", "transformer", "transformer_blocks.37.attn.to_q.weight", (2432, 2432)),
        ("flux1", "FLUX.1", "transformer", "x_embedder.weight", (3072, 64)),
        ("flux1", "FLUX.1", "transformer", "single_transformer_blocks.37.proj_out.weight", (3072, 15360)),
        ("flux2", "FLUX.2 klein 9B", "transformer", "context_embedder.weight", (4096, 12288)),
        ("wan", "Wan T2V 14B", "transformer", "blocks.39.ffn.net.0.proj.weight", (13824, 5120)),
        ("wan", "Wan 2.1 I2V 14B", "transformer", "blocks.39.attn2.add_k_proj.weight", (5120, 5120)),
        ("hunyuan_video", "HunyuanVideo", "transformer", "single_transformer_blocks.39.attn.to_q.weight", (3072, 3072)),
        ("qwen_image", "Qwen-Image", "transformer", "txt_in.weight", (3072, 3584)),
        ("z_image", "Z-Image", "transformer", "layers.29.attention.to_q.weight", (3840, 3840)),
        # Three times as many heads ask as are asked.
        ("lumina2", "Lumina-Image 2.0", "transformer", "layers.25.attn.to_k.weight", (768, 2304)),
        ("ltx_video", "LTX-Video 2B", "transformer", "transformer_blocks.27.attn2.to_k.weight", (2048, 2048)),
    ],
)
def test_a_parameter_has_its_known_shape(name, size, part, parameter, shape):
    assert table(name, size, part)[parameter] == shape


@pytest.mark.parametrize(
    ("name", "size", "stem", "count"),
    [
        ("flux1", "FLUX.1", "transformer_blocks", 19),
        ("flux1", "FLUX.1", "single_transformer_blocks", 38),
        ("flux2", "FLUX.2 dev", "transformer_blocks", 8),
        ("flux2", "FLUX.2 dev", "single_transformer_blocks", 48),
        ("flux2", "FLUX.2 klein 4B", "single_transformer_blocks", 20),
        ("sd3", "SD3.5 Large", "transformer_blocks", 38),
        ("wan", "Wan T2V 1.3B", "blocks", 30),
        ("wan", "Wan 2.2 TI2V 5B", "blocks", 30),
        ("hunyuan_video", "HunyuanVideo", "transformer_blocks", 20),
        ("qwen_image", "Qwen-Image", "transformer_blocks", 60),
        ("lumina2", "Lumina-Image 2.0", "layers", 26),
    ],
)
def test_a_transformer_has_its_known_number_of_blocks(name, size, stem, count):
    numbers = {parameter.split(".")[1] for parameter in table(name, size) if parameter.split(".")[0] == stem}
    assert numbers == {str(number) for number in range(count)}


def test_only_the_first_half_of_sd35_medium_attends_twice_to_the_picture():
    twice = {parameter.split(".")[1] for parameter in table("sd3", "SD3.5 Medium") if ".attn2." in parameter}
    assert twice == {str(number) for number in range(13)}
    assert not any(".attn2." in parameter for parameter in table("sd3", "SD3.5 Large"))


def test_only_the_image_to_video_model_of_wan_21_reads_an_image():
    assert {size for size in sizes("wan") if any(".add_k_proj." in parameter for parameter in table("wan", size))} == {
        "Wan 2.1 I2V 14B"
    }


def test_a_text_encoder_is_kept_once():
    assert sizes("sdxl")["SDXL"]["text_encoder"] is sizes("flux1")["FLUX.1"]["text_encoder"]
    assert sizes("sd3")["SD3 Medium"]["text_encoder_3"] is sizes("flux1")["FLUX.1"]["text_encoder_2"]


def test_the_tables_are_small_and_those_of_the_published_models():
    files = {path.stem: path.stat().st_size for path in tables.HERE.glob("*.json")}
    assert set(files) == {*published.ARCHITECTURES, tables.TEXT_ENCODERS, tables.WIDTHS}
    assert max(files.values()) < 40_000


def test_runs_are_joined_where_numbers_follow_one_another_and_shapes_agree():
    shapes = {f"blocks.{block}.to_out.0.weight": (4, 4) for block in (0, 1, 2, 9, 10, 12)}
    shapes |= {"blocks.3.to_out.0.weight": (8, 4), "blocks.4.to_out.0.weight": (4, 4), "weight": (1,)}
    assert compress(shapes) == {
        "blocks.{0-2}.to_out.0.weight": (4, 4),
        "blocks.4.to_out.0.weight": (4, 4),
        "blocks.{9-10}.to_out.0.weight": (4, 4),
        "blocks.12.to_out.0.weight": (4, 4),
        "blocks.3.to_out.0.weight": (8, 4),
        "weight": (1,),
    }


def test_runs_within_runs_are_joined():
    shapes = {f"down.{block}.{layer}.weight": (2,) for block in range(2) for layer in range(3)}
    assert compress(shapes | {"down.2.0.weight": (2,)}) == {
        "down.{0-1}.{0-2}.weight": (2,),
        "down.2.0.weight": (2,),
    }


def test_reading_a_table_loads_no_heavy_library():
    code = (
        "import sys\nfrom lorakit_cli.architectures.tables import sizes\nsizes('sdxl')\n"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'numpy') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
