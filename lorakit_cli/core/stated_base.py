"""The base that an adapter was made for, where its file or one beside it names a repository that can be loaded."""

from collections.abc import Iterator, Mapping

from lorakit_cli.core.hub_reference import HubReference
from lorakit_cli.core.record import Record
from lorakit_cli.core.stated import CARD, NOTHING_BESIDE, PEFT_CONFIG, SideFiles, Statements, text_of
from lorakit_cli.errors import BaseModelError

_SETTINGS = "lora_adapter_metadata"
_SETTING = "base_model_name_or_path"
_MOST = 20
# Checkpoints under these names are on the trainer's disk.
_FILES = (".safetensors", ".ckpt", ".pt", ".bin", ".gguf")


class StatedBase(Record):
    """The repositories that one place names, mostly one. `where` says which place that is."""

    repositories: tuple[str, ...]
    where: str


def stated_base(metadata: Mapping[str, str], side: SideFiles = NOTHING_BESIDE) -> StatedBase | None:
    """Read what an adapter was made for from the first place that names a repository. Never raises."""
    stated = Statements(metadata, side)
    for where, values in _places(stated):
        found = tuple(dict.fromkeys(text for value in values if (text := _repository(value))))
        if found:
            return StatedBase(found[:_MOST], where)
    return None


def _places(stated: Statements) -> Iterator[tuple[str, list[object]]]:
    yield "the card", [one for value in stated.values((CARD, "base_model")) for one in _each(value)]
    # diffusers puts the component in front of each setting.
    settings = stated.mapping(_SETTINGS).items() if _SETTINGS in stated.metadata else ()
    yield "the settings", [value for name, value in settings if name.rpartition(".")[2] == _SETTING]
    yield f"the {PEFT_CONFIG}", stated.values((PEFT_CONFIG, _SETTING))
    yield (
        "the training data",
        [
            *stated.values("ss_sd_model_name"),
            *stated.values(("ot_config", "base_model_name")),
            *stated.values("ss_base_model_version"),
        ],
    )


def _each(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _repository(value: object) -> str | None:
    """Give a text that names a repository, None for the name of a file, a path or a family of models."""
    text = text_of(value) if isinstance(value, str) else None
    if text is None or text.lower().endswith(_FILES):
        return None
    try:
        found = HubReference.parse(text)
    except BaseModelError:
        return None
    return str(found) if found else None
