"""`lorakit grid` run for real on tiny pipelines: every cell is held against what `generate` draws."""

import json
import shlex
import shutil
from pathlib import Path

import numpy
import pytest
from PIL import Image

from tests.commands.conftest import names
from tests.tiny import build_pipeline


@pytest.fixture
def grid(lorakit, base):
    def run(*arguments, prompt=("a red heart",), out="out"):
        return lorakit("grid", "--base", base, "--steps", 2, "--out", out, *arguments, *prompt)

    return run


@pytest.fixture
def ink(adapters):
    return f"{adapters}/ink.safetensors"


@pytest.fixture
def wash(adapters):
    return f"{adapters}/wash.safetensors"


def index(folder="out"):
    return json.loads((Path(folder) / "index.json").read_text(encoding="utf-8"))


def assert_each_cell_is_what_its_command_draws(lorakit, folder="out"):
    for cell in index(folder)["cells"]:
        words = shlex.split(cell["command"])
        assert words[:2] == ["lorakit", "generate"]
        result = lorakit(*words[1:2], "--out", "alone.png", "--overwrite", *words[2:])
        assert result.exit_code == 0, result.stderr
        assert Path("alone.png").read_bytes() == (Path(folder) / cell["file"]).read_bytes(), cell["file"]


def test_weights_and_seeds_are_what_generate_draws(grid, lorakit, ink):
    result = grid("-l", ink, "--axis", "ink=0:1:0.5", "--axis", "seed=3,1")
    assert (result.exit_code, result.stdout) == (0, "out/sheet.png\n")
    assert result.stderr == "drew 6 pictures\n"
    assert names(Path("out")) == ["cells", "index.json", "sheet.png"]
    assert [cell["values"] for cell in index()["cells"]] == [
        {"ink": weight, "seed": seed} for seed in ("3", "1") for weight in ("0", "0.5", "1")
    ]
    assert len({(Path("out") / cell["file"]).read_bytes() for cell in index()["cells"]}) == 6
    assert_each_cell_is_what_its_command_draws(lorakit)


def test_prompts_negatives_settings_blocks_and_scale(grid, lorakit, ink):
    Path("prompts.txt").write_text("a red heart\n\n-a “blue” star <lora:w>\n".replace("<lora:w>", f"<lora:{ink}:0.5>"))
    prompts = grid("--axis", "prompt=@prompts.txt", "--axis", "negative=|red", "--axis", "steps=1,2", prompt=())
    assert prompts.exit_code == 0, prompts.stderr
    assert len(index()["cells"]) == 8
    assert_each_cell_is_what_its_command_draws(lorakit)
    blocks = ("--block-scales", 'ink={"unet": {"down": 0.5}}', "--axis", "block:ink.up=0,1", "--axis", "scale=0.5,2")
    assert grid("-l", f"{ink}:0.5", *blocks, "--guidance", 2, out="blocks").exit_code == 0
    assert [cell["block_scales"] for cell in index("blocks")["cells"]][:2] == [
        {"ink": {"unet": {"down": 0.5, "up": scale}}} for scale in (0, 1)
    ]
    assert_each_cell_is_what_its_command_draws(lorakit, "blocks")


def test_adapters_by_pattern_and_their_weight(grid, lorakit, ink, wash):
    for name, source in (("epoch-2", ink), ("epoch-10", wash)):
        shutil.copy(source, f"{name}.safetensors")
    assert grid("--axis", "lora=epoch-*.safetensors", "--axis", "weight=0.5,1").exit_code == 0
    assert index()["axes"][0]["values"] == ["epoch-2", "epoch-10"]
    assert [cell["adapters"] for cell in index()["cells"]] == [
        {"epoch-2": 0.5}, {"epoch-10": 0.5}, {"epoch-2": 1}, {"epoch-10": 1},
    ]  # fmt: skip
    assert_each_cell_is_what_its_command_draws(lorakit)


def test_how_much_of_a_picture_changes_and_what_is_drawn_anew(grid, lorakit):
    Image.new("RGB", (24, 16), "red").save("start.png")
    build_pipeline(seed=9).vae.save_pretrained("vae")
    axes = ("--init-image", "start.png", "--vae", "vae", "--axis", "strength=0.5,1")
    assert grid(*axes).stderr == "drew 2 pictures\n"
    assert_each_cell_is_what_its_command_draws(lorakit)
    assert grid(*axes).stderr == "drew 0 pictures, kept 2 that were there\n"
    Image.new("RGB", (24, 16), "blue").save("start.png")
    assert grid(*axes).stderr == "drew 2 pictures\n"
    build_pipeline(seed=10).vae.save_pretrained("vae")
    assert grid(*axes).stderr == "drew 2 pictures\n"


def test_ablation_leaves_adapters_out_and_says_how_far(grid, lorakit, ink, wash):
    adapters = ("-l", f"{ink}:0.5", "-l", wash, "-l", f"third={ink}:-0.2")
    result = grid(*adapters, "--ablate", "--json")
    report = json.loads(result.stdout)
    texts = ["base", "ink", "wash", "third", "all", "without ink", "without wash", "without third"]
    assert report["axes"] == {"ablation": texts}
    pixels = {
        cell["values"]["ablation"]: numpy.asarray(Image.open(Path("out") / cell["file"])) / 255.0
        for cell in report["cells"]
    }
    for cell in report["cells"]:
        own = pixels[cell["values"]["ablation"]]
        for end in ("base", "all"):
            expected = ((own - pixels[end]) ** 2).mean() ** 0.5
            assert cell["distances"][end] == pytest.approx(expected, abs=1e-6)
    assert report["cells"][0]["distances"] == {"base": 0, "all": pytest.approx(report["cells"][4]["distances"]["base"])}
    assert report["cells"][0]["distances"]["all"] > 0
    assert_each_cell_is_what_its_command_draws(lorakit)


@pytest.mark.parametrize(("count", "texts"), [(1, ["base", "ink"]), (2, ["base", "ink", "wash", "all"])])
def test_ablation_draws_nothing_twice(grid, ink, wash, count, texts):
    specs = [part for spec in (ink, wash)[:count] for part in ("-l", spec)]
    report = json.loads(grid(*specs, "--ablate", "--axis", "seed=1-2", "--dry-run", "--json").stdout)
    assert report["axes"] == {"ablation": texts, "seed": ["1", "2"]}
    assert (len(report["cells"]), report["weight_states"]) == (2 * len(texts), len(texts))


def test_json_is_one_object_with_a_fixed_key_set(grid, ink):
    report = json.loads(grid("-l", ink, "--axis", "ink=0,1", "--json", "--html").stdout)
    assert report.keys() == {
        "schema", "out", "sheet", "index", "page", "axes", "cells", "drawn", "kept", "weight_states", "seconds",
        "warnings",
    }  # fmt: skip
    assert report["schema"] == "lorakit/grid/1"
    assert report["cells"][0].keys() == {"file", "values", "seconds", "kept", "distances"}
    assert (report["drawn"], report["kept"], report["weight_states"]) == (2, 0, 2)
    assert Path(report["page"]).is_file()
    assert index().keys() == {"schema", "axes", "base", "cells", "pictures", "seconds"}


def test_dry_run_tells_cells_and_states_and_writes_nothing(grid, ink, base, here):
    result = grid("-l", ink, "--axis", "ink=0,1", "--axis", "seed=1-2", "--dry-run")
    assert result.stdout.splitlines() == [
        f"base {base}",
        "axis ink: 0, 1",
        "axis seed: 1, 2",
        "4 cells; 2 states of the weights",
        "  cells/ink=0_seed=1.png",
        "  cells/ink=1_seed=1.png",
        "  cells/ink=0_seed=2.png",
        "  cells/ink=1_seed=2.png",
        "would write out",
    ]
    assert names(here) == []
    report = json.loads(grid("-l", ink, "--axis", "ink=0,1", "--dry-run", "--json").stdout)
    assert report.keys() == {"schema", "out", "base", "axes", "cells", "weight_states", "kept", "warnings"}
    assert report["cells"][0].keys() == {"file", "values", "state", "kept", "command"}


def test_the_sheet_has_the_pictures_of_the_cells(grid, ink):
    assert grid("-l", ink, "--axis", "ink=0,1", "--axis", "width=16,24", "--cell", 48).exit_code == 0
    sheet = numpy.asarray(Image.open("out/sheet.png").convert("RGB"))
    for cell in index()["cells"]:
        # 24 pixels are the longest side, so that 48 are twice as many, each pixel a square.
        shown = numpy.asarray(Image.open(Path("out") / cell["file"])).repeat(2, 0).repeat(2, 1)
        height, width = shown.shape[:2]
        places = numpy.argwhere((sheet[: 1 - height, : 1 - width] == shown[0, 0]).all(-1))
        assert any((sheet[y : y + height, x : x + width] == shown).all() for y, x in places)


def test_attached_adapters_change_from_cell_to_cell(grid, lorakit, ink, wash):
    lora = ("-l", ink, "-l", wash, "--axis", "ink=1,0,0.5", "--axis", "wash=0,1", "--attach")
    assert grid(*lora).exit_code == 0
    assert len({(Path("out") / cell["file"]).read_bytes() for cell in index()["cells"]}) == 6
    assert_each_cell_is_what_its_command_draws(lorakit)


def test_a_variant_triggers_and_brackets_as_in_generate(lorakit, here, adapters):
    build_pipeline().save_pretrained(here / "both")
    build_pipeline(seed=1).save_pretrained(here / "both", variant="fp16")
    ink = adapters / "ink.safetensors"
    (here / "lorakit.toml").write_text(f'[adapters.ink]\nsource = "{ink.as_posix()}"\ntriggers = ["inky"]\n')
    shared = ("-b", "both", "--variant", "fp16", "--add-triggers", "--literal-prompt", "--steps", 2)
    result = lorakit("grid", *shared, "--axis", "ink=1", "-o", "sheet", "a (red:1.4) heart")
    assert result.exit_code == 0, result.stderr
    (cell,) = json.loads((here / "sheet" / "index.json").read_text())["cells"]
    drawn = (here / "sheet" / cell["file"]).read_bytes()
    assert cell["prompt"] == "inky, a (red:1.4) heart"
    single = lorakit("generate", *shared, "-l", "ink:1", "--seed", 0, "-o", "one.png", "a (red:1.4) heart")
    assert single.exit_code == 0, single.stderr
    assert (here / "one.png").read_bytes() == drawn
    again = lorakit(*shlex.split(cell["command"])[1:], "-o", "again.png")
    assert again.exit_code == 0, again.stderr
    assert (here / "again.png").read_bytes() == drawn
    # Other weights are another picture, although the folder is the same.
    plain = [text for text in shared if text not in ("--variant", "fp16")]
    assert lorakit("grid", *plain, "--axis", "ink=1", "-o", "sheet", "a (red:1.4) heart").exit_code == 0
    assert (here / "sheet" / cell["file"]).read_bytes() != drawn
