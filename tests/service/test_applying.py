"""Fused and attached weights against an independent fp64 computation from the files."""

import math

import pytest
import torch
from safetensors.torch import load_file

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import parse_block_scales
from lorakit_cli.errors import CorruptFileError, LoraFileError, UnsupportedError
from lorakit_cli.service.applying import FusedWeights
from lorakit_cli.service.attaching import attach
from lorakit_cli.service.devices import choose_device
from lorakit_cli.service.pipeline import open_pipeline
from lorakit_cli.service.planning import make_plan
from lorakit_cli.service.tensors import KeptTensors, TensorReader
from tests.exact_weights import assert_rounded_once, exact_weights
from tests.tiny import rewrite

CPU = torch.device("cpu")


def plan_of(base, adapters, *specs, **options):
    return make_plan(str(base), [AdapterSpec.parse(f"{adapters}/{spec}") for spec in specs], **options).plan


def state(pipeline):
    return {
        f"{name}.{key}": value.detach().clone()
        for name in ("unet", "text_encoder", "vae")
        for key, value in getattr(pipeline, name).state_dict().items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_tensor_equals_the_fp64_sum(base, adapters, dtype):
    plan = plan_of(base, adapters, "ink.safetensors:0.75", "wash.safetensors:-1.5", scale=0.5)
    pipeline = open_pipeline(plan.base, CPU, dtype)
    assert FusedWeights(pipeline, plan.base).apply(plan) == 188
    exact = exact_weights(base, [(adapters / "ink.safetensors", 0.375), (adapters / "wash.safetensors", -0.75)])
    assert_rounded_once(state(pipeline), exact, dtype)


def test_block_scales_reach_every_tensor_of_a_block(base, adapters):
    text = 'ink={"unet": {"down": 0.25, "mid": 0, "up": {"block_1": [0.1, 0.2, 0.3]}}, "text_encoder": 0.5}'
    plan = plan_of(base, adapters, "ink.safetensors:2", block_scales=parse_block_scales([text]))

    def strength(module):
        component, *path = module.split(".")
        if component == "text_encoder":
            return 1.0
        if path[0] == "down_blocks":
            return 0.5
        if path[0] == "mid_block":
            return 0.0
        if path[:2] == ["up_blocks", "1"]:
            return 2 * ([0.1, 0.2, 0.3][int(path[3])] if path[2] in ("attentions", "resnets") else 0.3)
        return 2.0

    pipeline = open_pipeline(plan.base, CPU, torch.float32)
    FusedWeights(pipeline, plan.base).apply(plan)
    assert_rounded_once(state(pipeline), exact_weights(base, [(adapters / "ink.safetensors", strength)]), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_changing_weights_never_compounds_and_restores_exactly(base, adapters, dtype):
    plan = plan_of(base, adapters, "ink.safetensors:0.7")
    pipeline = open_pipeline(plan.base, CPU, dtype)
    before = state(pipeline)
    fused = FusedWeights(pipeline, plan.base)
    fused.apply(plan)
    first = state(pipeline)
    assert any(not torch.equal(first[name], before[name]) for name in before)
    fused.apply(plan_of(base, adapters, "wash.safetensors:3"))
    fused.apply(plan)
    again = state(pipeline)
    assert all(torch.equal(first[name], again[name]) for name in first)
    fused.restore()
    after = state(pipeline)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_tensors_whose_terms_differ_are_rewritten(base, adapters):
    specs = ("ink.safetensors:0.7", "wash.safetensors:1")
    plan = plan_of(base, adapters, *specs)
    pipeline = open_pipeline(plan.base, CPU, torch.float32)
    fused = FusedWeights(pipeline, plan.base)
    assert fused.apply(plan) == 188
    assert fused.apply(plan_of(base, adapters, *specs)) == 0
    assert fused.apply(plan_of(base, adapters, "ink.safetensors:0.7", "wash.safetensors:2")) == 132
    mid = parse_block_scales(['ink={"unet": {"mid": 0.5}}'])
    changed = fused.apply(plan_of(base, adapters, "ink.safetensors:0.7", "wash.safetensors:2", block_scales=mid))
    assert changed == sum(t.tensor.startswith("mid_block") for t in plan.terms)


def test_fp32_base_is_rounded_once_to_the_dtype_asked_for(tmp_path, adapters):
    from tests.tiny import build_pipeline

    build_pipeline().save_pretrained(tmp_path / "fp32")
    plan = plan_of(tmp_path / "fp32", adapters, "ink.safetensors:1")
    pipeline = open_pipeline(plan.base, CPU, torch.bfloat16)
    FusedWeights(pipeline, plan.base).apply(plan)
    exact = exact_weights(tmp_path / "fp32", [(adapters / "ink.safetensors", 1.0)])
    assert_rounded_once(state(pipeline), exact, torch.bfloat16)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_what_is_not_finite_is_refused_and_the_base_restored(base, adapters, tmp_path, value):
    def spoil(tensors):
        name = "unet.mid_block.attentions.0.proj_in.lora_B.weight"
        tensors[name] = torch.full_like(tensors[name], value)
        return tensors

    rewrite(adapters / "ink.safetensors", tmp_path / "bad.safetensors", spoil)
    plan = plan_of(base, tmp_path, "bad.safetensors")
    pipeline = open_pipeline(plan.base, CPU, torch.float16)
    before = state(pipeline)
    with pytest.raises(LoraFileError, match=r"unet\.mid_block\.attentions\.0\.proj_in\.weight with bad is not finite"):
        FusedWeights(pipeline, plan.base).apply(plan)
    after = state(pipeline)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_large_but_finite_is_taken(base, adapters, tmp_path):
    """The sum of all values of a tensor does not fit fp32, each of them does."""

    def enlarge(tensors):
        name = "unet.mid_block.attentions.0.proj_in.lora_B.weight"
        tensors[name] = torch.full_like(tensors[name], 1e37, dtype=torch.float32)
        tensors[name.replace("lora_B", "lora_A")].fill_(1)
        return tensors

    rewrite(adapters / "ink.safetensors", tmp_path / "large.safetensors", enlarge)
    plan = plan_of(base, tmp_path, "large.safetensors")
    pipeline = open_pipeline(plan.base, CPU, torch.float32)
    FusedWeights(pipeline, plan.base).apply(plan)
    weight = pipeline.unet.mid_block.attentions[0].proj_in.weight
    assert torch.isfinite(weight).all()
    assert torch.isinf(weight.sum())


def test_tensors_are_kept_as_long_as_there_is_room(adapters):
    path = adapters / "ink.safetensors"
    values = load_file(path)
    room = sum(value.nbytes for value in values.values()) // 2
    kept = KeptTensors(room)
    with TensorReader(CPU, kept) as reader:
        first = {name: reader.read(path, name) for name in values}
        second = {name: reader.read(path, name) for name in values}
    assert all(torch.equal(second[name], value) for name, value in values.items())
    same = sum(value.nbytes for name, value in first.items() if second[name] is value)
    assert room * 0.9 < same <= room
    # Rows are read, never cut out of what was kept.
    with TensorReader(CPU, kept) as reader:
        name = next(name for name in values if second[name] is first[name] and values[name].shape[0] > 2)
        assert torch.equal(reader.read(path, name, (1, 3)), values[name][1:3])


def test_large_tensors_take_no_room_from_small_ones(adapters):
    path = adapters / "ink.safetensors"
    values = load_file(path)
    largest = sorted(value.nbytes for value in values.values())[len(values) // 2]
    kept = KeptTensors(largest=largest)
    with TensorReader(CPU, kept) as reader:
        first = {name: reader.read(path, name) for name in values}
        assert all((reader.read(path, name) is value) == (value.nbytes <= largest) for name, value in first.items())


def test_what_breaks_off_is_made_good_by_the_next_plan(base, adapters, tmp_path):
    """A file that is cut off while weights change: nobody knows then which of them hold what."""
    for name in ("ink", "wash"):
        (tmp_path / f"{name}.safetensors").write_bytes((adapters / f"{name}.safetensors").read_bytes())
    plan = plan_of(base, tmp_path, "ink.safetensors:0.7", "wash.safetensors:1")
    pipeline = open_pipeline(plan.base, CPU, torch.float32)
    before = state(pipeline)
    fused = FusedWeights(pipeline, plan.base)
    with (tmp_path / "wash.safetensors").open("r+b") as file:
        file.truncate(tmp_path.joinpath("wash.safetensors").stat().st_size // 2)
    with pytest.raises(CorruptFileError):
        fused.apply(plan)
    (tmp_path / "wash.safetensors").write_bytes((adapters / "wash.safetensors").read_bytes())
    assert fused.apply(plan) == 188
    exact = exact_weights(base, [(adapters / "ink.safetensors", 0.7), (adapters / "wash.safetensors", 1.0)])
    assert_rounded_once(state(pipeline), exact, torch.float32)
    fused.restore()
    assert all(torch.equal(before[name], value) for name, value in state(pipeline).items())


def run(pipeline):
    generator = torch.Generator().manual_seed(3)
    options = {"num_inference_steps": 4, "guidance_scale": 4.0, "output_type": "np"}
    return torch.from_numpy(pipeline("a red heart", generator=generator, **options).images)


def test_attached_and_fused_give_one_picture_within_rounding(base, adapters):
    scales = parse_block_scales(['ink={"unet": {"up": {"block_0": 0.5, "block_1": [0.2, 0, 1]}}}'])
    plan = plan_of(base, adapters, "ink.safetensors:0.6", "wash.safetensors:0.8", block_scales=scales)
    plain = run(open_pipeline(plan.base, CPU, torch.float32))
    pipeline = open_pipeline(plan.base, CPU, torch.float32)
    FusedWeights(pipeline, plan.base).apply(plan)
    fused = run(pipeline)
    pipeline = open_pipeline(plan.base, CPU, torch.float32)
    attach(pipeline, plan)
    attached = run(pipeline)
    assert (fused - plain).abs().max() > 0.01
    assert (fused - attached).abs().max() < 1e-4
    # What peft would merge is what was fused: the two engines agree on the weights too.
    reference = open_pipeline(plan.base, CPU, torch.float32)
    FusedWeights(reference, plan.base).apply(plan)
    weights = dict(reference.unet.named_parameters())
    layers = [(n, m) for n, m in pipeline.unet.named_modules() if hasattr(m, "get_delta_weight")]
    assert len(layers) > 100
    for name, layer in layers:
        merged = layer.base_layer.weight + sum(layer.get_delta_weight(adapter) for adapter in layer.lora_A)
        assert torch.allclose(merged, weights[f"{name}.weight"], atol=1e-5)


def test_a_layer_that_peft_does_not_run_is_not_attached(base, adapters, tmp_path):
    def embedding(tensors):
        table = load_file(base / "text_encoder" / "model.safetensors")
        (name,) = (name for name in table if name.endswith("token_embedding.weight"))
        tokens, width = table[name].shape
        stem = f"text_encoder.{name.removesuffix('.weight')}"
        return {f"{stem}.lora_A.weight": torch.ones(1, width), f"{stem}.lora_B.weight": torch.ones(tokens, 1)}

    rewrite(adapters / "ink.safetensors", tmp_path / "words.safetensors", embedding)
    plan = plan_of(base, tmp_path, "words.safetensors")
    with pytest.raises(UnsupportedError, match=r"token_embedding\.weight, which is no linear layer"):
        attach(open_pipeline(plan.base, CPU, torch.float32), plan)


@pytest.mark.cuda
def test_cuda_equals_fp64_too(base, adapters):
    plan = plan_of(base, adapters, "ink.safetensors:0.75")
    pipeline = open_pipeline(plan.base, choose_device("cuda"), torch.float16)
    FusedWeights(pipeline, plan.base).apply(plan)
    exact = exact_weights(base, [(adapters / "ink.safetensors", 0.75)])
    assert_rounded_once({name: value.cpu() for name, value in state(pipeline).items()}, exact, torch.float16)
