"""What a recipe was made with is found again by its hashes, wherever it is and whatever it is called by then."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import parse_block_scales
from lorakit_cli.errors import BaseModelError, CorruptFileError, OptionError, RecipeError
from lorakit_cli.service.fuse_request import prepare_fuse
from lorakit_cli.service.recalling import open_recipe, recall
from lorakit_cli.sources.library import open_library

UNET = Path("unet/diffusion_pytorch_model.safetensors")
SCALES = '{"ink": {"unet": {"down": 0.5, "up": {"block_0": [0.25, 1.0, 2.0]}}}}'


@pytest.fixture
def fused(lorakit, base, adapters, here):
    """An output beside copies of its base and adapters: out, models/base, loras/ink and loras/wash."""
    shutil.copytree(base, here / "models" / "base")
    shutil.copytree(adapters, here / "loras")
    result = lorakit(
        "fuse", "--base", "models/base", "--lora", "loras/ink.safetensors:0.7", "--lora",
        "soft=loras/wash.safetensors:-0.25", "--scale", 0.5, "--block-scales", SCALES, "--components", "unet",
        "--out", "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return here / "out"


def again(path, **options):
    recipe, beside = open_recipe(path)
    given = [AdapterSpec.parse(text) for text in options.pop("given", ())]
    return recall(recipe, beside, open_library(), adapters=given, **options)


def refusal(path, kind=RecipeError, **options):
    with pytest.raises(kind) as caught:
        again(path, **options)
    return str(caught.value)


def sha(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def xxh3(fused, file=UNET):
    return json.loads((fused / "lorakit.json").read_text())["base"]["files"][file.as_posix()]["xxh3"][:12]


def damage(path):
    """Change one bit of the last value."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def test_it_asks_for_the_same(fused, here):
    recalled = again(fused)
    assert recalled.adapters == (here / "loras/ink.safetensors", here / "loras/wash.safetensors")
    assert recalled.base.path == here / "models/base"
    request = recalled.request(here / "new", overwrite=True)
    assert [(spec.name, spec.weight) for spec in request.adapters] == [("ink", 0.7), ("soft", -0.25)]
    assert (request.scale, request.components, request.dtype, request.variant) == (0.5, ("unet",), None, None)
    assert request.block_scales == parse_block_scales([SCALES])
    assert (request.out, request.overwrite, request.dry_run) == (here / "new", True, False)


def test_the_plan_is_the_same(fused):
    prepared = prepare_fuse(again(fused).request())
    weights = {"ink": 0.7 * 0.5, "soft": -0.25 * 0.5}
    acting = {term.adapter: term.strength / term.block_scale for _, terms in prepared.plan.changes() for term in terms}
    assert acting == pytest.approx(weights)
    assert {target.component for target, _ in prepared.plan.changes()} == {"unet"}


def test_from_another_folder(fused, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert again(fused / "lorakit.json").base.path == here / "models/base"
    assert again(fused).adapters == (here / "loras/ink.safetensors", here / "loras/wash.safetensors")


def test_moved_as_a_whole(fused, here, tmp_path):
    shutil.move(here, tmp_path / "there")
    here.mkdir()
    recalled = again(tmp_path / "there" / "out")
    assert recalled.base.path == tmp_path / "there" / "models/base"
    assert recalled.adapters[0] == tmp_path / "there" / "loras/ink.safetensors"


def test_base_and_output_moved_into_one_folder(fused, here, tmp_path):
    together = tmp_path / "together"
    together.mkdir()
    shutil.move(here / "models/base", together)
    shutil.move(fused, together)
    assert again(together / "out").base.path == together / "base"


def test_renamed_files_are_found_by_hash(fused, here):
    (here / "loras/ink.safetensors").rename(here / "loras/forgotten.safetensors")
    (fused / "adapters").mkdir()
    (here / "loras/wash.safetensors").rename(fused / "adapters" / "kept.safetensors")
    (here / "lorakit.toml").write_text('adapters_dir = "loras"')
    recalled = again(fused)
    assert recalled.adapters == (here / "loras/forgotten.safetensors", fused / "adapters" / "kept.safetensors")


@pytest.mark.parametrize("folder", ["out", "out/adapters", "."])
def test_a_file_of_the_name_is_found_nearby(fused, here, folder):
    Path(folder).mkdir(exist_ok=True)
    shutil.move(here / "loras/ink.safetensors", folder)
    assert again(fused).adapters[0] == here / folder / "ink.safetensors"


def test_the_right_file_of_several_of_one_name(fused, here, adapters):
    shutil.copy(here / "loras/ink.safetensors", fused)
    damage(here / "loras/ink.safetensors")
    assert again(fused).adapters[0] == fused / "ink.safetensors"


def test_what_is_given_is_taken(fused, here, tmp_path, base):
    shutil.move(here / "loras/ink.safetensors", tmp_path / "x.safetensors")
    shutil.rmtree(here / "models")
    recalled = again(fused, base=str(base), given=[f"ink={tmp_path}/x.safetensors"])
    assert (recalled.base.path, recalled.adapters[0]) == (base, tmp_path / "x.safetensors")


def test_an_adapter_that_is_gone(fused, here, adapters):
    (here / "loras/ink.safetensors").unlink()
    assert refusal(fused) == (
        f"adapter ink (ink.safetensors, sha256 {sha(adapters / 'ink.safetensors')}) is not here: looked for it as "
        f"loras/ink.safetensors, by its file's name in {fused}, in {fused}/adapters and in this folder, and in the "
        "library; --lora ink=PATH says where it is"
    )


def test_an_adapter_that_has_changed(fused, here, adapters):
    ink = here / "loras/ink.safetensors"
    damage(ink)
    assert refusal(fused) == (
        f"adapter ink: {ink} is not the file it was: sha256 {sha(ink)} instead of "
        f"{sha(adapters / 'ink.safetensors')}; --lora ink=PATH says where the one it was is"
    )


def test_another_adapter_is_not_taken_even_if_the_right_one_is_there(fused, here):
    wash = here / "loras/wash.safetensors"
    assert refusal(fused, given=["ink=loras/wash.safetensors"]) == (
        f"adapter ink: loras/wash.safetensors is not the file it was: sha256 {sha(wash)} instead of "
        f"{sha(here / 'loras/ink.safetensors')}; --lora ink=PATH says where the one it was is"
    )


def test_specs_only_say_where(fused):
    assert refusal(fused, OptionError, given=["ink=loras/ink.safetensors:0.5"]) == (
        "--lora ink=loras/ink.safetensors:0.5: the weight is in the recipe; write --lora ink=loras/ink.safetensors"
    )
    assert refusal(fused, OptionError, given=["inc=loras/ink.safetensors"]) == (
        "--lora inc=loras/ink.safetensors: the recipe has no adapter 'inc'; did you mean ink? It has ink, soft"
    )


def test_a_base_that_is_gone(fused, here):
    digest = xxh3(fused)
    shutil.rmtree(here / "models")
    assert refusal(fused) == (
        f"the base models/base ({UNET.as_posix()} of xxh3 {digest}) is not here: looked for it as models/base, also in "
        f"{fused} and in {here}; --base PATH says where it is"
    )


def test_a_base_of_which_one_bit_has_changed(fused, here):
    damage(here / "models/base" / UNET)
    assert refusal(fused) == (
        f"{here}/models/base is not the base it was: {UNET.as_posix()} differs from what the recipe has, xxh3 "
        f"{xxh3(fused)}; --base PATH says where the one it was is"
    )


def test_another_base_is_not_taken_even_if_the_right_one_is_there(fused):
    from lorakit_cli.demo import BASE

    assert refusal(fused, base="demo").startswith(f"{BASE} is not the base it was: ")
    assert "loras is not a diffusers pipeline" in refusal(fused, BaseModelError, base="loras")
    assert refusal(fused, BaseModelError, base="nowhere/at/all").startswith("there is no base 'nowhere/at/all'")


def test_how_a_base_differs_can_be_asked_for(fused, here):
    encoder = Path("text_encoder/model.safetensors")
    damage(here / "models/base" / UNET)
    damage(here / "models/base" / encoder)
    recalled = again(fused, changed_base=True)
    assert recalled.base.path == here / "models/base"
    assert sorted(recalled.base_differs) == [encoder.as_posix(), UNET.as_posix()]


def test_a_base_that_was_cut_off(fused, here):
    file = here / "models/base" / UNET
    file.write_bytes(file.read_bytes()[:-1])
    text = refusal(fused, changed_base=True)
    assert text.startswith("the base models/base ")
    assert f"{file} is truncated" in text


def test_the_embedded_base_is_found_by_its_name(lorakit, here):
    assert lorakit("fuse", "--lora", "toy", "--out", "out").exit_code == 0
    from lorakit_cli.demo import BASE

    recalled = again(Path("out"))
    assert (recalled.base.path, recalled.adapters[0].name) == (BASE, "toy.safetensors")


def test_what_has_no_recipe(base, adapters, fused, here):
    assert (
        refusal(base)
        == f"{base} has no lorakit.json; only what `lorakit fuse` or `lorakit save` wrote says how it was made"
    )
    ink = adapters / "ink.safetensors"
    assert (
        refusal(ink) == f"{ink} holds no recipe; only what `lorakit fuse` or `lorakit save` wrote says how it was made"
    )
    assert refusal(Path("ou")) == "there is no ou; did you mean out?"
    Path("x.safetensors").write_bytes(b"<html>")
    refusal(Path("x.safetensors"), CorruptFileError)
    (fused / "lorakit.json").write_text('{"schema": "lorakit/recipe/9"}')
    assert refusal(fused) == (
        f"{fused}/lorakit.json is of the kind 'lorakit/recipe/9', which this lorakit does not know"
    )


def test_a_base_that_the_hubs_client_has_downloaded(fused, here, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    commit = "5" * 40
    entries = json.loads((fused / "lorakit.json").read_text())
    entries["base"] |= {"source": "someone/tiny", "remote": f"someone/tiny@{commit}"}
    (fused / "lorakit.json").write_text(json.dumps(entries))
    shutil.move(here / "models/base", tmp_path / "base")
    assert refusal(fused) == (
        f"the base someone/tiny ({UNET.as_posix()} of xxh3 {xxh3(fused)}) is not here: looked for it as someone/tiny, "
        f"also in {fused} and in {here}; it is on the Hub as someone/tiny@{commit}, of which nothing is downloaded; "
        "--base PATH says where it is"
    )
    snapshot = tmp_path / "cache" / "models--someone--tiny" / "snapshots" / commit
    shutil.copytree(tmp_path / "base", snapshot)
    assert again(fused).base.path == snapshot
    assert again(fused, base=f"someone/tiny@{commit}").base.path == snapshot
    (snapshot / UNET).unlink()
    assert refusal(fused).startswith("the base someone/tiny ")
