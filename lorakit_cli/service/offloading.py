"""Keep the weights of a pipeline in memory, and on the device only what is being computed with."""

from typing import Any

import torch

from lorakit_cli.errors import UnsupportedError

# What diffusers calls the hooks of its group offloading.
_GROUP_HOOKS = ("lazy_prefetch_group_offloading", "layer_execution_tracker", "group_offloading")


def require_accelerator(how: str, device: torch.device) -> None:
    """Raise UnsupportedError where there is no device to move weights to."""
    if device.type == "cpu":
        raise UnsupportedError(
            f"--offload {how} needs cuda, xpu or mps, and this machine has only the CPU; leave it out, or save memory "
            "with --low-memory or --dtype bfloat16"
        )


def enable_offload(pipeline: Any, how: str, device: torch.device) -> None:
    """Let a pipeline on the CPU compute on a device, in the way `model`, `sequential` or `group`.

    Parameters that were taken out of the modules before stay those that are computed with: written in place, a change
    is seen by the next picture. Raises UnsupportedError for a pipeline without an order of its models.
    """
    try:
        if how == "group":
            pipeline.enable_group_offload(
                onload_device=device,
                offload_type="leaf_level",
                use_stream=device.type == "cuda",
                low_cpu_mem_usage=True,
            )
        elif how == "sequential":
            pipeline.enable_sequential_cpu_offload(device=device)
        else:
            pipeline.enable_model_cpu_offload(device=device)
    except ValueError as error:
        raise UnsupportedError(f"{type(pipeline).__name__} cannot be offloaded: {error}") from error


def disable_offload(pipeline: Any, how: str) -> None:
    """Bring a pipeline back as it was before it was offloaded, its weights on the CPU."""
    if how == "group":
        for component in pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                _remove_group_hooks(component)
    pipeline.remove_all_hooks()
    pipeline.to("cpu", silence_dtype_warnings=True)


def _remove_group_hooks(component: torch.nn.Module) -> None:
    for module in component.modules():
        registry: Any = getattr(module, "_diffusers_hook", None)
        for name in _GROUP_HOOKS if registry else ():
            registry.remove_hook(name, recurse=False)
