"""`lorakit fuse` on bases of other kinds: pickled weights, quantized ones, single files."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from tests.exact_weights import assert_rounded_once, exact_weights, folder_weights
from tests.fused import fused, specs
from tests.tiny import build_pipeline


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture(scope="module")
def pickled(tmp_path_factory):
    """The tiny pipeline with all its weights in .bin files, as old ones have them."""
    folder = tmp_path_factory.mktemp("pickled") / "base"
    build_pipeline().to(torch.float16).save_pretrained(folder)
    for path in folder.glob("*/*.safetensors"):
        name = "pytorch_model.bin" if path.name == "model.safetensors" else "diffusion_pytorch_model.bin"
        torch.save(load_file(path), path.with_name(name))
        path.unlink()
    return folder


def test_pickled_weights_are_read_on_request_and_written_as_safetensors(lorakit, here, base, pickled, adapters):
    ink = specs(adapters, "ink.safetensors:0.5")
    done = lorakit("fuse", "--base", pickled, *ink, "--out", "out")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is a pickle, and only safetensors are read; --allow-pickle takes its tensors out" in done.stderr
    fused(lorakit, "--base", pickled, *ink, "--allow-pickle", "--out", "out")
    assert_rounded_once(
        folder_weights(here / "out"), exact_weights(base, [(adapters / "ink.safetensors", 0.5)]), torch.float16
    )
    assert not list((here / "out").rglob("*.bin"))
    with safe_open(here / "out" / "text_encoder" / "model.safetensors", "pt") as file:
        # Without it, transformers before 5 refuses a file.
        assert file.metadata() == {"format": "pt"}
    pipeline = DiffusionPipeline.from_pretrained(here / "out", dtype=torch.float16)
    assert torch.equal(pipeline.unet.conv_in.weight, folder_weights(here / "out")["unet.conv_in.weight"])
    assert json.loads((here / "out" / "lorakit.json").read_text())["base"]["source"] == str(pickled)
    assert lorakit("verify", "out", "--allow-pickle").exit_code == 0
    assert sorted(path.suffix for path in pickled.glob("*/*model*")) == [".bin"] * 3


def test_a_pickle_that_would_run_code_is_refused_and_does_not(lorakit, here, pickled, adapters, tmp_path):
    shutil.copytree(pickled, tmp_path / "evil")
    trace = tmp_path / "ran"
    torch.save({"conv_in.weight": Bomb(trace)}, tmp_path / "evil" / "unet" / "diffusion_pytorch_model.bin")
    ink = specs(adapters, "ink.safetensors")
    done = lorakit("fuse", "--base", tmp_path / "evil", *ink, "--allow-pickle", "--out", "out")
    assert (done.exit_code, done.stdout, list(here.iterdir())) == (1, "", [])
    assert "diffusion_pytorch_model.bin" in done.stderr
    assert not trace.exists()


@pytest.mark.parametrize(
    ("config", "scheme"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bit"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_type": "\x1b[31mred"}, "\ufffd[31mred"),
    ],
)
def test_a_quantized_base_is_refused_by_the_name_of_its_scheme(lorakit, here, base, adapters, config, scheme):
    shutil.copytree(base, here / "base")
    path = here / "base" / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": config}))
    done = lorakit("fuse", "--base", "base", *specs(adapters, "ink.safetensors"), "--out", "out")
    assert done.exit_code == 1
    assert done.stderr == (
        f"error: the unet of base is quantized ({scheme}), and nothing can be added to packed weights; fuse into the "
        "model that it was made from, then quantize the result\n"
    )


def test_a_folder_becomes_a_single_file_that_diffusers_opens(lorakit, here, base, adapters):
    ink = specs(adapters, "ink.safetensors:0.5")
    fused(lorakit, "--base", base, *ink, "--out", "one.safetensors", "--verify", "full")
    exact = exact_weights(base, [(adapters / "ink.safetensors", 0.5)])
    config = {"config": str(base), "local_files_only": True, "torch_dtype": torch.float16}
    pipeline = StableDiffusionPipeline.from_single_file(str(here / "one.safetensors"), **config)
    loaded = {
        f"{name}.{key}": value
        for name in ("unet", "vae")
        for key, value in getattr(pipeline, name).state_dict().items()
    }
    assert_rounded_once(loaded, {name: exact[name] for name in loaded}, torch.float16)
    with safe_open(here / "one.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["lorakit"])
    assert [adapter["name"] for adapter in recipe["adapters"]] == ["ink"]
    assert (here / "one.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_single_file_stays_one_and_all_else_in_it_is_kept(lorakit, here, base, checkpoint, adapters):
    ink = specs(adapters, "ink.safetensors:0.5")
    done = lorakit("fuse", "--base", checkpoint, *ink, "--out", "folder")
    assert done.exit_code == 1
    assert "is a single file and becomes one: --out folder.safetensors" in done.stderr
    fused(lorakit, "--base", checkpoint, *ink, "--out", "one.safetensors", "--verify", "full")
    before, after = load_file(checkpoint), load_file(here / "one.safetensors")
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) == 188
    assert not any(name.startswith("first_stage_model.") for name in changed)
    # The same adapter comes to the same values in both forms of the base.
    fused(lorakit, "--base", base, *ink, "--out", "other.safetensors")
    theirs = load_file(here / "other.safetensors")
    for name in changed:
        assert torch.equal(after[name], theirs[name]), name


def test_a_saved_folder_draws_what_the_live_pipeline_draws(lorakit, here, tmp_path, adapters):
    build_pipeline().save_pretrained(tmp_path / "base")
    fused(lorakit, "--base", tmp_path / "base", *specs(adapters, "ink.safetensors:0.6"), "--out", "out")
    live = DiffusionPipeline.from_pretrained(tmp_path / "base")
    live.load_lora_weights(str(adapters), weight_name="ink.safetensors", adapter_name="ink")
    live.set_adapters(["ink"], [0.6])

    def latents(pipeline):
        generator = torch.Generator().manual_seed(1)
        return pipeline("a heart", num_inference_steps=3, generator=generator, output_type="latent").images

    plain = latents(DiffusionPipeline.from_pretrained(tmp_path / "base"))
    ours, theirs = latents(DiffusionPipeline.from_pretrained(here / "out")), latents(live)
    assert (theirs - plain).abs().max() > 0.01
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_a_base_in_one_shard_keeps_its_index(lorakit, here, base, adapters):
    shutil.copytree(base, here / "base")
    name = "diffusion_pytorch_model"
    only = here / "base" / "unet" / f"{name}-00001-of-00001.safetensors"
    (here / "base" / "unet" / f"{name}.safetensors").rename(only)
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(only), only.name)}
    (here / "base" / "unet" / f"{name}.safetensors.index.json").write_text(json.dumps(index))
    fused(lorakit, "--base", "base", *specs(adapters, "ink.safetensors"), "--out", "out")
    DiffusionPipeline.from_pretrained(here / "out")
    assert lorakit("verify", "out").exit_code == 0


def test_what_is_fused_from_a_saved_folder_is_proved_replayed_and_undone(lorakit, here):
    assert lorakit("save", "--lora", "toy:0.8", "--lora", "pixel:0.5", "--out", "set").exit_code == 0
    fused(lorakit, "--base", "set", "--out", "out")
    assert lorakit("verify", "out").exit_code == 0
    assert lorakit("fuse", "--recipe", "out", "--out", "again").exit_code == 0
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (here / "again" / name).read_bytes() == (here / "out" / name).read_bytes()
    assert lorakit("unfuse", "out", "--out", "back").exit_code == 0
    assert (here / "back" / name).read_bytes() == (here / "set" / name).read_bytes()
    assert fused(lorakit, "--base", "back", "--lora", "toy", "--out", "third")["check"]["sound"]
    assert lorakit("save", "--lora", "toy", "--adapters-only", "--out", "few").exit_code == 0
    fused(lorakit, "--base", "few", "--out", "fourth")
    assert lorakit("verify", "fourth").exit_code == 0
