"""`lorakit extract`: the difference of two real models, against dense arithmetic in fp64 and diffusers' own loading."""

import json
import math
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.conversions import BUILDERS
from tests.exact_weights import folder_weights
from tests.fused import specs

PIPELINES = ["sd1", "sdxl", "flux", "sd3"]


def perturbed(pipeline, size=0.02):
    """Change every parameter of what adapters are made for a little."""
    torch.manual_seed(11)
    for name in ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3"):
        model = getattr(pipeline, name, None)
        for parameter in model.parameters() if model is not None else ():
            parameter.data += size * torch.randn_like(parameter)
    return pipeline


@pytest.fixture(scope="module", params=PIPELINES)
def models(request, tmp_path_factory):
    """A base and a fine-tune of it, both in fp32, and the matrices in which they differ."""
    folder = tmp_path_factory.mktemp(request.param)
    BUILDERS[request.param]().save_pretrained(folder / "base")
    perturbed(BUILDERS[request.param]()).save_pretrained(folder / "tuned")
    return folder / "base", folder / "tuned"


def extracted(lorakit, base, tuned, *more, out="out.safetensors"):
    done = lorakit("extract", "--base", base, "--tuned", tuned, "--out", out, *more, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def differences(base, tuned):
    """The difference of every parameter, in fp64."""
    before, after = folder_weights(base), folder_weights(tuned)
    return {name: after[name].double() - before[name].double() for name in before}


def test_the_base_with_the_adapter_is_the_closest_to_the_tuned_model_of_that_rank(lorakit, here, models):
    base, tuned = models
    report = extracted(lorakit, base, tuned, "--rank", 2, "--dtype", "fp32", "--to", "kohya")
    done = lorakit("fuse", "--base", base, "--lora", "out.safetensors", "--out", "fused", "--dtype", "fp32")
    assert done.exit_code == 0, done.stderr
    whole, kept = differences(base, tuned), differences(base, here / "fused")
    lost = total = 0.0
    left = {f"{each['component']}.{each['parameter']}": each for each in report["not_captured"]}
    for name, change in whole.items():
        if not change.any():
            continue
        if name in left:
            assert not kept[name].any()
            assert left[name]["norm"] == pytest.approx(float(change.norm()), rel=1e-5)
            assert (
                change.ndim < 2
                or not name.endswith(".weight")
                or any(table in name for table in ("embed", "shared", "relative"))
            )
            squares = float(change.square().sum())
            lost, total = lost + squares, total + squares
            continue
        matrix = change.flatten(1)
        values = torch.linalg.svdvals(matrix)
        best = float(values[2:].square().sum())
        error = float((matrix - kept[name].flatten(1)).square().sum())
        assert math.sqrt(error) <= math.sqrt(best) * 1.001 + 1e-6 * float(matrix.norm())
        lost, total = lost + error, total + float(matrix.square().sum())
    assert report["layers"] + len(left) == len(whole) - report["equal"]
    data = (here / "out.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    # The order too, which would make other bytes of the same content.
    assert list(header["__metadata__"]) == ["lorakit.extracted_by", "lorakit.extracted_from"]
    assert report["error"] == pytest.approx(math.sqrt(lost / total), rel=1e-3)
    for block in report["blocks"]:
        assert block["energy"] == pytest.approx(1 - block["error"] ** 2)
        assert block["ranks"] == [2, 2] or block["ranks"][0] == 1


def test_what_has_no_factors_is_kept_on_request(lorakit, here, models):
    base, tuned = models
    report = extracted(lorakit, base, tuned, "--energy", 0.9999999, "--dtype", "fp32", "--to", "kohya", "--keep-full")
    assert report["not_captured"] == []
    assert report["error"] < 1e-3
    done = lorakit("fuse", "--base", base, "--lora", "out.safetensors", "--out", "fused", "--dtype", "fp32")
    assert done.exit_code == 0, done.stderr
    whole, kept = differences(base, tuned), differences(base, here / "fused")
    for name, change in whole.items():
        assert float((change - kept[name]).norm()) <= 1e-3 * float(change.norm()), name


@pytest.mark.parametrize("options", [("--rank", 8), ("--energy", 0.99999999, "--to", "kohya")])
def test_diffusers_loads_it_with_the_same_effect(lorakit, base, adapters, tmp_path, options):
    ink = specs(adapters, "ink.safetensors:0.8")
    assert lorakit("fuse", "--base", base, *ink, "--out", "tuned", "--dtype", "fp32").exit_code == 0
    report = extracted(lorakit, base, "tuned", *options, "--dtype", "fp32")
    assert report["not_captured"] == []
    assert report["error"] < 1e-4
    pipeline = DiffusionPipeline.from_pretrained(base, dtype=torch.float32)
    pipeline.load_lora_weights("out.safetensors")
    pipeline.fuse_lora(components=["unet", "text_encoder"])
    tuned = DiffusionPipeline.from_pretrained("tuned", dtype=torch.float32)
    for component in ("unet", "text_encoder"):
        live = {
            name.replace(".base_layer", ""): value
            for name, value in getattr(pipeline, component).state_dict().items()
            if "lora_" not in name
        }
        for name, value in getattr(tuned, component).state_dict().items():
            assert torch.allclose(live[name], value, atol=2e-5), name


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "comfy"])
def test_the_file_keeps_to_a_size_and_a_larger_one_loses_less(lorakit, here, base, adapters, layout):
    ink = specs(adapters, "ink.safetensors", "wash.safetensors")
    assert lorakit("fuse", "--base", base, *ink, "--out", "tuned", "--dtype", "fp32").exit_code == 0
    errors = []
    for size in (150_000, 190_000):
        report = extracted(lorakit, base, "tuned", "--size", size, "--to", layout, out=f"{size}.safetensors")
        assert 0.9 * size < (here / f"{size}.safetensors").stat().st_size == report["size"] <= size
        # Each layer has the rank that gains the most.
        assert any(block["ranks"][0] < block["ranks"][1] for block in report["blocks"])
        errors.append(report["error"])
    assert errors[1] < errors[0]
    done = lorakit("extract", "--base", base, "--tuned", "tuned", "--out", "x.safetensors", "--size", "5KB")
    assert done.exit_code == 2
    assert "layers of rank 1 alone take" in done.stderr
    assert not (here / "x.safetensors").exists()


def test_a_single_file_is_held_against_a_folder(lorakit, here, base, checkpoint, adapters):
    ink = specs(adapters, "ink.safetensors")
    assert lorakit("fuse", "--base", checkpoint, *ink, "--out", "tuned.safetensors").exit_code == 0
    assert lorakit("fuse", "--base", base, *ink, "--out", "tuned").exit_code == 0
    of_file = extracted(lorakit, base, "tuned.safetensors", "--rank", 4, "--dtype", "fp32", out="one.safetensors")
    of_folder = extracted(lorakit, base, "tuned", "--rank", 4, "--dtype", "fp32", out="two.safetensors")
    assert of_file["layers"] == of_folder["layers"] > 100
    one, two = load_file("one.safetensors"), load_file("two.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_components_and_small_changes_can_be_left_out(lorakit, here, base, adapters):
    ink = specs(adapters, "ink.safetensors")
    assert lorakit("fuse", "--base", base, *ink, "--out", "tuned", "--dtype", "fp32").exit_code == 0
    report = extracted(lorakit, base, "tuned", "--rank", 4, "--components", "text_encoder")
    with safe_open("out.safetensors", "pt") as file:
        assert all(name.startswith("text_encoder.") for name in file.keys())  # noqa: SIM118
        assert file.metadata()["lorakit.extracted_from"] == "tiny-base"
    changes = differences(base, here / "tuned")
    largest = sorted(float(change.abs().max()) for name, change in changes.items() if change.any())
    least = largest[len(largest) // 2]
    report = extracted(lorakit, base, "tuned", "--rank", 4, "--min-diff", least, out="most.safetensors")
    assert report["layers"] == sum(value > least for value in largest)
    assert {each["reason"] for each in report["not_captured"]} == {"below --min-diff"}


def test_what_changed_in_the_autoencoder_is_told(lorakit, base, here):
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.vae.decoder.conv_in.weight.data += 0.01
    pipeline.unet.conv_in.weight.data += 0.01
    pipeline.save_pretrained("tuned")
    report = extracted(lorakit, base, "tuned", "--rank", 1)
    assert report["layers"] == 1
    assert [(each["component"], each["reason"]) for each in report["not_captured"]] == [
        ("vae", "no adapter is made for a vae")
    ]
    done = lorakit("extract", "--base", base, "--tuned", "tuned", "--rank", 1, "--out", "again.safetensors")
    assert "vae.decoder.conv_in.weight" in done.stdout
    asked = (
        "extract",
        "--base",
        base,
        "--tuned",
        "tuned",
        "--rank",
        1,
        "--components",
        "vae",
        "--out",
        "vae.safetensors",
    )
    done = lorakit(*asked)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.endswith("and 0 others, no adapter is made for a vae\n")


REFUSED = [
    (["--rank", "2", "--energy", "0.5"], 2, "exclude each other"),
    ([], 2, "say how much to keep"),
    (["--energy", "1.5"], 2, "--energy 1.5"),
    (["--rank", "2", "--components", "unett"], 2, "did you mean unet"),
    (["--rank", "2", "--min-diff", "-1"], 2, "--min-diff -1.0"),
    (["--rank", "2", "--keep-full"], 2, "the diffusers layout holds nothing but factors; --to kohya holds the rest"),
    (["--rank", "2", "--out", "adapter"], 2, "a name in .safetensors"),
    (["--rank", "2", "--out", "there.safetensors"], 1, "exists already"),
]


@pytest.mark.parametrize(("options", "code", "message"), REFUSED)
def test_a_wrong_option_is_refused_before_anything_is_written(lorakit, here, base, options, code, message):
    (here / "there.safetensors").write_bytes(b"kept")
    out = [] if "--out" in options else ["--out", "out.safetensors"]
    tuned = base if "unett" not in options else here.parent / "tuned"
    if tuned != base:
        shutil.copytree(base, tuned)
    done = lorakit("extract", "--base", base, "--tuned", tuned, *out, *options)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert message in done.stderr
    assert [path.name for path in here.iterdir()] == ["there.safetensors"]
    assert (here / "there.safetensors").read_bytes() == b"kept"


def test_models_that_are_no_base_and_fine_tune_are_refused(lorakit, here, base):
    def refused(tuned, message, first=base):
        done = lorakit("extract", "--base", first, "--tuned", tuned, "--rank", 2, "--out", "out.safetensors")
        assert (done.exit_code, done.stdout) == (1, "") or done.exit_code == 2
        assert message in done.stderr
        assert not (here / "out.safetensors").exists()

    refused("demo", "is no fine-tune of")
    refused(base, "are both")
    BUILDERS["flux"]().save_pretrained("flux")
    refused("flux", "is no fine-tune of")
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.save_pretrained("same")
    refused("same", "in nothing that can be extracted")
    pipeline.unet.conv_in.weight.data[0, 0, 0, 0] = math.nan
    pipeline.save_pretrained("broken")
    refused("broken", "unet.conv_in.weight of broken holds NaN")
    weights = load_file("same/unet/diffusion_pytorch_model.safetensors")
    weights.pop("conv_out.bias")
    save_file(weights, "same/unet/diffusion_pytorch_model.safetensors", {"format": "pt"})
    refused("same", "unet.conv_out.bias is missing in it")


def test_it_does_not_write_into_what_it_reads(lorakit, base, here):
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.unet.conv_in.weight.data += 0.01
    pipeline.save_pretrained("tuned")
    before = sorted(path.name for path in (here / "tuned").iterdir())
    done = lorakit("extract", "--base", base, "--tuned", "tuned", "--rank", 2, "--out", "tuned/x.safetensors")
    assert done.exit_code == 1
    assert "lies in tuned, which is read; choose a place outside it" in done.stderr
    assert sorted(path.name for path in (here / "tuned").iterdir()) == before


@pytest.mark.parametrize("models", ["sd1"], indirect=True)
def test_a_gpu_without_fp64_is_left_alone(lorakit, here, models, monkeypatch):
    """Apple's have none, and are the first choice for pictures."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    base, tuned = models
    if not torch.cuda.is_available():
        extracted(lorakit, base, tuned, "--rank", 1)
    done = lorakit(
        "extract", "--base", base, "--tuned", tuned, "--rank", 1, "--out", "b.safetensors", "--device", "mps"
    )
    assert done.exit_code == 1
    assert done.stderr.endswith("this needs arithmetic in fp64, which mps has not; use auto, cuda or cpu\n")
