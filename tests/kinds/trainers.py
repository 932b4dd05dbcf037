"""What trainers write and what they make of it: LyCORIS modules and PEFT models around one small layer."""

import copy
import importlib
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn


def layer(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Make a layer with random values: `linear`, `square`, `conv1`, `conv3`, `wide` (1x3), `line` (1-D), `cube`."""
    torch.manual_seed(0)
    made = {
        "linear": lambda: nn.Linear(12, 16),
        "square": lambda: nn.Linear(16, 16),
        "conv1": lambda: nn.Conv2d(12, 16, 1),
        "conv3": lambda: nn.Conv2d(12, 16, 3),
        "square_conv": lambda: nn.Conv2d(16, 16, 3),
        "wide": lambda: nn.Conv2d(12, 16, (1, 3)),
        "line": lambda: nn.Conv1d(12, 16, 3),
        "cube": lambda: nn.Conv3d(4, 6, 3),
    }[name]()
    return made.to(dtype)


def randomise(module: nn.Module, around: float = 0.0, width: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * width
            parameter.copy_(around + noise)


def lycoris_modules(name: str) -> ModuleType:
    """Give one of LyCORIS's modules; without the package the test is skipped."""
    pytest.importorskip("lycoris", reason="needs lycoris-lora with what it depends on")
    return importlib.import_module(f"lycoris.modules.{name}")


def lycoris(module_class: type[nn.Module], base: nn.Module, width: float = 0.3, **options: object) -> nn.Module:
    """Make a LyCORIS module around a layer, all its parameters random; a DoRA magnitude moves from where it starts."""
    made = module_class("stem", base, **options).to(base.weight.dtype)
    magnitude = getattr(made, "dora_scale", None)
    if magnitude is not None:
        magnitude = magnitude.detach().to(base.weight.dtype)
    randomise(made, width=width)
    if magnitude is not None:
        made.dora_scale = nn.Parameter(magnitude * torch.linspace(0.5, 2.0, magnitude.numel()).reshape(magnitude.shape))
    return made.eval()


@dataclass(frozen=True)
class PeftResult:
    """The tensors PEFT saves, the layer's parameters before and after merging, and both outputs for one input."""

    tensors: dict[str, Tensor]
    base: nn.Module
    merged: nn.Module
    adapted: Tensor
    output: Tensor


def peft(config: object, base: nn.Module, inputs: Tensor, width: float = 0.3) -> PeftResult:
    """Adapt a layer by a PEFT configuration for the module `0`, with random factors, and merge it."""
    from peft import get_peft_model, get_peft_model_state_dict

    model = get_peft_model(nn.Sequential(copy.deepcopy(base)), config).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "base_layer" in name or "ranknum" in name:
                continue
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * width
            # Magnitudes and factors of IA3 multiply: they are moved, not replaced.
            multiplies = any(part in name for part in ("magnitude", "ia3_l", "boft_s"))
            parameter.copy_(parameter * noise.exp() if multiplies else noise)
        saved = get_peft_model_state_dict(model)
        tensors = {key.removeprefix("base_model.model.0."): value.clone() for key, value in saved.items()}
        adapted = model(inputs)
        merged = model.merge_and_unload()
        return PeftResult(tensors, base, merged[0], adapted, merged(inputs))
