"""Put a plan beside the weights of a loaded pipeline: peft layers that run with it, unfused."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer as PeftLayer
from torch import nn

from lorakit_cli.core.plan import Plan, Term
from lorakit_cli.errors import LoraFileError, UnsupportedError
from lorakit_cli.kinds.lora import LORA
from lorakit_cli.service.pipeline import LiveComponent
from lorakit_cli.service.quantized import quantized_components
from lorakit_cli.service.tensors import TensorReader

# torch keeps adapters as attributes, where a name such as "pop" is taken.
_PREFIX = "lorakit_"
# What peft wraps with factors called as in LoRA's paper, or has wrapped already.
_RUNNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, PeftLayer)


def attach(pipeline: Any, plan: Plan) -> None:
    """Attach every adapter of a plan through peft, its strengths folded into `up`.

    peft and diffusers get no alpha, weight or scale to interpret: each is 1. Raises UnsupportedError for
    algorithms peft's LoRA layers cannot run, LoraFileError for factors that are not finite.
    """
    terms: dict[tuple[str, str], dict[str, Term]] = {}
    live: dict[str, LiveComponent] = {}
    for target, parts in plan.changes():
        name = target.component
        if name not in live:
            live[name] = LiveComponent(pipeline, plan.base.components[name])
        for term in parts:
            module, _, parameter = live[name].name_of(term.part.parameter).rpartition(".")
            if term.layer.kind is not LORA or len(term.whole) > 1 or live[name].is_swapped(term.part):
                what = (
                    term.layer.kind.name
                    if term.layer.kind is not LORA
                    else "layers of several modules or with rows in another order"
                )
                raise UnsupportedError(f"{term.adapter} uses {what}, which peft cannot attach; {_instead(plan)}")
            if parameter != "weight" or not isinstance(live[name].module.get_submodule(module), _RUNNABLE):
                raise UnsupportedError(
                    f"{term.adapter} changes {name}.{term.part.parameter}, which is no linear layer or convolution, so "
                    f"that peft cannot attach it; {_instead(plan)}"
                )
            terms.setdefault((name, term.adapter), {})[module] = term
    with TensorReader(pipeline.device) as reader:
        for (name, adapter), modules in terms.items():
            _inject(live[name].module, _PREFIX + adapter, modules)
            finite = _fill(live[name].module, _PREFIX + adapter, modules, reader)
            if not torch.stack(finite).all():
                raise LoraFileError(f"adapter {adapter} holds NaN or infinity, or its values do not fit the dtype")
    for name, component in live.items():
        names = [_PREFIX + adapter for part, adapter in terms if part == name]
        for layer in component.module.modules():
            if isinstance(layer, PeftLayer):
                layer.set_adapter(names)


def _instead(plan: Plan) -> str:
    if quantized_components(plan.base):
        return "a quantized base cannot take it any other way: take the model that it was made from"
    return "leave --attach out"


def detach(pipeline: Any) -> None:
    """Take out all that was attached: every layer is the base's own again."""
    for component in pipeline.components.values():
        if not isinstance(component, nn.Module):
            continue
        for name, layer in list(component.named_modules()):
            if isinstance(layer, PeftLayer):
                parent, _, last = name.rpartition(".")
                setattr(component.get_submodule(parent), last, layer.get_base_layer())
        for trace in ("peft_config", "_hf_peft_config_loaded"):
            if trace in component.__dict__:
                delattr(component, trace)


def _inject(component: nn.Module, adapter: str, modules: Mapping[str, Term]) -> None:
    # Whole names only: peft takes a bare name for every module that ends in it.
    ranks = {rf"^{re.escape(module)}$": term.layer.rank for module, term in modules.items()}
    config = LoraConfig(
        r=1,
        lora_alpha=1,
        target_modules="|".join(re.escape(module) for module in modules),
        rank_pattern=ranks,
        alpha_pattern=ranks,
    )
    inject_adapter_in_model(config, component, adapter)
    component.eval().requires_grad_(False)


@torch.no_grad()
def _fill(component: nn.Module, adapter: str, modules: Mapping[str, Term], reader: TensorReader) -> list[torch.Tensor]:
    """Write the factors into peft's layers; give a flag per tensor that says whether it is finite."""
    finite: list[torch.Tensor] = []
    for name, term in modules.items():
        layer: Any = component.get_submodule(name)
        factors = reader.factors(term)
        down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        down.copy_(factors["down"].reshape(down.shape))
        up.copy_((factors["up"].float() * (term.strength * term.layer.scale)).reshape(up.shape))
        finite += [torch.isfinite(down).all(), torch.isfinite(up).all()]
    return finite
