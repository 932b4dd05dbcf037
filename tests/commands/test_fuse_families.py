"""`lorakit fuse` on tiny pipelines of several families, with every algorithm, against changes computed apart."""

import copy
import math

import pytest
import torch
from diffusers import DiffusionPipeline, WanPipeline
from peft import LoHaConfig, LoraConfig, OFTConfig
from safetensors.torch import load_file, save_file

from lorakit_cli.service.reading import open_adapter
from tests.conversions import BUILDERS, as_kohya, build_wan, expected, random_adapter, write
from tests.dialects.judging import changes, plan_of
from tests.dialects.test_lycoris import ALGORITHMS, UNET
from tests.dialects.trained import adapted, network
from tests.exact_weights import folder_weights
from tests.fused import fused
from tests.service.test_converting import KOHYA_PREFIXES

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"]


def require_sums(out, base, wanted, dtype, tolerance=1e-6):
    """Require that the weights are those of the base with these fp64 changes, rounded once, and no others changed.

    Changes go by component and name, that of a weight by its module.
    """
    ours, theirs = folder_weights(out), folder_weights(base)
    assert ours.keys() == theirs.keys()
    left = dict(wanted)
    for name, value in ours.items():
        component, _, rest = name.partition(".")
        module = rest.removesuffix(".weight")
        spellings = [(component, module), (component, module.removeprefix("text_model."))]
        key = next((key for key in spellings if key in left), None)
        if key is None:
            assert torch.equal(value, theirs[name]), name
            continue
        change = left.pop(key)
        exact = theirs[name].double() + change.reshape(value.shape)
        half = exact.abs().clamp_min(torch.finfo(dtype).tiny) * torch.finfo(dtype).eps * 0.501
        assert ((value.double() - exact).abs() <= half + tolerance * change.abs().max()).all(), name
    assert not left


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("family", ["sdxl", "flux", "sd3", "wan"])
def test_a_whole_adapter_with_an_alpha_for_each_layer(lorakit, here, tmp_path, family, dtype):
    pipeline = BUILDERS[family]().to(dtype)
    pipeline.save_pretrained(tmp_path / "base")
    adapter = random_adapter(pipeline)
    assert {component for component, _ in adapter} >= ({"text_encoder"} if family != "wan" else {"transformer"})
    write(tmp_path / "a.safetensors", as_kohya(adapter, KOHYA_PREFIXES[family]))
    spec = f"{tmp_path}/a.safetensors:-0.5"
    report = fused(lorakit, "--base", tmp_path / "base", "--lora", spec, "--out", "out", "--verify", "full")
    assert report["check"]["sound"]
    wanted = {key: -0.5 * change for key, change in expected(adapter).items()}
    require_sums(here / "out", tmp_path / "base", wanted, dtype)


def test_both_denoisers_of_wan(lorakit, here, tmp_path):
    pipeline = build_wan()
    both = WanPipeline(
        tokenizer=None, text_encoder=None, vae=None, scheduler=pipeline.scheduler,
        transformer=pipeline.transformer, transformer_2=copy.deepcopy(pipeline.transformer), boundary_ratio=0.9,
    )  # fmt: skip
    both.save_pretrained(tmp_path / "base")
    tensors, wanted = {}, {}
    for number, name in enumerate(("transformer", "transformer_2")):
        down, up = torch.randn(2, 24), torch.randn(24, 2) + number
        stem = f"{name}.blocks.1.attn1.to_q"
        tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        wanted[name, "blocks.1.attn1.to_q"] = up.double() @ down.double()
    save_file(tensors, tmp_path / "a.safetensors")
    report = fused(lorakit, "--base", tmp_path / "base", "--lora", tmp_path / "a.safetensors", "--out", "out")
    assert report["changed"] == {"transformer": 1, "transformer_2": 1}
    require_sums(here / "out", tmp_path / "base", wanted, torch.float32)


def exact_changes(folder, path):
    """Give the changes of an adapter in fp64, which are held against the trainers' own arithmetic elsewhere."""
    plan = plan_of(folder, open_adapter(path))
    assert plan.unmatched == ()
    return {
        (component, name.removesuffix(".weight") if name.endswith(".weight") else name): change
        for (component, name), change in changes(plan).items()
    }


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_every_algorithm_of_lycoris(lorakit, here, base, tmp_path, algorithm):
    unet = DiffusionPipeline.from_pretrained(base).unet
    made = network(tmp_path, unet, UNET, **ALGORITHMS[algorithm])
    path = write(tmp_path / "a.safetensors", made.state_dict())
    spec = f"{path}:0.4"
    fused(lorakit, "--base", base, "--lora", spec, "--out", "out", "--verify", "full")
    fused(lorakit, "--base", base, "--lora", spec, "--out", "loaded", "--engine", "pipeline")
    wanted = {key: 0.4 * change for key, change in exact_changes(base, path).items()}
    assert wanted
    # Rotations and lengths are made of the base in fp32.
    require_sums(here / "out", base, wanted, torch.float16, tolerance=2e-5)
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (here / "out" / name).read_bytes() == (here / "loaded" / name).read_bytes()


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, lora_alpha=2, use_dora=True, target_modules=TARGETS),
        LoraConfig(r=4, lora_alpha=2, use_rslora=True, target_modules=TARGETS),
        LoHaConfig(r=4, alpha=2, target_modules=TARGETS),
        OFTConfig(r=0, oft_block_size=4, target_modules=TARGETS[:8]),
    ],
    ids=["dora", "rslora", "loha", "oft"],
)
def test_folders_of_peft(lorakit, here, base, tmp_path, config):
    made = adapted(DiffusionPipeline.from_pretrained(base).unet, config)
    made.save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "adapter_model.safetensors"
    fused(lorakit, "--base", base, "--lora", f"a={path}", "--out", "out", "--verify", "full")
    require_sums(here / "out", base, exact_changes(base, path), torch.float16, tolerance=2e-5)


def test_several_that_need_the_base_each_start_from_it(lorakit, here, base, tmp_path):
    paths = []
    for seed, algorithm in enumerate(("lora, dora", "diag-oft", "lora")):
        unet = DiffusionPipeline.from_pretrained(base).unet
        (tmp_path / str(seed)).mkdir()
        paths.append(write(tmp_path / str(seed) / "a.safetensors",
                           network(tmp_path, unet, UNET, **ALGORITHMS[algorithm]).state_dict()))  # fmt: skip
    specs = [word for number, path in enumerate(paths) for word in ("--lora", f"n{number}={path}:0.3")]
    fused(lorakit, "--base", base, *specs, "--out", "out", "--verify", "full")
    wanted = {}
    for path in paths:
        for key, change in exact_changes(base, path).items():
            wanted[key] = wanted.get(key, 0) + 0.3 * change
    require_sums(here / "out", base, wanted, torch.float16, tolerance=2e-5)


def test_a_bundled_embedding_is_left_out_and_said(lorakit, here, base, adapters, tmp_path):
    tensors = load_file(adapters / "wash.safetensors")
    save_file(tensors | {"bundle_emb.ink.string_to_param.*": torch.ones(2, 32)}, tmp_path / "a.safetensors")
    fused(lorakit, "--base", base, "--lora", tmp_path / "a.safetensors", "--out", "out")
    assert math.isfinite(float(folder_weights(here / "out")["unet.conv_in.weight"].sum()))
