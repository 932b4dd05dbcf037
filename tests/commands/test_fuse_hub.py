"""`lorakit fuse` on a base on the Hub: the same output as from its folder, and no file downloaded for nothing."""

import json
import stat

import pytest

from tests.fused import files, fused, specs
from tests.published import publish

INK = "ink.safetensors:0.7"


@pytest.fixture
def commit(hub, base, tmp_path):
    return hub.add("someone/tiny", publish(base, tmp_path / "published"), "main", "v1")


def but_recipe(folder):
    """Give the files of an output, but for those that say when and where from it was made."""
    found = files(folder)
    return found, json.loads(found.pop("lorakit.json")), found.pop("README.md").decode()


@pytest.mark.parametrize("asked", ["someone/tiny", "hf:someone/tiny@v1"])
def test_a_base_on_the_hub_gives_what_its_folder_gives(lorakit, hub, base, commit, adapters, here, tmp_path, asked):
    ink = specs(adapters, INK)
    report = fused(lorakit, "--base", asked, *ink, "--out", here / "hub")
    assert hub.asked_for() == {name for name in files(base) if name != "README.md"}
    assert report["base"] == f"someone/tiny@{commit}"
    fused(lorakit, "--base", tmp_path / "published", *ink, "--out", here / "local")
    (ours, recipe, card), (theirs, local, _) = but_recipe(here / "hub"), but_recipe(here / "local")
    assert ours == theirs
    assert recipe["base"] == local["base"] | {"source": asked, "remote": f"someone/tiny@{commit}"}
    assert "base_model: someone/tiny\n" in card


def test_outputs_are_files_of_their_own(lorakit, commit, adapters, here, tmp_path):
    fused(lorakit, "--base", "someone/tiny", *specs(adapters, INK), "--out", here / "out")
    snapshot = tmp_path / "hub-cache" / "models--someone--tiny" / "snapshots" / commit
    assert (snapshot / "vae/config.json").is_symlink()
    for path in (here / "out").rglob("*"):
        assert not path.is_symlink()
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)
        copied = snapshot / path.relative_to(here / "out")
        assert path.is_dir() or not copied.exists() or not path.samefile(copied)


def test_once_downloaded_it_needs_no_network(lorakit, hub, commit, adapters, here, offline):
    ink = specs(adapters, INK)
    fused(lorakit, "--base", "someone/tiny", *ink, "--out", here / "first")
    hub.requests.clear()
    fused(lorakit, "--base", "someone/tiny", *ink, "--out", here / "second")
    assert [request.path for request in hub.requests] == ["/api/models/someone/tiny"]
    offline()
    fused(lorakit, "--base", "someone/tiny", *ink, "--out", here / "third")
    assert len(hub.requests) == 1
    assert but_recipe(here / "first")[0] == but_recipe(here / "second")[0] == but_recipe(here / "third")[0]


def refused(lorakit, here, *arguments):
    """Fuse in vain; give the last line, after which there is no output."""
    done = lorakit("fuse", *arguments, "--out", here / "out")
    assert (done.exit_code, done.stdout) == (1, "")
    assert list(here.iterdir()) == []
    return done.stderr.splitlines()[-1]


def test_offline_nothing_is_written(lorakit, hub, commit, adapters, here, offline):
    ink = specs(adapters, INK)
    headers = lorakit("fuse", "--base", "someone/tiny", *ink, "--dry-run")
    assert headers.exit_code == 0
    hub.requests.clear()
    offline()
    assert refused(lorakit, here, "--base", "someone/tiny", *ink) == (
        "error: someone/tiny is not wholly in the cache, scheduler/scheduler_config.json is missing, and "
        "HF_HUB_OFFLINE forbids the network; unset it once, or give the path of a folder"
    )
    assert "someone/else is not in the cache" in refused(lorakit, here, "--base", "someone/else", *ink)
    assert hub.requests == []
    # The plan needs no more than it has.
    assert lorakit("fuse", "--base", "someone/tiny", *ink, "--dry-run").stdout == headers.stdout


def test_no_weights_are_downloaded_in_vain(lorakit, hub, base, commit, adapters, here, monkeypatch):
    import shutil

    from tests.tiny import save_adapter

    save_adapter(adapters.parent / "wide.safetensors", seed=3, width=16, text=False)
    ink = specs(adapters, INK)
    message = refused(lorakit, here, "--base", "someone/tiny", *specs(adapters.parent, "wide.safetensors"))
    assert "does not fit" in message
    dry = lorakit("fuse", "--base", "someone/tiny", *ink, "--dry-run", "--out", here / "out")
    assert (dry.exit_code, dry.stderr) == (0, "")
    assert f"base someone/tiny@{commit}" in dry.stdout
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 9, 9))
    message = refused(lorakit, here, "--base", "someone/tiny", *ink)
    assert message.startswith(f"error: someone/tiny@{commit} is to be downloaded: not enough space in ")
    assert "which HF_HOME names" in message
    # No more was read than headers, for which these tiny files are too small.
    assert {name for name in hub.asked_for() if "json" not in name} == {
        name for name in files(base) if name.endswith(".safetensors")
    }
    assert not list((here.parent / "hub-cache").rglob("*.safetensors"))


def test_a_gated_base_is_said_to_be(lorakit, hub, base, adapters, here, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add("someone/gated", base, gated=True, token="hf_secret")
    ink = specs(adapters, INK)
    fused(lorakit, "--base", "someone/gated", *ink, "--out", here / "out")
    for path in sorted(here.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    hub.add("someone/other", base, gated=True, token="hf_secret")
    message = refused(lorakit, here, "--base", "someone/other", *ink)
    assert "someone/other is gated; accept its licence at" in message
    assert "hf_" not in message


def test_a_variant_alone_is_taken_and_the_loaded_engine_works_too(lorakit, hub, adapters, here, tmp_path):
    import torch

    from tests.tiny import build_pipeline

    build_pipeline().to(torch.float16).save_pretrained(tmp_path / "alone", variant="fp16")
    hub.add("someone/alone", tmp_path / "alone")
    ink = specs(adapters, INK)
    fused(lorakit, "--base", "someone/alone", *ink, "--out", here / "hub")
    fused(lorakit, "--base", tmp_path / "alone", *ink, "--out", here / "local")
    assert but_recipe(here / "hub")[0] == but_recipe(here / "local")[0]
    fused(lorakit, "--base", "someone/alone", *ink, "--out", here / "loaded", "--engine", "pipeline")
    for file in (here / "hub").glob("*/*.safetensors"):
        assert file.read_bytes() == (here / "loaded" / file.relative_to(here / "hub")).read_bytes()


def test_a_snapshot_that_was_changed_is_not_taken(lorakit, hub, commit, adapters, here, tmp_path):
    from safetensors.torch import load_file, save_file

    from lorakit_cli.core.adapter_spec import AdapterSpec
    from lorakit_cli.errors import BaseModelError
    from lorakit_cli.service.fetching import fetched
    from lorakit_cli.service.fuse_request import FuseRequest, prepare_fuse

    spec = AdapterSpec.parse(f"{adapters}/{INK}")
    prepared = prepare_fuse(FuseRequest(here / "out", "someone/tiny", (spec,)))
    path = fetched(prepared.plan.base).path / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file({name: tensors[name] for name in sorted(tensors)[1:]}, path.resolve())
    with pytest.raises(BaseModelError, match=r"is not what someone/tiny@.* is on the Hub; delete it and try again"):
        fetched(prepared.plan.base)


def test_an_output_on_the_hub_is_known_for_what_is_in_it(lorakit, hub, base, adapters, here, tmp_path):
    ink, wash = specs(adapters, INK), specs(adapters, "wash.safetensors")
    fused(lorakit, "--base", base, *ink, "--out", tmp_path / "once")
    commit = hub.add("someone/once", tmp_path / "once")
    assert refused(lorakit, here, "--base", "someone/once", *ink) == (
        f"error: adapter ink is fused into someone/once@{commit} already, at 0.7; fuse into the original base, or add "
        "it once more with --again"
    )
    for asked, out in (("someone/once", "hub"), (tmp_path / "once", "local")):
        fused(lorakit, "--base", asked, *wash, "--out", here / out)
    (ours, recipe, _), (theirs, local, _) = but_recipe(here / "hub"), but_recipe(here / "local")
    assert ours == theirs
    assert recipe["base"]["recipe"] == local["base"]["recipe"]
    assert [adapter["name"] for adapter in recipe["base"]["recipe"]["adapters"]] == ["ink"]


@pytest.mark.parametrize("recipe", ["{", "[]", '{"schema": "lorakit/recipe/1"}'])
def test_a_recipe_on_the_hub_that_cannot_be_read_is_said(lorakit, hub, base, adapters, here, tmp_path, recipe):
    folder = publish(base, tmp_path / "published")
    (folder / "lorakit.json").write_text(recipe)
    hub.add("someone/tiny", folder)
    message = refused(lorakit, here, "--base", "someone/tiny", *specs(adapters, INK))
    assert message.startswith("error: someone/tiny/lorakit.json ")
