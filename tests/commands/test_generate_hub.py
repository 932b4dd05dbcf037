"""`lorakit generate` and `save` on a base on the Hub: what its folder gives, and no file downloaded for nothing."""

import json

import pytest
import torch
from PIL import Image

from tests.fused import files, specs
from tests.published import publish
from tests.tiny import build_pipeline

INK = "ink.safetensors:0.7"


@pytest.fixture
def commit(hub, base, tmp_path):
    folder = publish(base, tmp_path / "published")
    (folder / "lorakit.json").write_text('{"schema": "lorakit/base/1", "generate": {"steps": 3, "guidance": 2.5}}')
    return hub.add("someone/tiny", folder, "main", "v1")


@pytest.fixture
def drawn(lorakit):
    """Draw one picture; give its values and the report."""

    def run(*arguments):
        done = lorakit("generate", *arguments, "--seed", 3, "--out", "x.png", "--overwrite", "--json", "a red heart")
        assert (done.exit_code, done.stderr) == (0, "")
        with Image.open("x.png") as picture:
            return picture.tobytes(), json.loads(done.stdout), json.loads(picture.text["lorakit"])

    return run


@pytest.mark.parametrize("asked", ["someone/tiny", "hf:someone/tiny@v1"])
def test_a_base_on_the_hub_draws_what_its_folder_draws(drawn, hub, base, commit, adapters, tmp_path, asked):
    ink = specs(adapters, INK)
    values, report, inside = drawn("--base", asked, *ink)
    expected, local, _ = drawn("--base", tmp_path / "published", *ink)
    assert values == expected
    assert hub.asked_for() == {name for name in files(base) if name != "README.md"} | {"lorakit.json"}
    assert report["base"] == inside["recipe"]["base"]["remote"] == f"someone/tiny@{commit}"
    # What the repository says about pictures holds, though it was not read for the plan.
    assert (report["steps"], report["guidance"]) == (local["steps"], local["guidance"]) == (3, 2.5)
    assert str(tmp_path) not in json.dumps(inside)


def test_once_downloaded_it_draws_without_a_network(drawn, hub, commit, adapters, offline):
    ink = specs(adapters, INK)
    values, *_ = drawn("--base", "someone/tiny", *ink)
    hub.requests.clear()
    offline()
    assert drawn("--base", "someone/tiny", *ink)[0] == values
    assert hub.requests == []


def test_nothing_is_downloaded_for_what_cannot_be_drawn(lorakit, hub, commit, adapters, tmp_path, here, offline):
    (here / "x.png").touch()
    ink = specs(adapters, INK)
    done = lorakit("generate", "--base", "someone/tiny", *ink, "--out", "x.png", "a red heart")
    assert "x.png" in done.stderr
    assert not list((tmp_path / "hub-cache").rglob("*.safetensors"))
    offline()
    done = lorakit("generate", "--base", "someone/tiny", *ink, "a red heart")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "error: someone/tiny is not wholly in the cache, lorakit.json is missing, and "
        "HF_HUB_OFFLINE forbids the network; unset it once, or give the path of a folder\n"
    )


def test_the_variant_asked_for_is_downloaded_alone(drawn, hub, adapters, tmp_path):
    folder = tmp_path / "both"
    pipeline = build_pipeline()
    pipeline.save_pretrained(folder)
    # Other values, so that it shows which were taken.
    build_pipeline(seed=1).to(torch.float16).save_pretrained(folder, variant="fp16")
    build_pipeline(seed=1).to(torch.float16).save_pretrained(tmp_path / "alone")
    hub.add("someone/both", folder)
    more = ("--steps", 2, *specs(adapters, INK))
    values, *_ = drawn("--base", "someone/both", "--variant", "fp16", *more)
    assert values == drawn("--base", tmp_path / "alone", *more)[0]
    weights = {name for name in hub.asked_for() if name.endswith(".safetensors")}
    assert len(weights) == 3
    assert all(".fp16." in name for name in weights)


def test_a_base_on_the_hub_is_saved_with_its_adapters(lorakit, hub, base, commit, adapters, here, tmp_path):
    ink = specs(adapters, INK)
    for asked, out in (("someone/tiny", "hub"), (tmp_path / "published", "local")):
        done = lorakit("save", "--base", asked, *ink, "--out", here / out)
        assert (done.exit_code, done.stderr) == (0, "")
    ours, theirs = files(here / "hub"), files(here / "local")
    for texts in (ours, theirs):
        recipe = json.loads(texts.pop("lorakit.json"))
        assert recipe["base"]["files"].keys() == {name for name in files(base) if name.endswith(".safetensors")}
        del texts["README.md"]
    assert ours == theirs
    hub.requests.clear()
    assert lorakit("save", "--base", "someone/tiny", *ink, "--adapters-only", "--out", here / "ref").exit_code == 0
    assert hub.asked_for() <= {"lorakit.json"}
