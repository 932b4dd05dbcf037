"""What a picture says about itself in the words of the A1111 web UI."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from lorakit_cli.core.infotext import write_infotext
from lorakit_cli.core.schedulers import web_ui_name

# What these are called says nothing, or belongs to every adapter of its kind.
_NAMELESS = ("pytorch_lora_weights", "adapter_model", "model")


def picture_parameters(made_with: Mapping[str, Any]) -> str:
    """Write the record of a picture as such a text, every adapter a tag that the web UI finds its file by."""
    recipe, settings = made_with["recipe"], made_with["settings"]
    names = _names(recipe["adapters"])
    tags = [
        f"<lora:{name}:{adapter['weight'] * recipe['scale']:g}>"
        for name, adapter in zip(names, recipe["adapters"], strict=True)
    ]
    hashes = ", ".join(
        f"{name}: {made_with['auto_v3'][adapter['name']]}"
        for name, adapter in zip(names, recipe["adapters"], strict=True)
    )
    strength = settings.get("strength")
    parameters = {
        "Steps": made_with["steps"],
        "Sampler": web_ui_name(made_with["scheduler"], made_with["scheduler_options"]),
        "CFG scale": made_with["guidance"],
        "Seed": made_with["seed"],
        "Size": f"{made_with['width']}x{made_with['height']}",
        "Model hash": made_with["model_hash"],
        "Model": PurePath(recipe["base"]["source"].partition("@")[0]).name.removesuffix(".safetensors"),
        "Denoising strength": strength,
        # The web UI says nothing where it reads the last layer.
        "Clip skip": settings["clip_skip"] if settings.get("clip_skip", 1) > 1 else None,
        "Lora hashes": hashes or None,
        "Version": f"lorakit {recipe['versions']['lorakit']}",
    }
    return write_infotext(" ".join([made_with["prompt"], *tags]), made_with["negative_prompt"] or "", parameters)


def _names(adapters: list[Mapping[str, Any]]) -> list[str]:
    """Give the names that the web UI knows adapters by: their files', unless these tell nothing or are not distinct."""
    stems = [PurePath(adapter["file"]).stem for adapter in adapters]
    sound = [stem not in _NAMELESS and not set(stem) & set("<>:,\"'\n") and stems.count(stem) == 1 for stem in stems]
    return [stem if good else adapter["name"] for stem, good, adapter in zip(stems, sound, adapters, strict=True)]
