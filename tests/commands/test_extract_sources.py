"""`lorakit extract` on models from wherever they come: the same adapter as from two folders with plain weights."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.architectures.original_checkpoint import original_checkpoint
from lorakit_cli.core.local_folder import read_base_index
from tests import originals
from tests.checkpoints import DENOISER, hugging_face_tensors, prefixed, unet_tensors
from tests.conversions import BUILDERS, our_deltas, write
from tests.merging import done, refused
from tests.published import publish


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A fine-tune of the tiny base, in fp32."""
    torch.manual_seed(7)
    pipeline = BUILDERS["sd1"]()
    for model in (pipeline.unet, pipeline.text_encoder):
        for parameter in model.parameters():
            parameter.data = (parameter.data + 0.02 * torch.randn_like(parameter)).half().float()
    folder = tmp_path_factory.mktemp("tuned") / "tuned"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def extract(lorakit, base, tuned, here):
    """Extract an adapter, and hold it against that of the folders."""
    asked = "--rank", 3, "--json", "--out"
    done(lorakit("extract", "--base", base, "--tuned", tuned, *asked, "plain.safetensors"))

    def run(first, second, *options):
        report = done(lorakit("extract", "--base", first, "--tuned", second, *options, *asked, "out.safetensors"))
        ours, theirs = load_file(here / "out.safetensors"), load_file(here / "plain.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        return report

    return run


def test_both_on_the_hub(lorakit, hub, extract, base, tuned, here, tmp_path, offline):
    commits = [
        hub.add(f"someone/{name}", publish(folder, tmp_path / name)) for name, folder in (("a", base), ("b", tuned))
    ]
    report = extract("someone/a", "hf:someone/b")
    assert (report["base"], report["tuned"]) == (f"someone/a@{commits[0]}", f"someone/b@{commits[1]}")
    with safe_open("out.safetensors", "pt") as file:
        assert file.metadata()["lorakit.extracted_from"] == f"someone/a@{commits[0]}"
    # From now on out of the cache.
    hub.requests.clear()
    offline()
    (here / "out.safetensors").unlink()
    extract("someone/a", "someone/b")
    assert hub.requests == []
    result = lorakit("extract", "--base", "someone/a", "--tuned", "someone/a", "--rank", 2, "--out", "x.safetensors")
    refused(result, f"--base and --tuned are both someone/a@{commits[0]}", code=2)
    result = lorakit("extract", "--base", "someone/a", "--tuned", "someone/c", "--rank", 2, "--out", "x.safetensors")
    refused(result, "someone/c is not in the cache, and HF_HUB_OFFLINE forbids the network")


def test_no_weights_of_another_model_are_downloaded(lorakit, hub, base, tmp_path, here):
    BUILDERS["sdxl"]().save_pretrained(tmp_path / "xl")
    hub.add("someone/xl", tmp_path / "xl")
    result = lorakit("extract", "--base", base, "--tuned", "someone/xl", "--rank", 2, "--out", "x.safetensors")
    refused(result, " (StableDiffusionXLPipeline) is no fine-tune of ")
    assert " (StableDiffusionPipeline): unet." in result.stderr
    assert not list((tmp_path / "hub-cache").rglob("*.safetensors"))
    assert list(here.iterdir()) == []


def test_shards_and_variants(lorakit, extract, base, tuned, here):
    pipeline = DiffusionPipeline.from_pretrained(tuned, dtype=torch.float32)
    pipeline.save_pretrained("shards", max_shard_size="80KB")
    assert len(list((here / "shards" / "unet").glob("*.safetensors"))) > 3
    extract(base, "shards")
    (here / "out.safetensors").unlink()
    shutil.copytree(tuned, "two")
    for component in ("unet", "text_encoder", "vae"):
        for path in list((here / "two" / component).glob("*.safetensors")):
            path.rename(path.with_name(path.name.replace(".safetensors", ".ema.safetensors")))
        for path in (base / component).glob("*.safetensors"):
            shutil.copy(path, here / "two" / component)
    extract(base, "two", "--variant", "ema")
    (here / "out.safetensors").unlink()
    asked = "extract", "--base", base, "--tuned", "two", "--rank", 3, "--out", "x.safetensors"
    refused(lorakit(*asked), "two differs from ")
    refused(lorakit(*asked, "--variant", "emma"), "--variant emma: neither ", code=2)


def test_pickles_need_permission(lorakit, extract, base, tuned, here):
    shutil.copytree(tuned, "pickled")
    # One is enough, each is opened by a process of its own.
    path = here / "pickled" / "text_encoder" / "model.safetensors"
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()
    asked = "extract", "--base", base, "--tuned", "pickled", "--rank", 3, "--out"
    refused(lorakit(*asked, "x.safetensors"), "is a pickle, and only safetensors are read; --allow-pickle takes")
    report = extract(base, "pickled", "--allow-pickle")
    assert report["tuned"] == "pickled"
    result = lorakit(*asked, "pickled/x.safetensors", "--allow-pickle")
    refused(result, "pickled/x.safetensors lies in pickled, which is read; choose a place outside it")


def test_single_files_on_either_side(extract, lorakit, base, checkpoint, adapters, tuned, here, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(tuned, dtype=torch.float32)
    tensors = prefixed(unet_tensors(pipeline.unet), DENOISER)
    tensors |= prefixed(hugging_face_tensors(pipeline.text_encoder), "cond_stage_model.transformer.")
    single = write(here / "single.safetensors", {name: tensor.detach() for name, tensor in tensors.items()})
    for first, second in ((checkpoint, single), (base, single), (checkpoint, tuned)):
        extract(first, second)
        (here / "out.safetensors").unlink()
    before = single.read_bytes()
    asked = "extract", "--base", base, "--tuned", single, "--rank", 3, "--overwrite", "--out"
    refused(lorakit(*asked, single), "single.safetensors, which is read; choose another place")
    assert single.read_bytes() == before


def single_file(folder):
    """Write a pipeline as one file, in the original layout."""
    index = read_base_index(folder, architectures=ARCHITECTURES)
    return originals.write(original_checkpoint(index, f"{folder.name}.safetensors", {}), index, folder.parent)


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_a_single_file_of_sdxl(lorakit, here, side):
    """In the original layout, whose second text encoder has queries, keys and values as one."""
    pipeline = originals.build("sdxl")
    pipeline.save_pretrained("base")
    torch.manual_seed(8)
    for model in (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    pipeline.save_pretrained("tuned")
    file = single_file(here / side)
    models = {"base": "base", "tuned": "tuned", side: file}
    reports = [
        done(
            lorakit("extract", "--base", one, "--tuned", two, "--energy", 1, "--dtype", "fp32", "--json", "--out", out)
        )
        for one, two, out in (("base", "tuned", "a.safetensors"), (models["base"], models["tuned"], "b.safetensors"))
    ]
    assert reports[0]["layers"] == reports[1]["layers"]
    folders, mixed = (our_deltas(here / "base", here / f"{name}.safetensors") for name in "ab")
    assert folders.keys() == mixed.keys()
    assert all(torch.allclose(folders[key], mixed[key], atol=1e-6) for key in folders)


def test_one_without_a_component_and_one_that_differs_in_size(lorakit, base, tuned, here):
    pipeline = DiffusionPipeline.from_pretrained(tuned, dtype=torch.float32, text_encoder=None)
    pipeline.save_pretrained("without")
    asked = "extract", "--base", base, "--rank", 2, "--out", "x.safetensors", "--tuned"
    result = lorakit(*asked, "without")
    assert result.exit_code == 0
    assert "warning: only the base has text_encoder, which was left out\n" in result.stderr
    pipeline = DiffusionPipeline.from_pretrained(tuned, dtype=torch.float32)
    pipeline.text_encoder.resize_token_embeddings(pipeline.text_encoder.config.vocab_size + 1)
    pipeline.save_pretrained("larger")
    result = lorakit(*asked, "larger", "--overwrite")
    refused(result, "token_embedding.weight is [")
    assert "; --components unet leaves it out" in result.stderr
    report = done(lorakit(*asked, "larger", "--overwrite", "--components", "unet", "--json"))
    assert {block["component"] for block in report["blocks"]} == {"unet"}


def test_which_model_is_broken_is_said(lorakit, base, tuned, here):
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.unet.conv_in.weight.data[0, 0, 0, 0] = math.inf
    pipeline.save_pretrained("broken")
    for first, second in (("broken", tuned), (tuned, "broken")):
        result = lorakit("extract", "--base", first, "--tuned", second, "--rank", 2, "--out", "x.safetensors")
        refused(result, "unet.conv_in.weight of broken holds NaN or infinity")
    assert not (here / "x.safetensors").exists()


def test_a_rank_above_all_there_are(lorakit, base, tuned, here):
    result = lorakit("extract", "--base", base, "--tuned", tuned, "--rank", 99, "--out", "x.safetensors")
    refused(result, "--rank 99: no layer has a rank above 32; ask for 32 or less", code=2)
    done(lorakit("extract", "--base", base, "--tuned", tuned, "--rank", 32, "--out", "x.safetensors", "--json"))


def test_a_terminal_sees_the_download_and_the_work(hub, base, tuned, tmp_path):
    hub.add("someone/tuned", tuned)
    reading, writing = pytest.importorskip("pty").openpty()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "lorakit_cli", "extract", "--base", base, "--tuned", "someone/tuned"]
    command += ["--rank", "2", "--out", "out.safetensors", "--json"]
    # A pipe that nobody empties meanwhile would fill up.
    with (
        Path("stdout").open("wb") as stdout,
        subprocess.Popen(command, stdout=stdout, stderr=writing, env=variables | {"TERM": "xterm"}) as run,
    ):
        os.close(writing)
        drawn = b""
        try:
            while piece := os.read(reading, 65536):
                drawn += piece
        except OSError:
            # The other end is closed.
            pass
    os.close(reading)
    assert run.returncode == 0, drawn
    assert json.loads(Path("stdout").read_bytes())["layers"] == 213
    assert b"downloading someone/tuned" in drawn
    assert b"extracting" in drawn
