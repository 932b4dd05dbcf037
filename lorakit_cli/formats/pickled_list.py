"""The earliest pickles of https://github.com/cloneofsimo/lora: a list of up and down in turn, without any names.

The list gets the keys that the same project's later safetensors files write for the same factors.
"""

_TEXT_ENCODER = ".text_encoder.pt"


def list_keys(component: str, count: int) -> list[str]:
    """Name the `count` tensors of a list: an up and a down for every place. Raises ValueError for an odd count."""
    if count % 2:
        raise ValueError(f"{count} tensors are no pairs of up and down")
    return [f"{component}:{place}:{role}" for place in range(count // 2) for role in ("up", "down")]


def list_component(file_name: str) -> str:
    """Say which component a list is for; the text encoder's has its own suffix."""
    return "text_encoder" if file_name.lower().endswith(_TEXT_ENCODER) else "unet"
