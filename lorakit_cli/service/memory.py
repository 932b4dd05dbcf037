"""What to do about too little memory: know it when it happens, and say which options would help."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lorakit_cli.core.loading import Loading
from lorakit_cli.errors import UnsupportedError


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether torch ran out of memory, on a GPU or on the CPU, which has no exception of its own for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@contextmanager
def enough_memory(advice: str = "--device cpu, or another --dtype") -> Iterator[None]:
    """Raise UnsupportedError with what would help where torch runs out of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UnsupportedError(f"there is not enough memory; try {advice}") from error


def saving_advice(loading: Loading, device: torch.device, dtype: torch.dtype) -> str:
    """List the options that would save memory and are not in use yet, those that cost the least time first."""
    offload = {None: "--offload model", "model": "--offload group", "group": "--offload sequential"}
    cpu = device.type == "cpu"
    ways = [
        f"--dtype {'bfloat16' if cpu else 'float16'}" if dtype is torch.float32 else None,
        None if loading.low_memory else "--low-memory",
        None if cpu else offload.get(loading.offload),
        "a smaller --width and --height",
        None if cpu else "--device cpu",
    ]
    named = [way for way in ways if way]
    return f"{', '.join(named[:-1])} or {named[-1]}" if len(named) > 1 else named[0]
