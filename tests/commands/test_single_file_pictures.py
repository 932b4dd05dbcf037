"""Pictures with a base that is a single file: those of the folder that it was made of."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.architectures.original_checkpoint import original_checkpoint
from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.service.planning import make_plan
from lorakit_cli.service.session import Session
from tests.checkpoints import flux_tensors, prefixed
from tests.commands.conftest import names
from tests.originals import build, write
from tests.whole_flux import build_whole_flux

FAMILIES = ("sd1", "sd2", "sdxl")
DRAWN = ("--seed", 1, "--steps", 2, "a red heart")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder and a single file of each family, the file written by the plain writer, and an adapter for each."""
    top = tmp_path_factory.mktemp("models")
    for family in FAMILIES:
        pipeline = build(family)
        pipeline.save_pretrained(top / family)
        base = read_base_index(top / family, architectures=ARCHITECTURES)
        write(original_checkpoint(base, f"{family}.safetensors", {}), base, top)
        save_file(adapter(pipeline), top / f"ink-{family}.safetensors")
    return top


def adapter(pipeline):
    """Give LoRA layers of random values for attention, convolutions and every text encoder."""
    tensors = {}
    wanted = {
        "unet": ("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.0.resnets.0.conv1", "conv_in"),
        "text_encoder": ("encoder.layers.1.self_attn.k_proj", "encoder.layers.1.self_attn.v_proj"),
        "text_encoder_2": ("text_model.encoder.layers.1.self_attn.q_proj", "text_model.encoder.layers.0.mlp.fc1"),
    }
    torch.manual_seed(7)
    for component, modules in wanted.items():
        part = getattr(pipeline, component, None)
        for module in modules if part else ():
            shape = part.get_submodule(module).weight.shape
            name = module if component == "unet" else "text_model." + module.removeprefix("text_model.")
            tensors[f"{component}.{name}.lora_A.weight"] = torch.randn(2, *shape[1:])
            tensors[f"{component}.{name}.lora_B.weight"] = torch.randn(shape[0], 2, *[1] * (len(shape) - 2)) / 3
    return tensors


def pixels(path):
    with Image.open(path) as image:
        return numpy.asarray(image).astype(int)


def alike(one, other):
    """Tell whether two pictures are the same but for rounding.

    A folder's weights are mapped from its files, and processors sum otherwise where values are not aligned.
    """
    return abs(one - other).max() <= 1


def draw(lorakit, base, out, *more):
    result = lorakit("generate", "--base", base, "-o", out, *more, *DRAWN)
    assert result.exit_code == 0, result.stderr
    return pixels(out)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_single_file_draws_what_its_folder_draws(lorakit, models, family):
    folder, file, ink = models / family, models / f"{family}.safetensors", ("-l", models / f"ink-{family}.safetensors")
    config = ("--config", folder)
    plain = draw(lorakit, folder, "plain.png")
    inked = draw(lorakit, folder, "inked.png", *ink)
    assert not alike(inked, plain)
    assert alike(draw(lorakit, file, "file.png", *config), plain)
    assert alike(draw(lorakit, file, "file-inked.png", *config, *ink), inked)


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_are_the_same_to_the_last_bit(models, family):
    spec = PictureSpec("a red heart", None, 1, Settings(32, 32, 2, 7.5))
    ink = AdapterSpec.parse(f"ink={models / f'ink-{family}.safetensors'}:0.7")
    found = []
    for base, config in ((models / family, None), (models / f"{family}.safetensors", str(models / family))):
        plan = make_plan(str(base), [ink]).plan
        session = Session(plan.base, Loading(config=config))
        parts = [part for part in session.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        for value in (value for part in parts for value in (*part.parameters(), *part.buffers())):
            # To where the kernels find them alike, not where they lie in their files.
            value.data = value.data.clone()
        plain = session.values(spec, output="latent")
        session.put_in(plan)
        inked = session.values(spec, output="latent")
        session.put_in(replace(plan, terms={}))
        found.append((plain, inked, session.values(spec, output="latent")))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    plain, inked, restored = found[1]
    assert torch.equal(restored, plain)
    assert not torch.allclose(inked, plain)


def test_weights_go_in_and_out_and_beside(lorakit, models, here):
    file, config = models / "sdxl.safetensors", ("--config", models / "sdxl")
    Path("prompts.txt").write_text("a <lora:ink:1>\na\nb <lora:ink:1>\n")
    Path("lorakit.toml").write_text(f'[adapters.ink]\nsource = "{(models / "ink-sdxl.safetensors").as_posix()}"\n')
    for base, out in ((file, "file/"), (models / "sdxl", "folder/")):
        more = config if base is file else ()
        made = ("--prompt-file", "prompts.txt", "--seed", 1, "--steps", 2, "-o", out)
        assert lorakit("generate", "-b", base, *more, *made).exit_code == 0
    found = names(here / "file")
    assert found == names(here / "folder")
    assert len(found) == 3
    assert all(alike(pixels(here / "file" / name), pixels(here / "folder" / name)) for name in found)
    # peft reaches modules, wherever their values lie in the file.
    attached = [
        draw(lorakit, base, f"a{base.suffix}.png", *more, "-l", "ink", "--attach")
        for base, more in ((file, config), (models / "sdxl", ()))
    ]
    assert alike(*attached)


def test_a_picture_of_a_single_file_is_made_again(lorakit, models, here):
    shutil.copy(models / "sd2.safetensors", "mine.safetensors")
    shutil.copy(models / "ink-sd2.safetensors", "ink.safetensors")
    shutil.copytree(models / "sd2", "like")
    draw(lorakit, "mine.safetensors", "first.png", "--config", "./like", "-l", "./ink.safetensors")
    Path("mine.safetensors").rename("renamed.safetensors")
    gone = lorakit("generate", "--from", "first.png", "-o", "x.png", "--base", "like")
    assert gone.exit_code == 1
    assert "is not the base it was" in gone.stderr
    again = lorakit("generate", "--from", "first.png", "-o", "again.png", "--base", "renamed.safetensors")
    assert again.exit_code == 0, again.stderr
    assert Path("again.png").read_bytes() == Path("first.png").read_bytes()
    shutil.rmtree("like")
    missing = lorakit("generate", "--from", "first.png", "-o", "x.png", "--base", "renamed.safetensors")
    assert missing.stderr.startswith("error: like, which --config was, is not here")


def test_a_folder_in_the_place_of_a_single_file_needs_no_configurations(lorakit, models):
    draw(lorakit, models / "sd1.safetensors", "first.png", "--config", models / "sd1")
    again = ("generate", "--from", "first.png", "-o", "again.png", "-b", models / "sd1", "--allow-changed")
    result = lorakit(*again)
    assert result.exit_code == 0, result.stderr
    assert f"warning: the picture's --config is left out: {models / 'sd1'} has its own" in result.stderr
    assert alike(pixels("again.png"), pixels("first.png"))
    asked = lorakit(*again, "--overwrite", "--config", models / "sd1")
    assert "error: --config goes with a base that is a single file" in asked.stderr


def test_a_grid_of_a_single_file(lorakit, models, here):
    ink = ("--lora", f"ink={models / 'ink-sd1.safetensors'}", "--axis", "ink=0,1")
    for base, more, out in (
        (models / "sd1.safetensors", ("--config", models / "sd1"), "file"),
        (models / "sd1", (), "folder"),
    ):
        result = lorakit("grid", "-b", base, *more, *ink, "--steps", 2, "-o", out, "a heart")
        assert result.exit_code == 0, result.stderr
    cells = names(here / "file" / "cells")
    assert cells == names(here / "folder" / "cells")
    drawn = {name: pixels(here / "file" / "cells" / name) for name in cells}
    assert all(alike(drawn[name], pixels(here / "folder" / "cells" / name)) for name in cells)
    assert not alike(*drawn.values())
    index = json.loads((here / "file" / "index.json").read_text())
    assert all(f"--config {models / 'sd1'}" in cell["command"] for cell in index["cells"])


def test_the_embedded_model_as_a_file_needs_nothing_more(lorakit):
    assert lorakit("fuse", "-l", "toy", "-o", "toy.safetensors").exit_code == 0
    assert lorakit("fuse", "-l", "toy", "-o", "toy").exit_code == 0
    drawn = [draw(lorakit, base, f"{base}.png", "-l", "pixel:0.5") for base in ("toy", "toy.safetensors")]
    assert alike(*drawn)
    # Also what the base says about pictures, which the recipe in the header keeps.
    plans = [
        json.loads(lorakit("generate", "-b", base, "--dry-run", "--json", "x").stdout)
        for base in ("toy", "toy.safetensors")
    ]
    assert (plans[0]["steps"], plans[0]["guidance"]) == (plans[1]["steps"], plans[1]["guidance"]) == (20, 4.0)


def test_what_a_file_lacks_comes_from_the_folder(lorakit, models, here):
    own = load_file(models / "sdxl.safetensors")
    unet = {
        name.removeprefix("model.diffusion_model."): value for name, value in own.items() if name.startswith("model.")
    }
    save_file(unet, "unet.safetensors")
    save_file({name: value for name, value in own.items() if not name.startswith("first_stage")}, "no-vae.safetensors")
    plain = draw(lorakit, models / "sdxl", "plain.png")
    for file in ("unet.safetensors", "no-vae.safetensors"):
        assert alike(draw(lorakit, file, f"{file}.png", "--config", models / "sdxl"), plain)
    # A folder of configurations alone has what every file lacks, and nothing that this one does.
    shutil.copytree(models / "sdxl", "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    assert alike(draw(lorakit, models / "sdxl.safetensors", "bare.png", "--config", "bare"), plain)
    wanting = lorakit("generate", "-b", "unet.safetensors", "--config", "bare", *DRAWN)
    assert wanting.stderr == (
        "error: unet.safetensors holds no text_encoder and text_encoder_2 and vae, and --config bare has no weights of "
        "it either; --config FOLDER names a pipeline that has them\n"
    )
    wanting = lorakit("generate", "-b", "no-vae.safetensors", "--config", "bare", *DRAWN)
    assert "holds no vae" in wanting.stderr
    assert "--vae FOLDER brings one" in wanting.stderr
    vae = ("--vae", models / "sdxl" / "vae")
    assert alike(draw(lorakit, "no-vae.safetensors", "vae.png", "--config", "bare", *vae), plain)
    # Also a file of one, which the configurations are for.
    weights = models / "sdxl" / "vae" / "diffusion_pytorch_model.safetensors"
    assert alike(draw(lorakit, models / "sdxl.safetensors", "v.png", "--config", "bare", "--vae", weights), plain)


def test_a_marked_file_predicts_velocity(lorakit, models):
    pipeline = build("sdxl")
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    pipeline.save_pretrained("velocity")
    config = json.loads(Path("velocity/scheduler/scheduler_config.json").read_text())
    base = read_base_index(Path("velocity"), architectures=ARCHITECTURES)
    write(original_checkpoint(base, "velocity.safetensors", {}, scheduler=config), base, Path())
    told = draw(lorakit, "velocity", "velocity.png")
    assert not alike(told, draw(lorakit, models / "sdxl", "noise.png"))
    # The configurations say noise, and the mark in the file wins.
    assert alike(draw(lorakit, "velocity.safetensors", "file.png", "--config", models / "sdxl"), told)


def test_what_cannot_be(lorakit, models, here):
    shutil.copytree(models / "sd1", "like", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.rmtree("like/tokenizer")
    Path("empty").mkdir()
    sd1, unknown = models / "sd1.safetensors", "lorakit does not bring; --config FOLDER names a pipeline like it"
    usage = lorakit("generate", "-b", models / "sd1", "--config", models / "sd2", *DRAWN)
    assert usage.exit_code == 2
    assert usage.stderr == f"error: --config goes with a base that is a single file, and {models / 'sd1'} has its own\n"
    cases = {
        ("-b", sd1): f"{sd1} is for a StableDiffusionPipeline, whose configurations and tokenizers {unknown}",
        ("-b", sd1, "--config", models / "sdxl"): "is for another family: it is a StableDiffusionXLPipeline",
        ("-b", sd1, "--config", models / "sd2"): "its unet has down_blocks.0.attentions.0.proj_in.weight of the shape "
        "[8, 8, 1, 1], and theirs is [8, 8]",
        ("-b", sd1, "--config", "nowhere"): "--config nowhere is no folder of a pipeline: it has no model_index.json",
        ("-b", sd1, "--config", "empty"): "--config empty is no folder of a pipeline",
        ("-b", sd1, "--config", "like"): "--config like is incomplete: its tokenizer is missing",
        ("-b", "gone.safetensors", "--config", models / "sd1"): "gone.safetensors",
    }
    for arguments, told in cases.items():
        result = lorakit("generate", *arguments, *DRAWN)
        assert (result.exit_code, result.stdout) == (1, ""), arguments
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert told in line
    assert names(here) == ["empty", "like"]


def test_a_transformer_of_flux(lorakit, here, monkeypatch):
    pipeline = build_whole_flux()
    for value in pipeline.transformer.parameters():
        value.data += 0.1 * torch.randn_like(value)
    pipeline.save_pretrained("flux")
    save_file(prefixed(flux_tensors(pipeline.transformer), "model.diffusion_model."), "flux.safetensors")
    torch.manual_seed(8)
    # Rows of a fused tensor, halves that stand the other way round there, and a part of a layer in one tensor.
    layers = ("transformer_blocks.0.attn.to_k", "norm_out.linear", "single_transformer_blocks.0.proj_mlp")
    ink = {}
    for layer in layers:
        height, width = pipeline.transformer.get_submodule(layer).weight.shape
        ink[f"transformer.{layer}.lora_A.weight"] = torch.randn(2, width)
        ink[f"transformer.{layer}.lora_B.weight"] = torch.randn(height, 2)
    save_file(ink, "ink.safetensors")
    size = ("--width", 16, "--height", 16, "-l", "./ink.safetensors")
    plain, inked = draw(lorakit, "flux", "plain.png", *size[:4]), draw(lorakit, "flux", "inked.png", *size)
    assert not alike(plain, inked)
    assert alike(draw(lorakit, "flux.safetensors", "file.png", *size, "--config", "flux"), inked)
    assert alike(draw(lorakit, "flux.safetensors", "attached.png", *size, "--config", "flux", "--attach"), inked)
    # Rows as the file has them are not those of the module that peft runs beside.
    last = "final_layer.adaLN_modulation.1"
    first, second = ink["transformer.norm_out.linear.lora_B.weight"].chunk(2)
    down = ink["transformer.norm_out.linear.lora_A.weight"]
    original = {f"diffusion_model.{last}.lora_A.weight": down}
    original[f"diffusion_model.{last}.lora_B.weight"] = torch.cat([second, first])
    save_file(original, "original.safetensors")
    for base in ("flux", "flux.safetensors"):
        arguments = ("-b", base, "--config", "flux") if base.endswith("safetensors") else ("-b", base)
        refused = lorakit("generate", *arguments, *size[:4], "-l", "./original.safetensors", "--attach", *DRAWN)
        assert refused.stderr.endswith("which peft cannot attach; leave --attach out\n")
    alone = lorakit("generate", "-b", "flux.safetensors", *DRAWN)
    assert alone.stderr.startswith("error: flux.safetensors is for a FluxPipeline, whose configurations and tokenizers")
    assert lorakit("generate", "-b", "flux.safetensors", "--dry-run", *DRAWN).exit_code == 0
    # What is in the cache of the Hub by the name of its makers serves; this one is not told the guidance.
    cache = here / "hub" / "models--black-forest-labs--FLUX.1-schnell"
    shutil.copytree("flux", cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "hub"))
    assert alike(draw(lorakit, "flux.safetensors", "cached.png", *size), inked)
