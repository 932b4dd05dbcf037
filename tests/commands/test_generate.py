"""`lorakit generate` run for real on tiny pipelines; the pictures it wrote are opened."""

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from lorakit_cli import __version__
from tests.commands.conftest import names
from tests.tiny import rewrite
from tests.whole_flux import build_whole_flux


def chunks(path):
    with Image.open(path) as picture:
        return json.loads(picture.text["lorakit"]), picture.text["parameters"], picture.size


def data_hash(path):
    """Hash what is behind the header, as kohya's tools and the web UIs do."""
    data = path.read_bytes()
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def test_a_picture_and_what_it_says(draw, adapters, here):
    result = draw("-l", f"{adapters}/ink.safetensors:0.5", "-l", f"w={adapters}/wash.safetensors", "--seed", 7)
    assert (result.exit_code, result.stdout) == (0, "a-red-heart_seed7.png\n")
    assert result.stderr == "seed 7\n"
    made_with, parameters, size = chunks("a-red-heart_seed7.png")
    assert size == (16, 16)
    hashes = {
        name: hashlib.sha256((adapters / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("ink", "wash")
    }
    kept = ("name", "source", "file", "sha256", "weight")
    assert [{key: adapter[key] for key in kept} for adapter in made_with["recipe"]["adapters"]] == [
        {"name": "ink", "source": "ink.safetensors", "file": "ink.safetensors", "sha256": hashes["ink"], "weight": 0.5},
        {
            "name": "w",
            "source": "wash.safetensors",
            "file": "wash.safetensors",
            "sha256": hashes["wash"],
            "weight": 1.0,
        },
    ]
    assert (made_with["prompt"], made_with["seed"], made_with["steps"], made_with["guidance"]) == (
        "a red heart",
        7,
        2,
        7.5,
    )
    assert (made_with["recipe"]["base"]["source"], made_with["device"], made_with["dtype"]) == (
        "tiny-base",
        "cpu",
        "float32",
    )
    short = {name: data_hash(adapters / f"{name}.safetensors")[:12] for name in ("ink", "wash")}
    assert parameters.splitlines() == [
        "a red heart <lora:ink:0.5> <lora:wash:1>",
        "Steps: 2, Sampler: DDIM, CFG scale: 7.5, Seed: 7, Size: 16x16, Model: tiny-base, "
        f'Lora hashes: "ink: {short["ink"]}, wash: {short["wash"]}", Version: lorakit {__version__}',
    ]
    assert names(here) == ["a-red-heart_seed7.png"]


def test_the_adapters_really_act(draw, adapters):
    specs = {"none": [], "half": [":0.5"], "full": [":1"], "zero": [":0"]}
    for name, weights in specs.items():
        options = [part for weight in weights for part in ("-l", f"{adapters}/ink.safetensors{weight}")]
        assert draw(*options, "--seed", 1, "--out", f"{name}.png").exit_code == 0
    pixels = {name: Image.open(f"{name}.png").tobytes() for name in specs}
    assert pixels["none"] == pixels["zero"]
    assert len(set(pixels.values())) == 3


def test_the_same_bytes_whatever_the_count(draw, adapters):
    lora = ("-l", f"{adapters}/ink.safetensors:0.5")
    assert draw(*lora, "--seed", 5, "--out", "one.png").exit_code == 0
    many = draw(*lora, "--seed", 4, "--count", 3, "--out", "many/")
    assert many.stdout.split() == [f"many/a-red-heart_seed{seed}.png" for seed in (4, 5, 6)]
    ranged = draw(*lora, "--seed", "5-6", "--out", "ranged.png")
    assert ranged.stdout.split() == ["ranged_seed5.png", "ranged_seed6.png"]
    one = Path("one.png").read_bytes()
    assert Path("many/a-red-heart_seed5.png").read_bytes() == one
    assert Path("ranged_seed5.png").read_bytes() == one
    assert Path("many/a-red-heart_seed4.png").read_bytes() != one


def test_a_random_seed_is_reported_and_repeats(draw):
    first = draw("--out", "first.png")
    seed = first.stderr.removeprefix("seed ").strip()
    assert seed.isdigit()
    draw("--seed", seed, "--out", "second.png")
    assert Path("first.png").read_bytes() == Path("second.png").read_bytes()


def test_json_is_one_object_with_a_fixed_key_set(draw, adapters):
    result = draw("--json", "-l", f"{adapters}/ink.safetensors:0.5", "--seed", 3, "--out", "x.png", "--scale", 2)
    report = json.loads(result.stdout)
    assert report.keys() == {
        "schema", "pictures", "prompt", "negative_prompt", "base", "adapters", "scale", "attached", "width", "height",
        "steps", "guidance", "scheduler", "device", "dtype", "seconds", "warnings", "notes",
    }  # fmt: skip
    assert report["schema"] == "lorakit/generate/1"
    assert report["pictures"] == [{"path": "x.png", "seed": 3, "prompt": "a red heart", "adapters": {"ink": 0.5}}]
    assert report["adapters"][0].keys() == {"name", "file", "sha256", "weight", "layers"}
    assert report["adapters"][0]["layers"] == 188
    assert report["scale"] == 2


def test_size_steps_guidance_negative_and_dtype(draw):
    options = ("--width", 24, "--height", 16, "--guidance", 1.5, "--negative", "blue", "--dtype", "bfloat16")
    assert draw(*options, "--seed", 1, "--out", "x.png").exit_code == 0
    made_with, parameters, size = chunks("x.png")
    assert size == (24, 16)
    assert (made_with["guidance"], made_with["negative_prompt"], made_with["dtype"]) == (1.5, "blue", "bfloat16")
    assert parameters.splitlines()[1] == "Negative prompt: blue"


def test_defaults_of_the_base(lorakit, base, tmp_path):
    import shutil

    own = shutil.copytree(base, tmp_path / "own")
    (own / "lorakit.json").write_text('{"generate": {"steps": 3, "guidance": 2.5, "width": 24}}')
    assert lorakit("generate", "--base", own, "--seed", 1, "--out", "x.png", "x").exit_code == 0
    made_with, _, size = chunks("x.png")
    assert (made_with["steps"], made_with["guidance"], size) == (3, 2.5, (24, 16))
    (own / "lorakit.json").write_text('{"generate": {"steps": "3"}}')
    result = lorakit("generate", "--base", own, "x")
    assert result.exit_code == 1
    assert "generate.steps is '3', not a whole number" in result.stderr


def test_attach_gives_the_same_picture_within_rounding(draw, adapters):
    lora = ("-l", f"{adapters}/ink.safetensors:0.5", "--seed", 1)
    assert draw(*lora, "--out", "fused.png").exit_code == 0
    assert draw(*lora, "--attach", "--out", "attached.png").exit_code == 0
    fused, attached = (Image.open(f"{name}.png").tobytes() for name in ("fused", "attached"))
    assert max(abs(a - b) for a, b in zip(fused, attached, strict=True)) <= 1
    assert chunks("attached.png")[0]["loading"]["attach"] is True


def test_block_scales_act(draw, adapters):
    lora = ("-l", f"{adapters}/ink.safetensors", "--seed", 1)
    off = 'ink={"unet": {"down": 0, "mid": 0, "up": 0}, "text_encoder": 0}'
    assert draw(*lora, "--block-scales", off, "--out", "off.png").exit_code == 0
    assert draw("--seed", 1, "--out", "plain.png").exit_code == 0
    assert Image.open("off.png").tobytes() == Image.open("plain.png").tobytes()
    (adapter,) = chunks("off.png")[0]["recipe"]["adapters"]
    assert adapter["block_scales"] == {"unet": {"down": 0, "mid": 0, "up": 0}, "text_encoder": 0}


def test_prompt_tags_and_the_list_in_use(draw, adapters):
    assert (
        draw("--seed", 1, "--out", "tag.png", prompt=f"a red heart <lora:{adapters}/ink.safetensors:0.5>").exit_code
        == 0
    )
    assert draw("--seed", 1, "--out", "option.png", "-l", f"{adapters}/ink.safetensors:0.5").exit_code == 0
    assert Path("tag.png").read_bytes() == Path("option.png").read_bytes()
    Path("lorakit.toml").write_text(f'use = ["ink:0.5"]\nadapters_dir = "{adapters}"')
    assert draw("--seed", 1, "--out", "use.png").exit_code == 0
    assert Image.open("use.png").tobytes() == Image.open("option.png").tobytes()


def test_dry_run_prints_the_plan_and_writes_nothing(draw, adapters, here):
    scales = 'ink={"unet": {"down": 0.5, "mid": 0, "up": {"block_1": [0.4, 0.8, 1.0]}}}'
    result = draw("-l", f"{adapters}/ink.safetensors:0.5", "--block-scales", scales, "--dry-run", "--seed", "1-2")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].endswith("tiny-base (another UNet)")
    assert lines[1:] == [
        f"adapter ink:0.5 (lora rank 4) {adapters}/ink.safetensors",
        "  matched 188 of 188 layers: text_encoder 8, unet 180; strength 0 to 0.5",
        "  block scales",
        "    unet down block_0-2  0.5  strength 0.25  63 layers",
        "    unet mid             0    strength 0     16 layers",
        "    unet up block_0      1    strength 0.5   46 layers",
        "    unet up block_1.0    0.4  strength 0.2   15 layers",
        "    unet up block_1.1    0.8  strength 0.4   15 layers",
        "    unet up block_1.2    1    strength 0.5   16 layers",
        "    unet up block_2      1    strength 0.5   9 layers",
        "    text_encoder         1    strength 0.5   8 layers",
        "changes 172 tensors: text_encoder 8, unet 164",
        "settings --width 16 --height 16 --steps 2",
        "seeds 1 2",
        "would write a-red-heart_seed1.png",
        "would write a-red-heart_seed2.png",
    ]
    report = json.loads(draw("-l", f"{adapters}/ink.safetensors:0.5", "--dry-run", "--json", "--seed", 1).stdout)
    assert report.keys() == {
        "schema", "plan", "plans", "prompt", "prompts", "width", "height", "steps", "guidance", "scheduler",
        "scheduler_options", "seeds", "out", "warnings", "notes",
    }  # fmt: skip
    assert report["plan"].keys() == {"base", "architecture", "adapters", "changed", "unmatched"}
    assert report["plan"]["adapters"][0].keys() == {
        "name", "path", "architecture", "algorithms", "ranks", "weight", "layers", "matched", "strengths",
        "block_scales", "remark",
    }  # fmt: skip
    scaled = draw("-l", f"{adapters}/ink.safetensors", "--block-scales", scales, "--dry-run", "--json", "--seed", 1)
    first = json.loads(scaled.stdout)["plan"]["adapters"][0]["block_scales"][0]
    assert first == {
        "component": "unet", "group": "down", "first": 0, "last": 2, "layer": None, "place": "unet.down.block_0-2",
        "scale": 0.5, "strength": 0.5, "layers": 63,
    }  # fmt: skip
    assert (report["schema"], report["plan"]["changed"]) == (
        "lorakit/generate-plan/1",
        {"text_encoder": 8, "unet": 180},
    )
    assert names(here) == []


def test_a_half_matching_adapter_warns_and_strict_refuses(draw, adapters, tmp_path):
    def rename(tensors):
        return {key.replace("up_blocks.1", "up_blocks.7"): value for key, value in tensors.items()}

    path = rewrite(adapters / "wash.safetensors", tmp_path / "half.safetensors", rename)
    result = draw("-l", path, "--seed", 1, "--out", "x.png")
    assert result.exit_code == 0
    assert (
        "warning: 36 layers or keys of half have no effect on this base, 96 have; first unet.up_blocks.7."
        in result.stderr
    )
    assert "no such module in the base" in result.stderr
    strict = draw("-l", path, "--strict", "--out", "y.png")
    assert (strict.exit_code, strict.stdout) == (1, "")
    assert strict.stderr.startswith("error: 36 layers or keys do not fit the base, first unet.up_blocks.7.")
    assert "nearest: unet.up_blocks." in strict.stderr
    assert not Path("y.png").exists()


def test_missing_triggers_are_said(draw, adapters):
    Path("lorakit.toml").write_text(f'[adapters.a]\nsource = "{adapters}/ink.safetensors"\ntriggers = ["ink style"]')
    assert "warning: the prompt has no trigger word of a: ink style" in draw("-l", "a", "--dry-run").stderr
    assert draw("-l", "a", "--dry-run", prompt="a heart, Ink Style").stderr == ""
    assert draw("-l", "a", "--dry-run", "-q").stderr == ""


def test_triggers_that_are_only_suggested_are_no_reason_to_warn(draw, adapters, here):
    metadata = {"ss_tag_frequency": json.dumps({"10_tok": {"tok": 20}}), "ss_dataset_dirs": "{}"}
    save_file(load_file(adapters / "ink.safetensors"), here / "a.safetensors", metadata)
    assert "trigger" not in draw("-l", "./a.safetensors", "--dry-run").stderr
    (here / "a.civitai.info").write_text(json.dumps({"trainedWords": ["civ word"]}))
    warning = "warning: the prompt has no trigger word of a: civ word"
    assert warning in draw("-l", "./a.safetensors", "--dry-run").stderr
    assert warning not in draw("-l", "./a.safetensors", "--dry-run", prompt="a Civ word").stderr


def test_names_that_torch_itself_uses_can_be_attached(draw, adapters):
    assert (
        draw("-l", f"pop={adapters}/ink.safetensors", "-l", f"float={adapters}/wash.safetensors", "--attach").exit_code
        == 0
    )


def test_a_folder_with_overwrite_replaces_the_picture(draw):
    for _ in range(2):
        assert draw("--out", "of/", "--overwrite", "--seed", 1).stdout == "of/a-red-heart_seed1.png\n"
    assert names(Path("of")) == ["a-red-heart_seed1.png"]


def test_overwrite(draw):
    Path("x.png").write_bytes(b"old")
    assert draw("--out", "x.png", "--overwrite", "--seed", 1).exit_code == 0
    assert chunks("x.png")[0]["seed"] == 1


def test_an_empty_prompt_is_a_prompt(draw):
    assert draw("--seed", 1, prompt="").stdout == "picture_seed1.png\n"


@pytest.mark.parametrize(("asked", "dtype"), [("bf16", "bfloat16"), ("fp32", "float32"), ("bfloat16", "bfloat16")])
def test_dtypes_go_by_both_their_names(lorakit, base, here, asked, dtype):
    result = lorakit("generate", "--base", base, "--steps", 1, "--dtype", asked, "--json", "a red heart")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["dtype"] == dtype


def test_a_negative_prompt_that_is_not_heard_is_said_to_be(lorakit, here):
    build_whole_flux().save_pretrained("flux")
    small = ("--base", "flux", "--steps", 1, "--width", 16, "--height", 16, "--seed", 0, "a red heart")
    heard = lorakit("generate", *small, "--negative", "blue", "--out", "a.png")
    assert "--negative changes nothing: a FluxPipeline draws from the prompt alone" in heard.stderr
    plain = lorakit("generate", *small, "--out", "b.png")
    assert "--negative" not in plain.stderr
    with Image.open("a.png") as one, Image.open("b.png") as other:
        assert one.tobytes() == other.tobytes()
