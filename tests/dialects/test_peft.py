"""Adapters as peft writes them around the tiny models, judged by what peft itself merges."""

import copy
import json

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
)
from safetensors.torch import load_file

from lorakit_cli.errors import UnknownFormatError
from lorakit_cli.service.reading import open_adapter
from tests.dialects.judging import judge, write
from tests.dialects.trained import adapted, randomise

PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
WITH_CONVOLUTIONS = [*PROJECTIONS, "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv"]
CONFIGS = {
    "lora": LoraConfig(r=4, lora_alpha=2, target_modules=WITH_CONVOLUTIONS),
    "rank-stabilised": LoraConfig(r=4, lora_alpha=2, use_rslora=True, target_modules=WITH_CONVOLUTIONS),
    "patterns": LoraConfig(
        r=4,
        lora_alpha=2,
        rank_pattern={"to_q": 2, r"^down_blocks\.0\..*\.to_k": 8, "attn2.to_v": 3},
        alpha_pattern={"to_q": 5, r"down_blocks\.[01]\..*attn1\.to_v": 7, r"^mid_block.*conv1$": 3},
        use_rslora=True,
        target_modules=WITH_CONVOLUTIONS,
    ),
    "dora": LoraConfig(r=4, lora_alpha=2, use_dora=True, target_modules=WITH_CONVOLUTIONS),
    "bias": LoraConfig(r=4, lora_alpha=2, lora_bias=True, target_modules=["to_out.0", "conv1", "ff.net.2"]),
    "loha": LoHaConfig(r=4, alpha=2, target_modules=WITH_CONVOLUTIONS, alpha_pattern={"to_q": 7}),
    "loha, tucker": LoHaConfig(r=3, alpha=2, use_effective_conv2d=True, target_modules=WITH_CONVOLUTIONS),
    "lokr": LoKrConfig(r=2, alpha=3, target_modules=WITH_CONVOLUTIONS, rank_pattern={"to_q": 1}),
    "lokr, whole": LoKrConfig(r=64, alpha=3, target_modules=WITH_CONVOLUTIONS, rank_pattern={"to_q": 32}),
    "lokr, both": LoKrConfig(
        r=1, alpha=3, decompose_both=True, use_effective_conv2d=True, target_modules=WITH_CONVOLUTIONS
    ),
    "oft": OFTConfig(r=0, oft_block_size=4, target_modules=PROJECTIONS, use_cayley_neumann=False),
    "oft, series": OFTConfig(r=0, oft_block_size=4, target_modules=PROJECTIONS, num_cayley_neumann_terms=4),
    "oft, constrained": OFTConfig(r=0, oft_block_size=4, target_modules=PROJECTIONS, coft=True, eps=0.1),
    "oft, shared": OFTConfig(r=0, oft_block_size=4, target_modules=PROJECTIONS, block_share=True),
    "boft": BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=1, target_modules=PROJECTIONS),
    "ia3": IA3Config(target_modules=PROJECTIONS, feedforward_modules=["ff.net.2"]),
    "adalora": AdaLoraConfig(init_r=4, target_r=2, lora_alpha=3, total_step=9, target_modules=PROJECTIONS),
}  # fmt: skip


def merged_changes(component, model, made):
    """Give what peft's own merge changes, in fp64."""
    merged = dict(copy.deepcopy(made).double().merge_and_unload().named_parameters())
    differences = {name: merged[name].detach() - value.detach().double() for name, value in model.named_parameters()}
    return {(component, name): value for name, value in differences.items() if value.any()}


# What peft reckons with in single precision, whatever the weights are in.
INEXACT = {"oft": 1e-6, "boft": 1e-6, "loha": 1e-7}
ON_UNET = {"lora", "rank-stabilised", "patterns", "dora", "bias", "loha, tucker", "lokr, both", "ia3"}


@pytest.mark.parametrize("setting", CONFIGS)
def test_what_save_pretrained_writes(family, tmp_path, setting):
    folder, parts = family("sd1 small" if setting in ON_UNET else "flux")
    component, *_ = parts
    made = adapted(parts[component], CONFIGS[setting])
    made.save_pretrained(tmp_path / "saved")
    wanted = merged_changes(component, parts[component], made)
    assert len(wanted) > 10
    if setting == "ia3":
        # Of columns: the bias comes after them, so that its change is nothing.
        names = [name for name in dict(parts[component].named_parameters()) if name.endswith("ff.net.2.bias")]
        wanted |= {(component, name): torch.zeros(parts[component].get_parameter(name).shape) for name in names}
    judge(folder, tmp_path / "saved" / "adapter_model.safetensors", wanted, INEXACT.get(setting.split(",")[0], 1e-9))


@pytest.mark.parametrize("name", ["sd1", "sdxl", "flux", "sd3", "lumina2"])
def test_a_text_encoder_alone(family, tmp_path, name):
    folder, parts = family(name)
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "o_proj", "fc1", "token_embedding", "q", "k", "v", "o"]
    for component in (part for part in parts if part.startswith("text")):
        made = adapted(parts[component], LoraConfig(r=2, lora_alpha=3, target_modules=targets))
        made.save_pretrained(tmp_path / component)
        wanted = merged_changes(component, parts[component], made)
        judge(folder, tmp_path / component / "adapter_model.safetensors", wanted, 1e-9)


@pytest.mark.parametrize("version", [None, "0.17.1", "0.18.0", "0.18.1.dev0@abc", "unknown"])
def test_the_last_power_of_a_series_counts_twice_before_peft_0_18(family, tmp_path, version):
    folder, parts = family("flux")
    made = adapted(parts["transformer"], OFTConfig(r=0, oft_block_size=4, target_modules=["proj_mlp"]))
    made.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    terms = settings["num_cayley_neumann_terms"]
    settings = {key: value for key, value in settings.items() if key != "peft_version"}
    settings |= {} if version is None else {"peft_version": version}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    (packed,) = load_file(tmp_path / "adapter_model.safetensors").values()
    skew = torch.zeros(len(packed), 4, 4, dtype=torch.float64)
    row, column = torch.triu_indices(4, 4, 1)
    skew[:, row, column] = packed.double()
    skew -= skew.mT.clone()
    tail = 1 if version and version.startswith("0.18") else 2
    turn = torch.eye(4) + sum(
        (2 if power < terms - 1 else tail) * torch.linalg.matrix_power(skew, power) for power in range(1, terms)
    )
    weight = parts["transformer"].get_parameter("single_transformer_blocks.0.proj_mlp.weight").detach().double()
    wanted = weight @ torch.block_diag(*turn).T - weight
    place = ("transformer", "single_transformer_blocks.0.proj_mlp.weight")
    judge(folder, tmp_path / "adapter_model.safetensors", {place: wanted})


def injected(model, **options):
    """Train an adapter inside a model, as diffusers' scripts do; give it with its change."""
    inside = inject_adapter_in_model(LoraConfig(**options), copy.deepcopy(model))
    randomise(inside)
    return inside


def injected_changes(component, inside):
    return {
        (component, f"{name}.weight"): module.get_delta_weight("default").double()
        for name, module in inside.double().named_modules()
        if hasattr(module, "get_delta_weight")
    }


def test_what_save_lora_weights_writes_with_its_metadata(family, tmp_path):
    folder, parts = family("sdxl")
    settings = {
        "unet": {"rank_pattern": {"to_k": 2}, "alpha_pattern": {"to_q": 6}, "target_modules": WITH_CONVOLUTIONS},
        "text_encoder": {"use_rslora": True, "target_modules": ["q_proj", "fc1"]},
        "text_encoder_2": {"alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 9}, "target_modules": ["q_proj", "fc2"]},
    }
    states, metadata, wanted = {}, {}, {}
    for component, options in settings.items():
        inside = injected(parts[component], r=4, lora_alpha=2, **options)
        states[component] = get_peft_model_state_dict(inside)
        metadata[f"{component}_lora_adapter_metadata"] = inside.peft_config["default"].to_dict()
        wanted |= injected_changes(component, inside)
    StableDiffusionXLPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=states["unet"],
        text_encoder_lora_layers=states["text_encoder"],
        text_encoder_2_lora_layers=states["text_encoder_2"],
        **metadata,
    )
    judge(folder, tmp_path / "pytorch_lora_weights.safetensors", wanted, 1e-9)


def test_what_save_lora_adapter_writes(family, tmp_path):
    folder, parts = family("flux")
    model = copy.deepcopy(parts["transformer"])
    model.add_adapter(LoraConfig(r=4, lora_alpha=3, target_modules=PROJECTIONS))
    randomise(model)
    model.save_lora_adapter(tmp_path)
    judge(folder, tmp_path / "pytorch_lora_weights.safetensors", injected_changes("transformer", model), 1e-9)


def test_the_raw_state_of_a_model_in_memory(family, tmp_path):
    folder, parts = family("wan")
    inside = injected(parts["transformer"], r=2, lora_alpha=2, use_dora=True, target_modules=PROJECTIONS[:4])
    tensors = {key: value for key, value in inside.state_dict().items() if ".lora_" in key}
    assert any(".lora_A.default.weight" in key for key in tensors)
    assert any(".lora_magnitude_vector.default.weight" in key for key in tensors)
    merged = copy.deepcopy(inside).double()
    wanted = {}
    for name, module in merged.named_modules():
        if hasattr(module, "get_delta_weight"):
            before = module.base_layer.weight.detach().clone()
            module.merge()
            wanted["transformer", f"{name}.weight"] = module.base_layer.weight.detach() - before
    judge(folder, write(tmp_path / "a.safetensors", tensors), wanted, 1e-9)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"init_lora_weights": "pissa"}, "a base changed by pissa"),
        ({"init_lora_weights": "pissa_niter_4"}, "a base changed by pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "a base changed by olora"),
        ({"modules_to_save": ["conv_in"]}, "whole modules"),
        ({"layer_replication": [[0, 2]]}, "replicated layers"),
        ({"fan_in_fan_out": True}, "transposed weights"),
        ({"init_lora_weights": "lora_ga"}, "a base changed by lora_ga"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"trainable_token_indices": [1]}, "trained tokens"),
        ({"use_bdlora": {"nblocks": 2}}, "block-diagonal factors"),
        ({"kasa_config": {"beta": 1}}, "a base cut down by KaSA"),
    ],
)
def test_what_is_more_than_the_factors_is_named(family, tmp_path, config, message):
    _, parts = family("sd1 small")
    made = adapted(parts["unet"], LoraConfig(r=2, target_modules=["to_q"]))
    made.save_pretrained(tmp_path)
    settings = tmp_path / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | config))
    with pytest.raises(UnknownFormatError, match=f"adapter_config.json uses {message}"):
        open_adapter(tmp_path / "adapter_model.safetensors")
