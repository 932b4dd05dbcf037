"""`lorakit fuse`: what it writes, against an independent computation, diffusers and the base's own bytes."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open

from tests.exact_weights import assert_rounded_once, exact_weights, folder_weights
from tests.fused import files, fused, specs
from tests.tiny import build_pipeline

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@pytest.fixture(scope="module", params=list(DTYPES))
def stored(request, tmp_path_factory):
    """The tiny pipeline stored in each dtype."""
    folder = tmp_path_factory.mktemp(request.param) / "base"
    build_pipeline().to(DTYPES[request.param]).save_pretrained(folder)
    return folder, DTYPES[request.param]


def test_every_tensor_is_the_fp64_sum_rounded_once(lorakit, here, stored, adapters):
    base, dtype = stored
    two = specs(adapters, "ink.safetensors:0.75", "wash.safetensors:-1.5")
    report = fused(lorakit, "--base", base, *two, "--scale", 0.5, "--out", here / "out", "--verify", "full")
    exact = exact_weights(base, [(adapters / "ink.safetensors", 0.375), (adapters / "wash.safetensors", -0.75)])
    actual, before = folder_weights(here / "out"), folder_weights(base)
    assert_rounded_once(actual, exact, dtype)
    changed = [name for name in actual if not torch.equal(actual[name], before[name])]
    assert len(changed) == sum(report["changed"].values()) == 188
    if dtype is not torch.float32:
        same = sum(int((actual[name] == exact[name].to(dtype)).sum()) for name in changed)
        assert same >= 0.9999 * sum(actual[name].numel() for name in changed)
    assert report["check"]["sound"]
    assert report["check"]["replayed"] == 188


def test_all_else_is_the_bases_and_loads_with_plain_from_pretrained(lorakit, here, base, adapters):
    fused(lorakit, "--base", base, *specs(adapters, "ink.safetensors"), "--out", here / "out")
    ours, theirs = files(here / "out"), files(base)
    assert ours.keys() == theirs.keys() | {"lorakit.json", "README.md"}
    weights = {name for name in theirs if name.endswith(".safetensors")}
    for name in theirs.keys() - weights | {"vae/diffusion_pytorch_model.safetensors"}:
        assert ours[name] == theirs[name], name
    for name in weights:
        with safe_open(here / "out" / name, "pt") as a, safe_open(base / name, "pt") as b:
            assert (list(a.keys()), a.metadata()) == (list(b.keys()), b.metadata())
    pipeline = DiffusionPipeline.from_pretrained(here / "out", dtype=torch.float16)
    written = folder_weights(here / "out")
    for name in ("unet", "text_encoder", "vae"):
        for key, value in getattr(pipeline, name).state_dict().items():
            assert torch.equal(value, written[f"{name}.{key}"])
    assert (here / "out" / "unet").stat().st_mode & 0o777 == 0o755
    assert (here / "out" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_mode & 0o777 == 0o644


def test_both_engines_write_the_same_bytes(lorakit, here, stored, adapters):
    base, _ = stored
    two = specs(adapters, "ink.safetensors:0.7", "wash.safetensors:0.3")
    fused(lorakit, "--base", base, *two, "--out", here / "stream", "--engine", "stream")
    report = fused(lorakit, "--base", base, *two, "--out", here / "loaded", "--engine", "pipeline", "--verify", "full")
    assert report["engine"] == "pipeline"
    for file in sorted((here / "stream").glob("*/*.safetensors")):
        assert file.read_bytes() == (here / "loaded" / file.relative_to(here / "stream")).read_bytes()


def test_without_any_option_it_bakes_the_embedded_adapters(lorakit, here):
    done = lorakit("fuse", "--scale", 0.7, "--out", "out")
    assert done.exit_code == 0
    first, *rest = done.stdout.splitlines()
    assert first == "out: lorakit demo, 176 tensors changed (text_encoder 12, unet 164), 8.5 MB"
    assert any("sums made again" in line and "equal to the last bit" in line for line in rest)
    assert done.stderr == ""
    recipe = json.loads((here / "out" / "lorakit.json").read_text())
    assert [(one["name"], one["weight"]) for one in recipe["adapters"]] == [("toy", 1.0), ("pixel", 1.0)]
    assert (recipe["scale"], recipe["base"]["source"]) == (0.7, "demo")
    # What the embedded base says about making pictures goes along.
    assert recipe["generate"] == {"steps": 20, "guidance": 4.0}
    assert lorakit("generate", "--base", "out", "--steps", 1, "--seed", 1, "a red heart").exit_code == 0


def test_strength_zero_is_the_base_bit_for_bit(lorakit, here, base, adapters):
    fused(lorakit, "--base", base, *specs(adapters, "ink.safetensors:0"), "--out", here / "weight")
    fused(lorakit, "--base", base, *specs(adapters, "ink.safetensors"), "--scale", 0, "--out", here / "scale")
    for file in sorted(base.glob("*/*.safetensors")):
        for out in ("weight", "scale"):
            assert (here / out / file.relative_to(base)).read_bytes() == file.read_bytes()


def test_components_limit_what_changes(lorakit, here, base, adapters):
    ink = specs(adapters, "ink.safetensors")
    report = fused(lorakit, "--base", base, *ink, "--components", "text_encoder", "--out", here / "out")
    assert list(report["changed"]) == ["text_encoder"]
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (here / "out" / name).read_bytes() == (base / name).read_bytes()
    exact = exact_weights(base, [(adapters / "ink.safetensors", lambda module: float(module.startswith("text")))])
    assert_rounded_once(folder_weights(here / "out"), exact, torch.float16)
    done = lorakit("fuse", "--base", base, *ink, "--components", "text_encodr", "--out", here / "no")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: the base has no component 'text_encodr'; did you mean text_encoder? It has text_encoder, unet, vae\n"
    )
    wash = specs(adapters, "wash.safetensors")
    done = lorakit("fuse", "--base", base, *wash, "--components", "text_encoder", "--out", here / "no")
    assert (done.exit_code, (here / "no").exists()) == (1, False)
    assert "adapter wash changes nothing in text_encoder; it has layers for unet" in done.stderr


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_another_dtype_is_rounded_to_once(lorakit, here, stored, adapters, dtype):
    base, _ = stored
    fused(lorakit, "--base", base, *specs(adapters, "ink.safetensors"), "--dtype", dtype, "--out", here / "out",
          "--verify", "full")  # fmt: skip
    actual = folder_weights(here / "out")
    assert_rounded_once(actual, exact_weights(base, [(adapters / "ink.safetensors", 1.0)]), DTYPES[dtype])
    DiffusionPipeline.from_pretrained(here / "out")


def test_shards_are_as_large_as_asked_and_load(lorakit, here, base, adapters):
    ink = specs(adapters, "ink.safetensors")
    fused(lorakit, "--base", base, *ink, "--out", here / "whole")
    report = fused(lorakit, "--base", base, *ink, "--out", here / "parts", "--max-shard-size", "200KB")
    parts = sorted((here / "parts" / "unet").glob("*.safetensors"))
    assert len(parts) > 1
    assert report["files"] > 3
    for part in parts:
        with safe_open(part, "pt") as shard:
            sizes = [shard.get_tensor(name).nbytes for name in shard.keys()]  # noqa: SIM118
        assert sum(sizes) <= 200_000 or len(sizes) == 1
    index = json.loads((here / "parts" / "unet" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {part.name for part in parts}
    whole, parted = folder_weights(here / "whole"), folder_weights(here / "parts")
    assert whole.keys() == parted.keys()
    assert all(torch.equal(whole[name], parted[name]) for name in whole)
    pipeline = DiffusionPipeline.from_pretrained(here / "parts", dtype=torch.float16)
    assert torch.equal(pipeline.unet.conv_in.weight, whole["unet.conv_in.weight"])
    # And a base in shards is fused shard by shard.
    fused(lorakit, "--base", here / "parts", *specs(adapters, "wash.safetensors"), "--out", here / "again")
    assert sorted(path.name for path in (here / "again" / "unet").glob("*.safetensors")) == [p.name for p in parts]
    DiffusionPipeline.from_pretrained(here / "again")


def test_a_variant_is_written_under_plain_names(lorakit, here, tmp_path, adapters):
    build_pipeline().save_pretrained(tmp_path / "two")
    build_pipeline(seed=5).to(torch.float16).save_pretrained(tmp_path / "two", variant="fp16")
    ink = specs(adapters, "ink.safetensors")
    fused(lorakit, "--base", tmp_path / "two", "--variant", "fp16", *ink, "--out", here / "out")
    names = [path.name for path in (here / "out").glob("*/*.safetensors")]
    assert all("fp16" not in name for name in names)
    assert len(names) == 3
    assert all(value.dtype == torch.float16 for value in folder_weights(here / "out").values())
    DiffusionPipeline.from_pretrained(here / "out")
    done = lorakit("fuse", "--base", tmp_path / "two", "--variant", "bf16", *ink, "--out", here / "no")
    assert "no weights of the variant bf16; it has fp16" in done.stderr


def test_one_after_the_other_equals_both_at_once(lorakit, here, tmp_path, adapters):
    build_pipeline().save_pretrained(tmp_path / "base")
    ink, wash = specs(adapters, "ink.safetensors:0.7"), specs(adapters, "wash.safetensors:0.7")
    fused(lorakit, "--base", tmp_path / "base", *ink, *wash, "--out", here / "both")
    fused(lorakit, "--base", tmp_path / "base", *ink, "--out", here / "first")
    fused(lorakit, "--base", here / "first", *wash, "--out", here / "second")
    both, second = folder_weights(here / "both"), folder_weights(here / "second")
    for name, value in both.items():
        assert (value - second[name]).abs().max() <= 4 * torch.finfo(torch.float32).eps * value.abs().max(), name
    exact = exact_weights(tmp_path / "base", [(adapters / f"{name}.safetensors", 0.7) for name in ("ink", "wash")])
    assert_rounded_once(second, exact, torch.float32)
    recipe = json.loads((here / "second" / "lorakit.json").read_text())
    assert [one["name"] for one in recipe["base"]["recipe"]["adapters"]] == ["ink"]


def test_the_same_adapter_is_not_fused_twice_unasked(lorakit, here, base, adapters):
    ink = specs(adapters, "ink.safetensors:0.7")
    fused(lorakit, "--base", base, *ink, "--out", here / "once")
    shutil.copy(adapters / "ink.safetensors", here / "renamed.safetensors")
    for spec in (ink, ["--lora", "renamed.safetensors"]):
        done = lorakit("fuse", "--base", here / "once", *spec, "--out", here / "twice")
        assert done.exit_code == 1
        assert "is fused into" in done.stderr
        assert "already, at 0.7; fuse into the original base, or add it once more with --again" in done.stderr
    assert not (here / "twice").exists()
    fused(lorakit, "--base", here / "once", *ink, "--out", here / "twice", "--again")
    exact = exact_weights(here / "once", [(adapters / "ink.safetensors", 0.7)])
    assert_rounded_once(folder_weights(here / "twice"), exact, torch.float16)


def test_json_keys(lorakit, here, base, adapters):
    report = fused(lorakit, "--base", base, *specs(adapters, "ink.safetensors"), "--out", here / "out")
    assert report["schema"] == "lorakit/fuse/1"
    assert report.keys() == {
        "schema", "out", "base", "architecture", "adapters", "scale", "changed", "blocks", "files", "size", "dtype",
        "engine", "seconds", "check", "warnings", "pushed",
    }  # fmt: skip
    assert report["check"].keys() == {
        "level", "sound", "exact", "tensors", "unchanged", "replayed", "values", "deviations", "problems", "survival",
        "seconds",
    }  # fmt: skip
    assert (
        fused(lorakit, "--base", base, *specs(adapters, "ink.safetensors"), "--out", "b", "--no-verify")["check"]
        is None
    )


def test_a_dry_run_writes_nothing_and_loads_no_torch(program, here, base, adapters):
    code = f"""
import sys
from lorakit_cli.__main__ import main
sys.argv[1:] = ["fuse", "--base", "{base}", "--lora", "{adapters}/ink.safetensors:0.5", "--out", "out", "--dry-run"]
try: main()
finally: print([name for name in ("torch", "diffusers", "numpy") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"
    assert "changes 188 tensors: text_encoder 8, unet 180" in done.stdout
    assert done.stdout.endswith("would write out\n")
    assert list(here.iterdir()) == []


def test_blocks_say_how_much_they_change(lorakit, here, base, adapters):
    report = fused(lorakit, "--base", base, *specs(adapters, "ink.safetensors"), "--out", here / "out")
    exact, before = exact_weights(base, [(adapters / "ink.safetensors", 1.0)]), exact_weights(base, [])
    mid = [name for name in exact if name.startswith("unet.mid_block") and not torch.equal(exact[name], before[name])]
    delta = sum(float((exact[name] - before[name]).square().sum()) for name in mid)
    whole = sum(float(before[name].square().sum()) for name in mid)
    (found,) = (
        block["change"] for block in report["blocks"] if (block["component"], block["block"]) == ("unet", "mid")
    )
    assert found == pytest.approx((delta / whole) ** 0.5, rel=1e-5)


def test_rounding_that_absorbs_a_change_is_told(lorakit, here, tmp_path, adapters):
    build_pipeline().to(torch.bfloat16).save_pretrained(tmp_path / "base")
    weak = specs(adapters, "ink.safetensors:0.001")
    report = fused(lorakit, "--base", tmp_path / "base", *weak, "--out", here / "out", "--verify", "full")
    exact = exact_weights(tmp_path / "base", [(adapters / "ink.safetensors", 0.001)])
    before, after = exact_weights(tmp_path / "base", []), folder_weights(here / "out")
    wanted = {name: exact[name] - before[name] for name in exact}
    kept = sum(float(((after[name].double() - before[name]) * wanted[name]).sum()) for name in exact)
    (survival,) = report["check"]["survival"]
    assert survival["name"] == "ink"
    assert survival["part"] == pytest.approx(kept / sum(float(d.square().sum()) for d in wanted.values()), abs=1e-3)
    assert abs(survival["part"] - 1) > 1e-3


def test_the_card_names_base_and_adapters(lorakit, here, base, adapters):
    fused(lorakit, "--base", base, *specs(adapters, "ink.safetensors:0.5"), "--out", here / "out")
    card = (here / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: diffusers\n")
    assert "| ink | 0.5 |" in card


@pytest.mark.cuda
def test_sums_made_on_cuda_are_proved_there_and_here(lorakit, here, base, adapters):
    ink = specs(adapters, "ink.safetensors:0.75")
    fused(lorakit, "--base", base, *ink, "--device", "cuda", "--out", "out", "--verify", "full")
    exact = exact_weights(base, [(adapters / "ink.safetensors", 0.75)])
    assert_rounded_once(folder_weights(here / "out"), exact, torch.float16)
    assert lorakit("verify", "out").exit_code == 0
    assert lorakit("verify", "out", "--device", "cpu").exit_code == 0
