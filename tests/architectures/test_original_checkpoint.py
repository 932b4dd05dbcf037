"""Folders of SD1.x, SD2.x and SDXL as checkpoints in one file, judged by lorakit's own reader and by diffusers'."""

import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import single_file_utils
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lorakit_cli.architectures.original_checkpoint import original_checkpoint
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.demo import BASE
from tests import originals
from tests.checkpoints import require_equal
from tests.placed import require_every_parameter

NAME = "model.safetensors"
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module", params=originals.FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pipeline(family):
    return originals.build(family)


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "base"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(folder):
    return written(folder, folder.parent)


def written(folder, here, dtype=None):
    base = read_base_index(folder)
    return originals.write(original_checkpoint(base, NAME, {}, dtype), base, here)


def rewritten(folder, here, component, change):
    """Copy a pipeline with the tensors of one component changed by `change(dict) -> dict`."""
    copy = here / "copy"
    shutil.copytree(folder, copy)
    (path,) = (copy / component).glob("*.safetensors")
    save_file(change(load_file(path)), path, {"format": "pt"})
    return copy


def long_names(tensors):
    """Name a text encoder's tensors as published files do."""
    return {
        name if name.startswith(("text_model.", "text_projection.")) else "text_model." + name: value
        for name, value in tensors.items()
    }


def require_given_back(tensors, pipeline, expected):
    """Require that diffusers' converters make of a checkpoint's tensors those of each component, and of all of them."""
    unet = single_file_utils.convert_ldm_unet_checkpoint(dict(tensors), dict(pipeline.unet.config))
    require_equal(unet, expected["unet"])
    vae = single_file_utils.convert_ldm_vae_checkpoint(dict(tensors), dict(pipeline.vae.config))
    require_equal(vae, expected["vae"])
    texts = [name for name in expected if name.startswith("text_encoder")]
    for name in texts:
        text = long_names(expected[name])
        prefixes = ("cond_stage_model.model.", "conditioner.embedders.1.model.", "conditioner.embedders.0.model.")
        prefix = next((prefix for prefix in prefixes if any(key.startswith(prefix) for key in tensors)), None)
        if prefix and name == texts[-1]:
            encoder = getattr(pipeline, name)
            require_equal(single_file_utils.convert_open_clip_checkpoint(encoder, dict(tensors), prefix=prefix), text)
        else:
            require_equal(single_file_utils.convert_ldm_clip_checkpoint(dict(tensors)), text)


def held(pipeline):
    return {
        name: model.state_dict()
        for name, model in pipeline.components.items()
        if name in ("unet", "vae", "text_encoder", "text_encoder_2") and model is not None
    }


def models(pipeline):
    return {name: model for name, model in pipeline.components.items() if name != "vae" and name in held(pipeline)}


def in_order(parts):
    return {name: parts[name] for name in ("unet", "text_encoder", "text_encoder_2") if name in parts}


PREFIXES = {
    "sd1": {"cond_stage_model.transformer.text_model.": 4},
    "sd2": {"cond_stage_model.model.": 4},
    "sdxl": {"conditioner.embedders.0.transformer.text_model.": 4, "conditioner.embedders.1.model.": 5},
    "refiner": {"conditioner.embedders.0.model.": 5},
}


def test_every_tensor_comes_back_bit_for_bit(plain, family, pipeline):
    tensors = load_file(plain)
    require_given_back(tensors, pipeline, held(pipeline))
    prefixes = ("model.diffusion_model.", "first_stage_model.", *PREFIXES[family])
    assert {next((known for known in prefixes if name.startswith(known)), name) for name in tensors} == set(prefixes)
    require_every_parameter(plain, in_order(models(pipeline)))


def test_the_layout_is_the_original_one_to_the_letter(plain, family):
    tensors = load_file(plain)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    assert shapes["first_stage_model.decoder.mid.attn_1.proj_out.weight"] == [8, 8, 1, 1]
    assert shapes["first_stage_model.encoder.mid.attn_1.q.bias"] == [8]
    around = {
        "sd1": ("input_blocks.1.1.proj_in.weight", [8, 8, 1, 1]),
        "sd2": ("input_blocks.1.1.proj_in.weight", [8, 8]),
        "sdxl": ("input_blocks.4.1.proj_in.weight", [16, 16]),
        "refiner": ("input_blocks.4.1.proj_in.weight", [16, 16]),
    }
    name, shape = around[family]
    assert shapes[f"model.diffusion_model.{name}"] == shape
    text = {
        "sd1": {"cond_stage_model.transformer.text_model.encoder.layers.1.self_attn.q_proj.weight": [12, 12]},
        "sd2": {
            "cond_stage_model.model.transformer.resblocks.2.attn.in_proj_weight": [36, 12],
            "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias": [36],
            "cond_stage_model.model.positional_embedding": [77, 12],
            "cond_stage_model.model.ln_final.weight": [12],
        },
        "sdxl": {
            "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight": [77, 4],
            "conditioner.embedders.1.model.transformer.resblocks.1.mlp.c_proj.weight": [8, 16],
            "conditioner.embedders.1.model.text_projection": [8, 8],
            "model.diffusion_model.label_emb.0.0.weight": [32, 32],
        },
        "refiner": {"conditioner.embedders.0.model.text_projection": [12, 12]},
    }
    assert text[family].items() <= shapes.items()


def test_diffusers_loads_the_file_as_the_folder(folder, plain, pipeline):
    loaded = type(pipeline).from_single_file(plain, config=str(folder), local_files_only=True)
    for name, tensors in held(pipeline).items():
        require_equal(getattr(loaded, name).state_dict(), tensors)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"], indirect=True)
def test_the_file_paints_what_the_folder_paints(folder, plain, pipeline):
    pictures = [
        loaded(
            "a red cat", num_inference_steps=2, generator=torch.manual_seed(3), output_type="np", height=32, width=32
        )
        for loaded in (
            DiffusionPipeline.from_pretrained(folder),
            type(pipeline).from_single_file(plain, config=str(folder), local_files_only=True),
        )
    ]
    # Where a tensor lies in memory can change the last bit of a product.
    assert abs(pictures[0].images - pictures[1].images).max() < 1e-5
    assert pictures[0].images.std() > 0.01


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_float_can_have_another_dtype(folder, here, pipeline, dtype):
    path = written(folder, here, dtype)
    with safe_open(path, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {dtype}  # noqa: SIM118
    torch_dtype = originals.DTYPES[dtype]
    expected = {
        part: {name: tensor.to(torch_dtype) for name, tensor in tensors.items()}
        for part, tensors in held(pipeline).items()
    }
    require_given_back(load_file(path), pipeline, expected)


def test_a_folder_in_half_precision_stays_so(here):
    pipeline = originals.build("sdxl").to(torch.float16)
    pipeline.text_encoder.to(torch.bfloat16)
    pipeline.save_pretrained(here / "half")
    path = written(here / "half", here)
    tensors = load_file(path)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16, torch.bfloat16}
    require_given_back(tensors, pipeline, held(pipeline))
    require_given_back(
        load_file(written(here / "half", here, "F32")),
        pipeline,
        {part: {name: tensor.float() for name, tensor in held(pipeline)[part].items()} for part in held(pipeline)},
    )


@pytest.mark.parametrize("family", ["sd2", "sdxl"], indirect=True)
def test_a_folder_in_shards_or_a_variant_makes_the_same_file(folder, here, plain, pipeline):
    for more in ({"max_shard_size": "100KB"}, {"variant": "fp16"}):
        copy = here / next(iter(more))
        pipeline.save_pretrained(copy, **more)
        if "max_shard_size" in more:
            assert len(list((copy / "unet").glob("*.safetensors"))) > 2
        assert written(copy, here).read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"], indirect=True)
def test_both_spellings_of_a_text_encoder_make_the_same_file(folder, here, plain):
    (path,) = (folder / "text_encoder").glob("*.safetensors")
    assert not any(name.startswith("text_model.") for name in load_file(path))
    copy = rewritten(folder, here, "text_encoder", long_names)
    assert written(copy, here).read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("family", ["sdxl"], indirect=True)
def test_both_spellings_of_the_autoencoders_attention_make_the_same_file(folder, here, plain):
    def old(tensors):
        renamed = {}
        for name, tensor in tensors.items():
            for new, former in OLD_ATTENTION.items():
                name = name.replace(f".{new}.", f".{former}.")
            renamed[name] = tensor
        assert len(renamed.keys() - tensors.keys()) == 16
        return renamed

    assert written(rewritten(folder, here, "vae", old), here).read_bytes() == plain.read_bytes()


def test_positions_that_old_folders_have_are_kept_where_the_original_has_them(folder, here, family, pipeline):
    part = "text_encoder_2" if family == "refiner" else "text_encoder"
    name = "text_model.embeddings.position_ids"
    copy = rewritten(folder, here, part, lambda tensors: long_names(tensors) | {name: torch.arange(77)[None]})
    path = written(copy, here, "F16")
    found = [(name, tensor) for name, tensor in load_file(path).items() if "position_ids" in name]
    if family in ("sd2", "refiner"):
        assert found == []
    else:
        ((found_name, tensor),) = found
        prefix = "cond_stage_model" if family == "sd1" else "conditioner.embedders.0"
        assert found_name == f"{prefix}.transformer.{name}"
        assert torch.equal(tensor, torch.arange(77)[None])


def test_metadata_are_those_given_and_the_data_are_aligned(folder):
    base = read_base_index(folder)
    file = original_checkpoint(base, NAME, {"lorakit": "{}"})
    assert len(file.header) % 8 == 0
    assert file.header[8:].startswith(b'{"__metadata__":{"lorakit":"{}"},"')
    assert b"__metadata__" not in original_checkpoint(base, NAME, {}).header
    assert file.name == NAME


@pytest.mark.parametrize(
    ("scheduler", "marks"),
    [
        ({"prediction_type": "epsilon", "rescale_betas_zero_snr": True}, set()),
        ({"prediction_type": "v_prediction"}, {"v_pred"}),
        ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, {"v_pred", "ztsnr"}),
    ],
)
@pytest.mark.parametrize("family", ["sd2", "sdxl"], indirect=True)
def test_an_sdxl_that_predicts_velocity_is_marked_so(folder, here, plain, family, pipeline, scheduler, marks):
    base = read_base_index(folder)
    path = originals.write(original_checkpoint(base, NAME, {}, scheduler=scheduler), base, here)
    added = load_file(path).keys() - load_file(plain).keys()
    assert added == (marks if family == "sdxl" else set())
    require_every_parameter(path, in_order(models(pipeline)))
    loaded = type(pipeline).from_single_file(path, config=str(folder), local_files_only=True)
    require_equal(loaded.unet.state_dict(), pipeline.unet.state_dict())


def test_the_demo_model_makes_a_file(here):
    base = read_base_index(BASE)
    path = originals.write(original_checkpoint(base, NAME, {}), base, here)
    pipeline = DiffusionPipeline.from_pretrained(BASE)
    loaded = type(pipeline).from_single_file(path, config=str(BASE), local_files_only=True)
    for part, tensors in held(pipeline).items():
        require_equal(getattr(loaded, part).state_dict(), tensors)
