"""What diffusers' own `load_lora_weights` makes of a file: the change of every layer it has put an adapter on."""

import copy
from pathlib import Path

import diffusers
import torch
from torch import Tensor, nn

from tests.dialects.judging import Changes

_PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "flux": "FluxPipeline",
    "sd3": "StableDiffusion3Pipeline",
}
_ABSENT = {
    "sd1": ("vae", "tokenizer", "scheduler", "safety_checker", "feature_extractor"),
    "sdxl": ("vae", "tokenizer", "tokenizer_2", "scheduler"),
    "flux": ("vae", "tokenizer", "tokenizer_2", "scheduler"),
    "sd3": ("vae", "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"),
}


def loaded(family: str, parts: dict[str, nn.Module], path: Path) -> Changes:
    """Load a file into copies of the models; give what it changes, in fp64, by component and parameter."""
    models = {name: copy.deepcopy(part) for name, part in parts.items()}
    more = {"requires_safety_checker": False} if family == "sd1" else {}
    pipeline_class = getattr(diffusers, _PIPELINES[family])
    pipeline = pipeline_class(**models, **dict.fromkeys(_ABSENT[family]), **more)
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="a")
    return {
        (component, f"{name}.weight"): _merged(module)
        for component, model in models.items()
        for name, module in model.named_modules()
        if "a" in getattr(module, "lora_A", ())
    }


def _merged(module: nn.Module) -> Tensor:
    before = module.double().base_layer.weight.detach().clone()
    module.merge(adapter_names=["a"])
    return module.base_layer.weight.detach() - before


def apart(found: Changes, wanted: Changes) -> set[tuple[str, str]]:
    """List the parameters that change in both, but not alike."""
    return {
        key
        for key in found.keys() & wanted.keys()
        if not torch.allclose(found[key], wanted[key].reshape(found[key].shape), rtol=1e-4, atol=1e-6)
    }
