"""Which family of models an adapter says it is for, to be compared with what its shapes say."""

import re
from collections.abc import Mapping

from lorakit_cli.core.record import Record
from lorakit_cli.core.stated import CARD, CIVITAI, NOTHING_BESIDE, PEFT_CONFIG, Place, SideFiles, Statements

_PLACES: dict[str, Place] = {
    "modelspec.architecture": "modelspec.architecture",
    "ss_base_model_version": "ss_base_model_version",
    "ot_config model_type": ("ot_config", "model_type"),
    f"{CARD} base_model": (CARD, "base_model"),
    f"{PEFT_CONFIG} base_model_name_or_path": (PEFT_CONFIG, "base_model_name_or_path"),
    f"{CIVITAI} baseModel": (CIVITAI, "baseModel"),
}
# Searched in the text, lower case, with one dash for all that is no letter or digit; the first that is found decides.
_FAMILIES = {
    "SDXL refiner": r"xl.*refiner",
    "AuraFlow": r"aura-?flow|pony-?v7",
    "PixArt": r"pixart",
    "SDXL": r"sdxl|stable-?diffusion-?xl|pony|illustrious|noob-?ai|animagine|kolors|playground-v2-5",
    "FLUX.2": r"flux-?2|flux-?klein",
    "FLUX.1": r"flux|(?<!zeta-)chroma",
    "SD3": r"(?<![a-z])sd-?v?-?3|stable-?diffusion-?v?-?3",
    "Wan": r"(?<![a-z])wan(?![a-z])|wan-?video",
    "HunyuanVideo": r"hunyuan-?video|framepack|skyreels",
    "HunyuanImage": r"hunyuan-?image",
    "Qwen-Image": r"(?<![a-z])qwen(?![a-z])",
    "Z-Image": r"(?<![a-z])z-?image",
    "Lumina2": r"(?<![a-z])lumina",
    "LTX-2": r"(?<![a-z])ltx-?(video-?)?v?-?2",
    "LTX-Video": r"(?<![a-z])ltx",
    "HiDream": r"hi-?dream",
    "Sana": r"(?<![a-z])sana(?![a-z])",
    "Stable Cascade": r"stable-?cascade|wuerstchen",
    "Anima": r"(?<![a-z])anima(?![a-z])",
    "CogVideoX": r"cogvideo",
    "SD2.x": r"(?<![a-z])sd-?v?-?2|stable-?diffusion-?v?-?2",
    "SD1.x": r"(?<![a-z])sd-?v?-?1|stable-?diffusion-?v?-?1",
}


class StatedArchitecture(Record):
    """One statement: where it stands, its text, and the family it means, None where that is not known."""

    source: str
    text: str
    family: str | None


def stated_architectures(
    metadata: Mapping[str, str], side: SideFiles = NOTHING_BESIDE
) -> tuple[StatedArchitecture, ...]:
    """List what is stated about the family, the best source first; they may contradict each other."""
    stated = Statements(metadata, side)
    found = [
        StatedArchitecture(source, text, family_called(text))
        for source, place in _PLACES.items()
        if (text := stated.text(place, limit=100))
    ]
    if stated.text("ss_v2") == "True" and "ss_base_model_version" not in metadata:
        found.append(StatedArchitecture("ss_v2", "True", "SD2.x"))
    return tuple(found)


def family_called(text: str) -> str | None:
    """Name the family that a text such as `sdxl_base_v1-0` or `flux-1-dev/lora` means, None where it is not known."""
    words = re.sub(r"[^a-z0-9]+", "-", text[:200].lower())
    return next((family for family, pattern in _FAMILIES.items() if re.search(pattern, words)), None)
