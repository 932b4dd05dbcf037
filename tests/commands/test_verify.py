"""`lorakit verify`: healthy outputs are sound, and every defect put into one is found, named and explained."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.exact_weights import exact_weights
from tests.fused import fused, specs
from tests.tiny import build_pipeline

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
UNTOUCHED = "conv_in"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", params=list(DTYPES))
def made(request, tmp_path_factory, adapters):
    """A base in each dtype, and what two adapters make of it."""
    from typer.testing import CliRunner

    from lorakit_cli.app import app

    folder = tmp_path_factory.mktemp(request.param)
    build_pipeline().to(DTYPES[request.param]).save_pretrained(folder / "base")
    two = specs(adapters, "ink.safetensors:0.8", "wash.safetensors:0.5")
    arguments = ["fuse", "--base", folder / "base", *two, "--out", folder / "out", "--no-verify"]
    assert CliRunner().invoke(app, [str(argument) for argument in arguments]).exit_code == 0
    return folder, DTYPES[request.param]


@pytest.fixture
def output(made, here):
    """A copy of it to spoil."""
    folder, _ = made
    shutil.copytree(folder / "out", here / "out")
    return here / "out"


def report_of(lorakit, output, *options, code=0):
    done = lorakit("verify", output, *options, "--json")
    assert done.exit_code == code, done.stderr
    return json.loads(done.stdout)


def spoil(output, change):
    """Rewrite the UNet with what `change` makes of its tensors."""
    path = output / UNET
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def test_a_healthy_output_is_sound_to_the_last_bit(lorakit, made):
    folder, _ = made
    for level, values in (("full", 1), ("sample", 0)):
        report = report_of(lorakit, folder / "out", "--level", level)
        assert (report["sound"], report["exact"], report["deviations"], report["problems"]) == (True, True, [], [])
        assert report["replayed"] == 188
        assert report["values"] > 0
        changed = [name for name, value in exact_weights(folder / "base", []).items()]
        assert report["tensors"] == len(changed)
        assert values == 0 or {one["name"] for one in report["survival"]} == {"ink", "wash"}


def strengths(**of_layer):
    """Give the strengths of both adapters, other ones for one layer."""

    def strength(name, usual):
        return lambda module: of_layer.get(name, usual) if module == f"unet.{LAYER}" else usual

    return strength("ink", 0.8), strength("wash", 0.5)


@pytest.mark.parametrize(
    ("ink", "wash", "reason"),
    [
        (0, 0, "the change was never applied"),
        (0, 0.5, "ink was never applied"),
        (0.8 * 1.001, 0.5 * 1.001, "1.001 times its strength"),
        (1.6, 0.5, "ink was applied at 2 times its strength"),
        # wash has alpha 2 and rank 8.
        (0.8, 2.0, "wash was applied without its alpha, at 4"),
        (0.5, 0.8, "the strengths of ink and wash are swapped"),
    ],
    ids=["missing", "one missing", "1.001", "twice", "alpha ignored", "swapped"],
)
def test_a_layer_at_another_strength_is_found(lorakit, made, output, adapters, ink, wash, reason):
    folder, dtype = made
    parts = zip(
        (adapters / "ink.safetensors", adapters / "wash.safetensors"), strengths(ink=ink, wash=wash), strict=True
    )
    wrong = exact_weights(folder / "base", parts)[f"unet.{LAYER}.weight"]

    def change(tensors):
        tensors[f"{LAYER}.weight"] = wrong.to(dtype)

    spoil(output, change)
    report = report_of(lorakit, output, code=1)
    (found,) = report["deviations"]
    assert found["tensor"] == f"unet.{LAYER}.weight"
    # A thousandth of the change of 256 values is less than bf16 shows, but not less than it changes.
    unclear = dtype is torch.bfloat16 and "1.001" in reason
    assert unclear or reason in found["reason"], found
    assert 0 < found["differing"] <= found["values"]


@pytest.mark.parametrize(("tensor", "reason"), [
    (f"{UNTOUCHED}.weight", "no adapter changes it, yet it is not the base's"),
    (f"{LAYER}.weight", "1 of its values were altered afterwards"),
])  # fmt: skip
def test_one_flipped_bit_is_found(lorakit, output, tensor, reason):
    def change(tensors):
        bits = tensors[tensor].view(torch.int16 if tensors[tensor].dtype.itemsize == 2 else torch.int32)
        bits.view(-1)[17] ^= 1 << (bits.dtype.itemsize * 8 - 4)

    spoil(output, change)
    (found,) = report_of(lorakit, output, code=1)["deviations"]
    assert (found["tensor"], found["reason"], found["differing"]) == (f"unet.{tensor}", reason, 1)


def test_values_of_something_else_are_found(lorakit, output):
    def change(tensors):
        tensors[f"{LAYER}.weight"] = torch.randn_like(tensors[f"{LAYER}.weight"])

    spoil(output, change)
    (found,) = report_of(lorakit, output, code=1)["deviations"]
    assert "something else was added to the base than these adapters" in found["reason"]


def test_values_that_are_not_finite_are_found_even_by_a_sample(lorakit, output):
    def change(tensors):
        tensors[f"{LAYER}.weight"].view(-1)[-1] = float("nan")

    spoil(output, change)
    (found,) = report_of(lorakit, output, "--level", "sample", code=1)["deviations"]
    assert (found["tensor"], found["reason"]) == (f"unet.{LAYER}.weight", "it holds NaN or infinity")


def test_missing_and_added_tensors_are_found(lorakit, output):
    spoil(output, lambda tensors: tensors.pop(f"{LAYER}.weight"))
    report = report_of(lorakit, output, code=1)
    assert "which the base has" in report["problems"][0]
    spoil(output, lambda tensors: tensors.update({f"{LAYER}.lora_A.weight": torch.ones(2, 2)}))
    report = report_of(lorakit, output, code=1)
    assert "lora_A.weight, which the base has not" in report["problems"][0]


def test_a_truncated_file_is_told(lorakit, output):
    data = (output / UNET).read_bytes()
    (output / UNET).write_bytes(data[:-100])
    done = lorakit("verify", output)
    assert done.exit_code == 1
    assert "is truncated" in done.stderr


def test_a_changed_base_is_told_and_is_the_reason(lorakit, made, output, here, tmp_path):
    folder, _ = made
    shutil.copytree(folder / "base", here / "base")
    path = here / "base" / UNET
    tensors = load_file(path)
    tensors[f"{LAYER}.weight"].view(-1)[3] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    report = report_of(lorakit, output, "--base", here / "base", code=1)
    assert report["problems"] == [f"the base has changed: {UNET} is not what it was"]
    (found,) = report["deviations"]
    assert found["tensor"] == f"unet.{LAYER}.weight"
    assert found["reason"].endswith("; the base has changed")


def test_what_it_cannot_find_again_it_asks_for(lorakit, made, output, here, adapters, tmp_path):
    done = lorakit("verify", here / "nothing")
    assert (done.exit_code, done.stdout) == (1, "")
    recipe = json.loads((output / "lorakit.json").read_text())
    shutil.copy(adapters / "ink.safetensors", tmp_path / "other-name.safetensors")
    recipe["adapters"][0] |= {"source": "gone.safetensors", "file": "gone.safetensors"}
    (output / "lorakit.json").write_text(json.dumps(recipe))
    done = lorakit("verify", output)
    assert done.exit_code == 1
    assert "adapter ink (gone.safetensors, sha256" in done.stderr
    assert "--lora ink=PATH says where it is" in done.stderr
    assert report_of(lorakit, output, "--lora", f"ink={tmp_path}/other-name.safetensors")["sound"]


def test_the_text_names_what_is_wrong(lorakit, output):
    spoil(output, lambda tensors: tensors[f"{UNTOUCHED}.weight"].add_(1))
    done = lorakit("verify", output)
    assert done.stdout.splitlines()[0] == f"{output}: not sound"
    assert "unet.conv_in.weight: no adapter changes it" in done.stdout
    assert done.stderr == f"error: {output} is not what its recipe says: 1 tensors deviate\n"


def test_json_keys(lorakit, made):
    folder, _ = made
    report = report_of(lorakit, folder / "out")
    assert report["schema"] == "lorakit/verify/1"
    assert report.keys() == {
        "schema", "level", "sound", "exact", "tensors", "unchanged", "replayed", "values", "deviations", "problems",
        "survival", "seconds",
    }  # fmt: skip


def test_other_layouts_of_the_output_are_proved_too(lorakit, here, base, checkpoint, adapters):
    ink = specs(adapters, "ink.safetensors:0.6")
    outputs = {
        "shards": ("--base", base, "--max-shard-size", "300KB"),
        "bf16": ("--base", base, "--dtype", "bf16"),
        "loaded": ("--base", base, "--engine", "pipeline"),
        "single.safetensors": ("--base", base),
        "checkpoint.safetensors": ("--base", checkpoint),
        "half": ("--base", base, "--components", "text_encoder"),
    }
    for out, options in outputs.items():
        fused(lorakit, *options, *ink, "--out", out)
        report = report_of(lorakit, out)
        assert report["sound"], out
        assert report["replayed"] >= 8
    # What would be loaded beside it, or in its place, is named.
    shutil.copy(base / UNET, here / "half" / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    report = report_of(lorakit, "half", code=1)
    assert "twice" in report["problems"][0]


def test_what_a_folder_is_loaded_by_is_proved_too(lorakit, here, base, adapters):
    ink = specs(adapters, "ink.safetensors:0.6")
    fused(lorakit, "--base", base, *ink, "--out", "parts", "--max-shard-size", "200KB")
    fused(lorakit, "--base", base, *ink, "--out", "whole")
    index = here / "parts" / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.unlink()
    assert report_of(lorakit, "parts", code=1)["problems"] == ["unet has no index of its weights, and would not load"]
    config = here / "whole" / "unet" / "config.json"
    config.write_text(config.read_text().replace('"silu"', '"gelu"'))
    assert report_of(lorakit, "whole", code=1)["problems"] == ["unet/config.json is not the base's"]


def test_shapes_are_held_against_the_base(lorakit, output):
    path = output / UNET
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name, entry = next((name, entry) for name, entry in header.items() if len(set(entry.get("shape", ()))) == 2)
    entry["shape"].reverse()
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    path.write_bytes(data[:8] + text + data[8 + length :])
    assert f"{name} of the output has the shape" in report_of(lorakit, output, code=1)["problems"][0]


@pytest.mark.parametrize(("flips", "step", "sound"), [(1, 1, True), (2, 1, False), (1, 2, False)])
def test_another_kind_of_device_may_round_one_value_otherwise(lorakit, output, flips, step, sound):
    recipe = json.loads((output / "lorakit.json").read_text())
    recipe["arithmetic"]["kind"] = "another"
    (output / "lorakit.json").write_text(json.dumps(recipe))

    def change(tensors):
        tensor = tensors[f"{LAYER}.weight"]
        bits = tensor.view(torch.int16 if tensor.dtype.itemsize == 2 else torch.int32).view(-1)
        bits[:flips] += step

    assert not report_of(lorakit, output)["exact"]
    spoil(output, change)
    report = report_of(lorakit, output, code=0 if sound else 1)
    assert (report["sound"], len(report["deviations"])) == (sound, 0 if sound else 1)


def test_the_sign_of_a_zero_is_a_bit_like_any_other(lorakit, output):
    def change(tensors):
        tensors[f"{LAYER}.weight"].view(-1)[5] = 0.0

    spoil(output, change)
    (first,) = report_of(lorakit, output, code=1)["deviations"]
    assert first["differing"] == 1


def test_adapters_that_are_alike_are_not_called_damaged(lorakit, here, base, adapters, tmp_path):
    tensors = load_file(adapters / "ink.safetensors")
    more = {name: value * 1.5 if "lora_B" in name else value for name, value in tensors.items()}
    for name, values in (("one", tensors), ("two", more)):
        save_file({key: value.clone() for key, value in values.items()}, tmp_path / f"{name}.safetensors")
    fused(lorakit, "--base", base, *specs(tmp_path, "one.safetensors:0.5", "two.safetensors:0.5"), "--out", "out")
    recipe = json.loads((here / "out" / "lorakit.json").read_text())
    recipe["adapters"][0]["weight"] = 0.6
    (here / "out" / "lorakit.json").write_text(json.dumps(recipe))
    reasons = {one["reason"] for one in report_of(lorakit, "out", code=1)["deviations"]}
    assert not [reason for reason in reasons if "altered" in reason]
    assert all("at 0.833" in reason or "too alike" in reason for reason in reasons)
