"""What weights come to, in fp64 with plain torch, from the files alone: names and metadata are read without lorakit."""

import json
import re

import torch
from safetensors import safe_open
from safetensors.torch import load_file


def folder_weights(folder):
    """Load all weights of a pipeline's folder, by component and name."""
    return {
        f"{file.parent.name}.{name}": value
        for file in sorted(folder.glob("*/*.safetensors"))
        for name, value in load_file(file).items()
    }


def exact_weights(base, parts):
    """Recompute all weights in fp64 with plain torch, reading file names and metadata without lorakit."""
    weights = {}
    for name, value in folder_weights(base).items():
        weights[name] = value.double()
    for path, strength in parts:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            settings = json.loads(file.metadata()["lora_adapter_metadata"])
        for key, down in tensors.items():
            if ".lora_A." not in key and "lora_linear_layer.down" not in key:
                continue
            up = tensors[key.replace(".lora_A.", ".lora_B.").replace("layer.down", "layer.up")]
            module = key.split(".lora_")[0]
            component, name = module.split(".", 1)
            patterns = settings[f"{component}.alpha_pattern"].items()
            common = settings[f"{component}.lora_alpha"]
            alpha = next((value for end, value in patterns if re.search(rf"(^|\.){end}$", name)), common)
            scale = alpha / down.shape[0]
            s = strength(module) if callable(strength) else strength
            delta = torch.einsum("or,ri->oi", up.double().flatten(1), down.double().flatten(1)) * scale * s
            target = weights[f"{module}.weight"]
            target += delta.view(target.shape)
    return weights


def assert_rounded_once(actual, exact, dtype):
    assert actual.keys() == exact.keys()
    for name, value in actual.items():
        assert value.dtype == dtype
        # Half a unit in the last place of `dtype`, and what fp32 sums may lose.
        error = (value.double() - exact[name]).abs()
        bound = exact[name].abs() * torch.finfo(dtype).eps * 0.501 + 1e-6
        assert (error <= bound).all(), (name, error.max())
