"""`lorakit merge` and `lorakit resize`: what they print and write, and what they refuse."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from tests.conversions import as_kohya, layer_delta, loaded_deltas, metadata_of, write
from tests.exact_weights import folder_weights
from tests.merging import KOHYA, adapter, distance, done, read, refused, weighted
from tests.tiny import build_pipeline

PART = {"component", "block", "layers", "rank_before", "rank_after", "energy", "error"}


@pytest.fixture
def pair(adapters):
    return ["--lora", f"{adapters}/ink.safetensors:0.7", "--lora", f"{adapters}/wash.safetensors:-0.5"]


@pytest.fixture
def merge(lorakit, base, pair):
    """Merge two adapters for the tiny base."""

    def run(*arguments, inputs=None):
        return lorakit("merge", *(inputs or pair), "--base", base, *arguments)

    return run


def test_it_says_what_it_wrote(merge, here):
    result = merge("--out", "out.safetensors")
    assert (result.exit_code, result.stderr) == (0, "")
    first, second, third, head, *rows = result.stdout.splitlines()
    size = (here / "out.safetensors").stat().st_size
    assert first == f"out.safetensors: diffusers, 188 layers, {size / 1e6:.1f} MB"
    assert second == "  cat of ink:0.7, wash:-0.5"
    assert third.startswith("  rank 4-12 to 4-12, error ")
    assert third.endswith("; made for StableDiffusionPipeline")
    assert head.split() == ["layers", "rank", "energy", "error"]
    assert [row.split()[0] for row in rows] == [
        "unet", "down.block_0", "down.block_1", "down.block_2", "mid", "up.block_0", "up.block_1", "up.block_2",
        "text_encoder", "layers.0", "layers.1",
    ]  # fmt: skip
    assert merge("--out", "quiet.safetensors", "-q").stdout.count("\n") == 1


def test_the_reports_as_json_have_these_keys(merge, lorakit, base, adapters, here):
    report = done(merge("--out", "out.safetensors", "--rank", 3, "--json"))
    assert report.keys() == {
        "schema", "out", "method", "architecture", "layout", "adapters", "layers", "unchanged", "zero", "size",
        "rank_before", "rank_after", "energy", "error", "components", "blocks", "remarks", "overlap",
    }  # fmt: skip
    assert report["schema"] == "lorakit/merge/1"
    assert report["components"][0].keys() == report["blocks"][0].keys() == PART
    assert report["adapters"][0].keys() == {"name", "path", "weight", "sha256", "layers", "alone"}
    assert (report["method"], report["rank_before"], report["rank_after"]) == ("svd", [4, 12], [3, 3])
    assert report["size"] == (here / "out.safetensors").stat().st_size
    arguments = ["--rank", 3, "--out", "lean.safetensors", "--base", base, "--json"]
    report = done(lorakit("resize", adapters / "ink.safetensors", *arguments))
    assert report.keys() == {
        "schema", "source", "out", "architecture", "layout", "layers", "unchanged", "zero", "size_before", "size",
        "rank_before", "rank_after", "energy", "error", "components", "blocks", "left_out",
    }  # fmt: skip
    assert report["schema"] == "lorakit/resize/1"
    assert report["size_before"] == (adapters / "ink.safetensors").stat().st_size
    assert 0 < report["error"] < 1


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--rank", 3),
        ("--to", "kohya"),
        ("--to", "kohya", "--rank", 3),
        ("--to", "kohya", "--energy", 0.9),
        ("--dtype", "fp32", "--energy", 0.9),
    ],
)
def test_diffusers_loads_what_was_written(merge, base, here, options):
    merge("--out", "out.safetensors", *options)
    pipeline = build_pipeline()
    pipeline.load_lora_weights(here, weight_name="out.safetensors")
    assert distance(loaded_deltas(pipeline), read(base, here / "out.safetensors")) < 1e-6


@pytest.mark.parametrize("rule", [("--energy", 0.9), ("--size", "200kB"), ("--rank", 2)])
def test_diffusers_loads_a_resized_file_of_kohya_whatever_its_ranks(lorakit, base, adapters, here, rule):
    """It loses alphas of a UNet and its text encoder that differ, even where each is the rank of its layer."""
    arguments = ["--to", "kohya", "--out", "out.safetensors", "--base", base, *rule, "--json"]
    report = done(lorakit("resize", adapters / "ink.safetensors", *arguments))
    assert (report["rank_after"][0] < report["rank_after"][1]) == (rule[0] != "--rank")
    pipeline = build_pipeline()
    pipeline.load_lora_weights(here, weight_name="out.safetensors")
    assert distance(loaded_deltas(pipeline), read(base, here / "out.safetensors")) < 1e-6
    alphas = {float(value) for name, value in load_file("out.safetensors").items() if name.endswith(".alpha")}
    assert alphas == ({2.0} if rule[0] == "--rank" else set())


def test_peft_loads_what_was_written_for_it(merge, base, here):
    done(merge("--out", "out", "--to", "peft", "--json"))
    done(merge("--out", "out.safetensors", "--json"))
    found = {}
    pipeline = build_pipeline()
    for component in ("unet", "text_encoder"):
        loaded = PeftModel.from_pretrained(getattr(pipeline, component), here / "out" / component)
        for name, layer in loaded.named_modules():
            if isinstance(layer, LoraLayer):
                found[component, name.removeprefix("base_model.model.").removeprefix("text_model.")] = layer_delta(
                    layer
                )
    assert distance(found, read(base, here / "out.safetensors")) < 1e-6


@pytest.mark.parametrize("to", ["diffusers", "kohya", "comfy", "peft"])
def test_fused_it_is_what_the_adapters_are_fused_together(merge, lorakit, base, pair, here, to):
    out = "out" if to == "peft" else "out.safetensors"
    done(merge("--out", out, "--to", to, "--dtype", "fp32", "--json"))
    # For peft each model is an adapter of its own.
    parts = [f"./{out}/{name}" for name in ("unet", "text_encoder")] if to == "peft" else [f"./{out}"]
    merged = [word for part in parts for word in ("--lora", part)]
    together = ["--base", base, "--dtype", "fp32", "--json", "--out"]
    done(lorakit("fuse", *pair, *together, "two"))
    done(lorakit("fuse", *merged, *together, "one"))
    one, two, bare = (folder_weights(folder) for folder in (here / "one", here / "two", base))
    assert one.keys() == two.keys()
    changed = 0
    for name, value in one.items():
        change = float((two[name] - bare[name].float()).abs().max())
        assert float((value - two[name]).abs().max()) <= 1e-6 * max(change, 1.0), name
        changed += change > 0
    assert changed == 188


def test_the_exact_sum_after_all(merge, base, adapters, here):
    merge("--out", "out.safetensors", "--dtype", "fp32")
    parts = [(read(base, adapters / f"{name}.safetensors"), weight) for name, weight in (("ink", 0.7), ("wash", -0.5))]
    assert distance(read(base, here / "out.safetensors"), weighted(*parts)) < 1e-7


def test_remarks_are_warnings(merge, adapters, here):
    inputs = ["--lora", f"{adapters}/ink.safetensors", "--lora", f"{adapters}/wash.safetensors:0"]
    result = merge("--out", "out.safetensors", inputs=inputs)
    assert result.stderr == "warning: wash has weight 0 and is left out\n"
    result = merge("--out", "out.safetensors", "--overwrite", "-q", inputs=inputs)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_merge_worse_than_none_is_warned_of(lorakit, here):
    asked = "merge", "--lora", "toy", "--lora", "pixel", "--density", 0.5, "--out", "out.safetensors", "--overwrite"
    result = lorakit(*asked, "--method", "dare_linear", "--json")
    error = done(result)["error"]
    assert error > 1
    told = (
        f"dare_linear gives a change that is {error:.0%} of the exact sum away from it, further than no change at all"
    )
    assert result.stderr == f"warning: {told}; dare_linear_svd works on the changes\n"
    result = lorakit(*asked, "--method", "magnitude_prune")
    assert (result.exit_code, result.stderr) == (0, "")


def test_resize_tells_what_it_leaves_out(lorakit, base, adapters, here):
    tensors = load_file(adapters / "ink.safetensors") | {"bundle_emb.ohwx.string_to_param.*": torch.ones(2, 32)}
    write(here / "in.safetensors", tensors)
    asked = "resize", "in.safetensors", "--base", base, "--rank", 2, "--overwrite", "--out", "out.safetensors"
    result = lorakit(*asked)
    told = "left out 1 keys that are no part of its change, such as bundle_emb.ohwx.string_to_param.*"
    assert (result.exit_code, result.stderr) == (0, f"warning: {told}\n")
    assert done(lorakit(*asked, "--quiet", "--json"))["left_out"] == ["bundle_emb.ohwx.string_to_param.*"]
    assert not any("emb" in name for name in load_file(here / "out.safetensors"))


def test_library_names_weights_and_triggers(lorakit, here):
    (here / "lorakit.toml").write_text(
        '[adapters.mine]\nsource = "mine.safetensors"\nweight = 0.5\ntriggers = ["ohwx"]'
    )
    lorakit("convert", "toy", "--to", "kohya", "--out", "mine.safetensors")
    report = done(lorakit("merge", "-l", "mine", "-l", "pixel:0.25", "--out", "out.safetensors", "--json"))
    assert [(each["name"], each["weight"]) for each in report["adapters"]] == [("mine", 0.5), ("pixel", 0.25)]
    assert report["layout"] == "kohya"
    assert metadata_of(here / "out.safetensors")["modelspec.trigger_phrase"].startswith("ohwx")
    looked = json.loads(lorakit("inspect", "out.safetensors", "--json").stdout)
    assert "mine" in json.dumps(looked)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say where to: --out FILE, or --analyze"),
        (("--out", "x.txt"), "the diffusers layout is a file, so a name in .safetensors"),
        (("--out", "x.safetensors", "--to", "peft"), "the peft layout is a folder"),
        (("--out", "x.safetensors", "--method", "tise"), "--method 'tise' is not known; did you mean ties"),
        (("--out", "x.safetensors", "--method", "cat", "--rank", 3), "takes no --rank, --energy or --size; svd does"),
        (("--out", "x.safetensors", "--method", "ties", "--rank", 3), "--size; ties_svd does"),
        (("--out", "x.safetensors", "--method", "ties_svd"), "needs --density"),
        (("--out", "x.safetensors", "--density", 0.5), "--density is for methods that leave values out"),
        (("--out", "x.safetensors", "--method", "ties", "--density", 1.5), "--density 1.5 is a share"),
        (("--out", "x.safetensors", "--seed", 3), "--seed is for methods that draw lots"),
        (("--out", "x.safetensors", "--majority-sign", "total"), "--majority-sign is for methods that elect signs"),
        (("--out", "x.safetensors", "--rank", 3, "--energy", 0.9), "--rank and --energy exclude each other"),
        (("--out", "x.safetensors", "--rank", 99), "no layer of the sum has a rank above 12"),
        (("--out", "x.safetensors", "--size", "2kB"), "ask for at least"),
    ],
)
def test_wrong_requests_are_one_line_and_leave_nothing(merge, here, arguments, message):
    refused(merge(*arguments), message, code=2)
    assert list(here.iterdir()) == []


def test_the_same_name_twice_no_adapter_and_a_missing_file(lorakit, merge, adapters, base):
    twice = ["--lora", f"{adapters}/ink.safetensors"] * 2
    refused(merge("--out", "x.safetensors", inputs=twice), "two adapters are called 'ink'", code=2)
    refused(lorakit("merge", "--out", "x.safetensors"), "name the adapters to merge", code=2)
    wrong = ["--lora", f"{adapters}/inc.safetensors"]
    refused(merge("--out", "x.safetensors", inputs=wrong), "there is no adapter file")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say how low: --rank 16, --energy 0.95"),
        (("--rank", 2, "--ratio", 4), "--rank and --ratio exclude each other"),
        (("--rank", 5), "has a rank above 4; ask for 4 or less"),
        (("--size", "1kB"), "with rank 1 in every layer the file has"),
    ],
)
def test_resize_refuses_in_one_line(lorakit, adapters, base, here, arguments, message):
    source = adapters / "ink.safetensors"
    refused(lorakit("resize", source, "--base", base, "--out", "x.safetensors", *arguments), message, code=2)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", [("resize", "--rank", 2), ("convert", "--to", "kohya")])
def test_a_weight_where_none_is_applied_is_refused(lorakit, adapters, base, here, command):
    ink = f"{adapters / 'ink.safetensors'}:0.5"
    result = lorakit(command[0], ink, *command[1:], "--base", base, "--out", "x.safetensors")
    refused(result, "takes the file as it is, without a weight; `lorakit merge --lora ", 2)
    assert not (here / "x.safetensors").exists()


def test_resize_never_writes_over_its_input(lorakit, adapters, base):
    source = adapters / "ink.safetensors"
    before = source.read_bytes()
    result = lorakit("resize", source, "--base", base, "--out", source, "--rank", 2, "--overwrite")
    refused(result, f"{source} is {source}, which is read; choose another place")
    assert source.read_bytes() == before


WORDS = {
    "merge": ("merge", "--lora"),
    "resize": ("resize", "--rank", 2),
    "convert": ("convert", "--to-lora", "--rank", 2),
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_the_base_is_never_written_over(lorakit, adapters, base, checkpoint, here, words):
    """A name too much with --overwrite, and a pipeline would be gone that took hours to download."""
    for source, layout in ((base, "peft"), (checkpoint, "kohya")):
        own = shutil.copytree(source, "own") if source.is_dir() else shutil.copy(source, "own.safetensors")
        asked = *words, adapters / "wash.safetensors", "--base", own, "--to", layout, "--overwrite", "--out"
        refused(lorakit(*asked, own), f"{own} is {own}, which is read; choose another place")
        if source.is_dir():
            assert {path.name for path in (here / own).iterdir()} == {path.name for path in source.iterdir()}
            (here / "notes").mkdir()
            (here / "notes" / "thesis.txt").touch()
            refused(lorakit(*asked, "notes"), "holds other things than a pipeline or adapters, and is not replaced")
            for _ in range(2):
                assert lorakit(*asked, "new/adapter").exit_code == 0
        else:
            assert (here / own).read_bytes() == source.read_bytes()


def test_a_picture_is_named_as_one_and_replaces_nothing_else(merge, adapters, here):
    source = adapters / "ink.safetensors"
    before = source.read_bytes()
    refused(merge("--plot", source, "--overwrite"), "pictures are written as .png; name it ", code=2)
    assert source.read_bytes() == before


def test_resize_shows_each_block(lorakit, base, here):
    factors = adapter(build_pipeline(), 1, 6, alpha=2.0)
    source = write(here / "in.safetensors", as_kohya(factors, KOHYA))
    result = lorakit("resize", source, "--base", base, "--energy", 0.9, "--out", "out.safetensors")
    first, second, _, *rows = result.stdout.splitlines()
    assert first.startswith("out.safetensors: kohya, ")
    assert " of the squared norm kept, error " in second
    assert {row.split()[0] for row in rows} >= {"unet", "down.block_1", "mid", "up.block_0", "text_encoder", "layers.1"}
    looked = json.loads(lorakit("inspect", "out.safetensors", "--base", base, "--json").stdout)
    assert looked["usable"]
