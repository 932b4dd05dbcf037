"""Take out of a loaded pipeline what was attached: its own layers in their places again."""

from typing import Any

from peft.tuners.lora import LoraLayer as PeftLayer
from torch import nn


def detach(pipeline: Any) -> None:
    """Put every layer back that a peft layer stands around; weights were never touched, so that nothing is restored."""
    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            _unwrap(component)
            # peft refuses a second configuration of a name that it still knows.
            if hasattr(component, "peft_config"):
                del component.peft_config


def _unwrap(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, PeftLayer):
            setattr(module, name, child.get_base_layer())
        else:
            _unwrap(child)
