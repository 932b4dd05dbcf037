"""Adapters for few steps in `generate` and `grid`: what is suggested, what --auto-scheduler takes, and what wins."""

import json
import shutil

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conversions import BUILDERS
from tests.merging import adapter, as_diffusers

TRAILING = ["--scheduler-option", "timestep_spacing=trailing"]


@pytest.fixture
def named(adapters, tmp_path):
    """Copy an adapter to a file of another name, which is all that this is about."""

    def copy(stem):
        return shutil.copy(adapters / "ink.safetensors", tmp_path / f"{stem}.safetensors")

    return copy


@pytest.fixture
def made(lorakit, base):
    """Make one picture and give its pixels and what was said; nothing but what is given is asked for."""

    def run(out, *arguments, own=base):
        result = lorakit("generate", "--base", own, "--seed", 1, "--out", out, *arguments, "a red heart")
        assert result.exit_code == 0, result.stderr
        return Image.open(out).tobytes(), result.stderr.splitlines()

    return run


@pytest.mark.parametrize(
    ("stem", "kind", "options"),
    [
        ("lcm", "LCM", ["--scheduler", "lcm", "--steps", "4", "--guidance", "1.5"]),
        ("sdxl_lightning_2step_lora", "Lightning",
         ["--scheduler", "euler", *TRAILING, "--steps", "2", "--guidance", "0"]),
        ("TCD-SD15-LoRA", "TCD", ["--scheduler", "tcd", "--steps", "4", "--guidance", "0"]),
        ("dmd2_sdxl_4step_lora", "DMD2",
         ["--scheduler", "lcm", "--scheduler-option", "original_inference_steps=4", "--steps", "4", "--guidance", "0"]),
    ],
)  # fmt: skip
def test_what_is_suggested_is_what_auto_takes(made, named, stem, kind, options):
    path = named(stem)
    lora = ["--lora", f"it={path}"]
    told = f"it is a few-step adapter ({kind}, by its file's name)"
    usual, said = made("usual.png", *lora, "--steps", 3)
    assert said == [f"{told}: {' '.join(options)} suits it; --auto-scheduler applies it", "seed 1"]
    explicit, said = made("explicit.png", *lora, *options)
    assert said == ["seed 1"]
    auto, said = made("auto.png", *lora, "--auto-scheduler")
    assert said == [f"{told}: --auto-scheduler takes {' '.join(options)}", "seed 1"]
    assert auto == explicit != usual


def test_the_picture_says_it_and_is_made_again(lorakit, base, made, named, here):
    lora = ["--lora", f"it={named('lcm-lora')}"]
    auto, _ = made("auto.png", *lora, "--auto-scheduler")
    assert lorakit("generate", "--from", "auto.png", "--base", base, *lora, "--out", "again.png").exit_code == 0
    assert Image.open("again.png").tobytes() == auto
    record = json.loads(Image.open("auto.png").info["lorakit"])
    assert (record["scheduler"], record["steps"], record["guidance"]) == ("LCMScheduler", 4, 1.5)
    assert record["settings"]["scheduler"] == "lcm"
    assert (here / "again.png").read_bytes() == (here / "auto.png").read_bytes()


def test_auto_beside_a_picture_wins_over_what_it_had(lorakit, base, made, named):
    lora = ["--lora", f"it={named('lcm-lora')}"]
    made("usual.png", *lora, "--steps", 3, "--scheduler", "euler", *TRAILING)
    wanted, _ = made("wanted.png", *lora, "--scheduler", "lcm", "--steps", 4, "--guidance", 1.5)
    result = lorakit("generate", "--from", "usual.png", "--base", base, *lora, "--auto-scheduler", "--out", "auto.png")
    assert result.exit_code == 0
    assert Image.open("auto.png").tobytes() == wanted


def test_what_is_given_wins(made, named):
    lora = ["--lora", f"it={named('sdxl_lightning_4step_lora')}", "--auto-scheduler"]
    auto, said = made("auto.png", *lora, "--steps", 2, "--guidance", 3)
    assert said[0].endswith("takes --scheduler euler --scheduler-option timestep_spacing=trailing")
    options = ["--scheduler", "euler", *TRAILING, "--steps", 2, "--guidance", 3]
    assert auto == made("explicit.png", *lora[:2], *options)[0]
    # The same scheduler by its other name keeps what belongs to it; another one does not get it.
    assert auto == made("class.png", *lora, "--scheduler", "EulerDiscrete", "--steps", 2, "--guidance", 3)[0]
    other, said = made("other.png", *lora, "--scheduler", "ddim", "--steps", 2, "--guidance", 3)
    assert said[0].endswith("--auto-scheduler changes nothing that is given")
    assert other == made("ddim.png", *lora[:2], "--scheduler", "ddim", "--steps", 2, "--guidance", 3)[0]


def test_ordinary_names_and_no_weight(lorakit, made, named):
    for stem in ("flash_photography", "hyperrealism", "turbografx", "lightning_storm"):
        usual, said = made(f"{stem}.png", "--lora", named(stem), "--steps", 2)
        assert said == ["seed 1"]
    auto, said = made("auto.png", "--lora", named("turbografx"), "--steps", 2, "--auto-scheduler")
    assert said == ["no adapter here is known to be for few steps; --auto-scheduler changes nothing", "seed 1"]
    assert auto == usual
    assert made("off.png", "--lora", f"{named('lcm')}:0", "--steps", 2)[1] == ["seed 1"]


def test_two_that_contradict_each_other(lorakit, base, made, named):
    both = ["--lora", f"a={named('lcm')}:0.5", "--lora", f"b={named('tcd_sdxl')}:0.5"]
    needs = (
        "adapters for few steps that need different settings: a is a few-step adapter (LCM, by its file's name): "
        "--scheduler lcm --steps 4 --guidance 1.5; b is a few-step adapter (TCD, by its file's name): "
        "--scheduler tcd --steps 4 --guidance 0; leave one out"
    )
    assert made("x.png", *both, "--steps", 2)[1] == [f"warning: {needs}", "seed 1"]
    result = lorakit("generate", "--base", base, *both, "--auto-scheduler", "--dry-run", "x")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {needs}, or choose with --scheduler, --steps, --guidance\n"
    chosen = [*both, "--auto-scheduler", "--scheduler", "lcm", "--guidance", 1]
    assert lorakit("generate", "--base", base, *chosen, "--dry-run", "x").exit_code == 0
    # One without weight, and two that agree, are no contradiction.
    off = ["--lora", f"a={named('lcm')}", "--lora", f"b={named('tcd_sdxl')}:0", "--lora", f"c={named('my-lcm-2')}"]
    report = json.loads(
        lorakit("generate", "--base", base, *off, "--auto-scheduler", "--dry-run", "--json", "x").stdout
    )
    assert (report["scheduler"], report["steps"], report["guidance"]) == ("lcm", 4, 1.5)


@pytest.mark.parametrize(
    ("key", "where"), [("modelspec.title", "its title"), ("ss_output_name", "its training"), (None, "its folder")]
)
def test_it_is_read_in_the_file_and_shown_before(lorakit, base, adapters, tmp_path, key, where):
    folder = tmp_path / ("x" if key else "Hyper-SD15-8steps")
    folder.mkdir()
    path = folder / "pytorch_lora_weights.safetensors"
    save_file(load_file(adapters / "ink.safetensors"), path, {key: "Hyper SD15 8steps"} if key else None)
    result = lorakit("generate", "--base", base, "--lora", path, "--auto-scheduler", "--dry-run", "x")
    assert f"is a few-step adapter (Hyper-SD, by {where})" in result.stderr
    settings = (
        "--width 16 --height 16 --scheduler ddim --scheduler-option timestep_spacing=trailing --steps 8 --guidance 0"
    )
    assert f"settings {settings}" in result.stdout.splitlines()


def test_a_base_for_few_steps(lorakit, base, made, tmp_path):
    own = shutil.copytree(base, tmp_path / "sd-turbo")
    options = "--scheduler euler_a --scheduler-option timestep_spacing=trailing --steps 4 --guidance 0"
    said = made("x.png", "--steps", 30, own=own)[1]
    assert said[0] == (
        f"the base is a few-step base (Turbo, by its name): {options} suits it; --auto-scheduler applies it"
    )
    auto, _ = made("auto.png", "--auto-scheduler", own=own)
    assert auto == made("explicit.png", *options.split(), own=own)[0]


def test_a_weight_that_is_far_above_its_own_is_told(lorakit, here):
    pipeline = BUILDERS["flux"]()
    pipeline.save_pretrained(here / "flux")
    save_file(as_diffusers(adapter(pipeline, 1, 2, only="to_q$")), here / "Hyper-FLUX.1-dev-8steps-lora.safetensors")
    told = "warning: it is a few-step adapter (Hyper-SD, by its file's name): it is made for a weight of 0.125, and has"
    for weight, scale, warned in ((1, 1, True), (0.5, 0.25, False), (0.125, 4, True), (0.125, 1, False)):
        lora = ["--lora", f"it=./Hyper-FLUX.1-dev-8steps-lora.safetensors:{weight}", "--scale", scale]
        for auto in ([], ["--auto-scheduler"]):
            result = lorakit("generate", "--base", "flux", *lora, *auto, "--dry-run", "x")
            assert result.exit_code == 0
            assert (f"{told} more here" in result.stderr.splitlines()) == warned


def test_a_grid_settles_each_cell_by_its_own_weights(lorakit, base, named, here):
    axis = ["--lora", f"it={named('lcm')}", "--axis", "it=0,1", "--seed", 1, "--out", "sheet"]
    result = lorakit("grid", "--base", base, *axis, "--steps", 2, "--dry-run", "a red heart")
    assert "it is a few-step adapter (LCM, by its file's name)" in result.stderr
    result = lorakit("grid", "--base", base, *axis, "--auto-scheduler", "--dry-run", "--json", "a red heart")
    without, with_it = (cell["command"] for cell in json.loads(result.stdout)["cells"])
    assert "--scheduler" not in without
    assert "--steps 4 --guidance 1.5 --scheduler lcm" in with_it


def test_a_grid_goes_by_no_weight_that_none_of_its_cells_has(lorakit, base, named):
    """An adapter whose weight is 0 contradicts no other, whatever its weight would be elsewhere."""
    both = ["--lora", f"a={named('lcm')}", "--lora", f"b={named('tcd_sdxl')}:0", "--axis", "a=0.5,1", "--out", "sheet"]
    for auto, said in (([], "suits it; --auto-scheduler applies it"), (["--auto-scheduler"], "--auto-scheduler takes")):
        result = lorakit("grid", "--base", base, *both, *auto, "--dry-run", "a red heart")
        assert result.exit_code == 0, result.stderr
        (line,) = result.stderr.splitlines()
        assert line.startswith("a is a few-step adapter (LCM")
        assert said in line


def test_inspect_and_the_list_name_the_kind(lorakit, named, here):
    fast, style = named("sdxl_lightning_4step_lora"), named("lightning_storm")
    assert "  few steps  Lightning" in lorakit("inspect", fast).stdout.splitlines()
    assert "few steps" not in lorakit("inspect", style).stdout
    kinds = [json.loads(lorakit("inspect", "--json", path).stdout)["few_step"] for path in (fast, style)]
    assert kinds == ["Lightning", None]
    (here / "lorakit.toml").write_text(f'[adapters.fast]\nsource = "{fast}"\n[adapters.style]\nsource = "{style}"\n')
    rows = json.loads(lorakit("list-adapters", "--json").stdout)["adapters"]
    assert {row["name"]: row["few_step"] for row in rows if row["name"] in ("fast", "style")} == {
        "fast": "Lightning",
        "style": None,
    }
    assert "lora (few steps: Lightning)" in lorakit("list-adapters").stdout
