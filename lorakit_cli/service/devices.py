"""The devices of this machine that torch can compute on."""

import torch

from lorakit_cli.errors import OptionError, UnsupportedError


def choose_device(asked: str) -> torch.device:
    """Give the device asked for; `auto` is cuda, else mps, else cpu. Raises UnsupportedError where it is missing."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise OptionError(f"{asked!r} is no device; use auto, cuda, cuda:1, mps or cpu") from error
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if not present.get(device.type) or (device.index or 0) >= count:
        there = ", ".join(name for name, available in present.items() if available)
        raise UnsupportedError(f"this machine has no {asked} device for torch; it has {there}")
    return device


def fp64_device(asked: str = "auto") -> torch.device:
    """Give the device asked for, for arithmetic in fp64, which not every kind of GPU has; `auto` is cuda, else cpu.

    Raises UnsupportedError where it is missing or has none.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = choose_device(asked)
    if device.type == "mps":
        raise UnsupportedError("this needs arithmetic in fp64, which mps has not; use auto, cuda or cpu")
    return device


def is_present(asked: str) -> bool:
    """Tell whether this machine has a device."""
    try:
        choose_device(asked)
    except (OptionError, UnsupportedError):
        return False
    return True


def arithmetic(device: torch.device) -> dict[str, str]:
    """Say what decides the bits of a sum: the kind of device, what it can do at once, and torch."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"device": device.type, "kind": kind, "torch": torch.__version__}
