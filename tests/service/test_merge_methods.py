"""The pruning methods, held against peft's `add_weighted_adapter` on real models."""

import hashlib
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tests.conversions import Factors, as_kohya, expected, write
from tests.merging import KOHYA, best, distance, done, read, refused

MODULES = {
    "linear": "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "wide": "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    "conv": "down_blocks.1.resnets.0.conv1",
}
LAYERS = {"linear": (16, 16), "wide": (16, 32), "conv": (16, 8, 3, 3)}
BOTH = ("first", "second")
PLAIN = ("ties", "dare_linear", "dare_ties", "magnitude_prune")


class Model(nn.Module):
    """A model with layers of the shapes of the tiny UNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.wide = nn.Linear(16, 16), nn.Linear(32, 16)
        self.conv = nn.Conv2d(8, 16, 3)


def random_model(*names, ranks=(3, 3), alphas=(6, 1.5)):
    """Make a peft model with random adapters under both names."""
    torch.manual_seed(0)
    configs = [
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(names))
        for rank, alpha in zip(ranks, alphas, strict=True)
    ]
    model = get_peft_model(Model(), configs[0], adapter_name=BOTH[0])
    model.add_adapter(BOTH[1], configs[1])
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape)
    return model


def layer_of(model, name):
    return getattr(model.base_model.model, name)


def factors_of(model, adapter, names):
    """Read an adapter of a peft model, by the modules of the tiny UNet."""
    found = {}
    for name in names:
        layer = layer_of(model, name)
        down, up = (part[adapter].weight.detach() for part in (layer.lora_A, layer.lora_B))
        found["unet", MODULES[name]] = Factors(down, up, layer.scaling[adapter] * down.shape[0])
    return found


@pytest.fixture
def merged(lorakit, base, here):
    """Merge the adapters of a peft model with lorakit; give what the file changes, and the report."""

    def run(model, names, weights, method, *options):
        specs = []
        for adapter, weight in zip(BOTH, weights, strict=True):
            write(here / f"{adapter}.safetensors", as_kohya(factors_of(model, adapter, names), KOHYA))
            specs += ["--lora", f"./{adapter}.safetensors:{weight}"]
        options = ["--method", method, *options, "--base", base, "--out", "out.safetensors", "--overwrite", "--json"]
        report = done(lorakit("merge", *specs, *options))
        return read(base, here / "out.safetensors"), report

    return run


def by_peft(model, names, weights, method, **options):
    """Merge with peft, and give the changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.add_weighted_adapter(list(BOTH), list(weights), "merged", method, **options)
    found = {}
    for name in names:
        layer = layer_of(model, name)
        down, up = (part["merged"].weight.detach().double() for part in (layer.lora_A, layer.lora_B))
        change = up.flatten(1) @ down.flatten(1) * layer.scaling["merged"]
        found["unet", MODULES[name]] = change.reshape(layer.get_base_layer().weight.shape)
    return found


def seed_of(seed, name):
    """Give the number that what is drawn for a module begins with."""
    stem = "lora_unet_" + MODULES[name].replace(".", "_")
    return int.from_bytes(hashlib.sha256(f"{seed}/{stem}/weight".encode()).digest()[:7], "little")


@pytest.mark.parametrize("weights", [(0.7, 0.4), (1, -0.5)])
@pytest.mark.parametrize("options", [(0.3, "total"), (0.8, "frequency")])
@pytest.mark.parametrize("method", ["cat", "svd", "ties", "magnitude_prune", "ties_svd", "magnitude_prune_svd"])
def test_peft_comes_to_the_same(merged, method, options, weights):
    names = list(LAYERS)
    if method == "ties_svd" and min(weights) < 0:
        pytest.skip("peft elects signs as if all weights were positive; see below")
    density, sign = options
    given, ours = {}, []
    if "ties" in method or "prune" in method:
        given["density"], ours = density, ["--density", density]
    if "ties" in method:
        given["majority_sign_method"], ours = sign, [*ours, "--majority-sign", sign]
    if "svd" in method:
        given["svd_rank"], ours = 4, [*ours, "--rank", 4]
    model = random_model(*names)
    found, _ = merged(model, names, weights, method, *ours)
    assert distance(found, by_peft(model, names, weights, method, **given)) < 1e-5


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "dare_linear_svd", "dare_ties_svd"])
def test_peft_comes_to_the_same_from_the_same_lots(merged, method, name):
    model = random_model(name)
    ours = ["--rank", 4] if "svd" in method else []
    found, _ = merged(model, [name], (0.7, 0.4), method, "--density", 0.6, "--seed", 5, *ours)
    given = {"svd_rank": 4} if "svd" in method else {}
    state = torch.get_rng_state()
    model.add_adapter("merged", LoraConfig(r=4 if ours else 3, lora_alpha=4 if ours else 3, target_modules=[name]))
    torch.set_rng_state(state)
    found_by_peft = drawn_by_peft(model, name, method, seed_of(5, name), given)
    assert distance(found, found_by_peft) < 1e-5
    other, _ = merged(model, [name], (0.7, 0.4), method, "--density", 0.6, "--seed", 6, *ours)
    assert distance(other, found_by_peft) > 0.1


def drawn_by_peft(model, name, method, seed, given):
    """Let peft's own function for one layer draw from a seed: making the adapter draws as well."""
    layer, tuner = layer_of(model, name), model.base_model
    target = layer.lora_A["merged"].weight, layer.lora_B["merged"].weight
    torch.manual_seed(seed)
    if "svd" in method:
        rank = given["svd_rank"]
        down, up = tuner._svd_generalized_task_arithmetic_weighted_adapter(
            method, list(BOTH), [0.7, 0.4], rank, layer, *target, 0.6, "total"
        )
    else:
        down, up = tuner._generalized_task_arithmetic_weighted_adapter(
            method, list(BOTH), [0.7, 0.4], layer, 0.6, "total"
        )
    change = up.detach().double().flatten(1) @ down.detach().double().flatten(1)
    return {("unet", MODULES[name]): change.reshape(layer.get_base_layer().weight.shape)}


def test_what_is_drawn_keeps_the_share_and_the_expectation(merged):
    """Beside a weight of 0 the other change is seen alone: kept values are divided by the density."""
    model = random_model("conv")
    (change,) = expected(factors_of(model, BOTH[0], ["conv"])).values()
    found, _ = merged(model, ["conv"], (1, 0), "dare_linear_svd", "--density", 0.25, "--energy", 1.0)
    (kept,) = found.values()
    there = kept.abs() > 1e-4
    assert 0.2 < float(there.double().mean()) < 0.3
    assert torch.allclose(kept[there], 4 * change[there], atol=1e-3)


def test_a_negative_weight_turns_the_change_before_signs_are_elected(merged):
    """What is taken away is a change the other way: merging with the negated adapter comes to the same."""
    names = ["linear"]
    model = random_model(*names)
    options = ["--density", 0.5, "--rank", 5]
    found, _ = merged(model, names, (1, -0.5), "ties_svd", *options)
    layer = layer_of(model, "linear")
    layer.lora_B[BOTH[1]].weight.data.neg_()
    same, _ = merged(model, names, (1, 0.5), "ties_svd", *options)
    assert distance(found, same) < 1e-6


def test_linear_is_what_peft_makes_of_equal_factors(merged):
    names = ["linear", "conv"]
    model = random_model(*names)
    for name in names:
        layer = layer_of(model, name)
        layer.lora_A[BOTH[1]].weight.data = layer.lora_A[BOTH[0]].weight.data.clone()
    found, report = merged(model, names, (0.7, -0.4), "linear")
    wanted = {
        key: each * 0.7 - 0.4 * expected(factors_of(model, BOTH[1], names))[key]
        for key, each in expected(factors_of(model, BOTH[0], names)).items()
    }
    assert distance(found, wanted) < 1e-6
    assert report["rank_after"] == [3, 3]


def test_the_error_is_that_against_the_exact_sum(merged):
    """Whatever a method makes of it, the report says how far it is from the weighted sum."""
    names = list(LAYERS)
    model = random_model(*names)
    one, two = (expected(factors_of(model, adapter, names)) for adapter in BOTH)
    exact = {key: 0.7 * one[key] + 0.4 * two[key] for key in one}
    for method, options in {name: ["--density", 0.5] for name in (*PLAIN, "ties_svd", "dare_linear_svd")}.items():
        found, report = merged(model, names, (0.7, 0.4), method, *options)
        assert report["error"] == pytest.approx(distance(found, exact), rel=1e-4)
        assert report["error"] > 0.05


def test_a_pruned_change_is_reduced_as_closely_as_can_be(merged):
    """Half of the values of each change left out, by hand."""
    names = ["wide"]
    model = random_model(*names)
    found, report = merged(model, names, (1, 1), "magnitude_prune_svd", "--density", 0.5, "--rank", 4)
    total = torch.zeros(16, 32, dtype=torch.float64)
    for adapter in BOTH:
        (change,) = expected(factors_of(model, adapter, names)).values()
        limit = change.abs().flatten().sort(descending=True).values[255]
        total += torch.where(change.abs() >= limit, change, 0)
    close, tail = best(total, 4)
    assert torch.allclose(found["unet", MODULES["wide"]], close, atol=1e-5)
    assert report["energy"] == pytest.approx(1 - (tail / float(total.norm())) ** 2, abs=1e-6)


def test_different_ranks_want_the_svd_form(lorakit, base, here):
    model = random_model("linear", ranks=(3, 4))
    specs = []
    for adapter in BOTH:
        write(here / f"{adapter}.safetensors", as_kohya(factors_of(model, adapter, ["linear"]), KOHYA))
        specs += ["--lora", f"./{adapter}.safetensors"]
    arguments = ["merge", *specs, "--base", base, "--out", "out.safetensors", "--density", 0.5, "--method"]
    refused(lorakit(*arguments, "ties"), "its ranks are 3 and 4; ties_svd works on the changes")
    assert done(lorakit(*arguments, "ties_svd", "--json"))["rank_after"] == [4, 4]


@pytest.mark.parametrize("keep", [("--rank", 2), ("--size", 30_000)])
def test_a_change_that_does_not_fit_fp32_is_refused(lorakit, base, here, keep):
    """Its factors do."""
    large = Factors(torch.full((3, 16), 1e25), torch.full((16, 3), 1e25), None)
    write(here / "large.safetensors", as_kohya({("unet", MODULES["linear"]): large}, KOHYA))
    arguments = ["merge", "--lora", "./large.safetensors", "--base", base, "--out", "out.safetensors", *keep]
    refused(lorakit(*arguments, "--method", "ties_svd", "--density", 0.5), "attn1_to_q is too large to be decomposed")
