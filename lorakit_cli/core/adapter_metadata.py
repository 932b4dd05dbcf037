"""Where the settings of a PEFT adapter stand: in its file's metadata, or beside it. Most files have none."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit_cli.errors import CorruptFileError

if TYPE_CHECKING:
    from lorakit_cli.core.adapter_config import AdapterConfig

_KEY = "lora_adapter_metadata"
_BESIDE = "adapter_config.json"
# Names that peft gives the weights it keeps beside that file.
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def read_configs(metadata: Mapping[str, str], where: object) -> "dict[str, AdapterConfig]":
    """Read what diffusers' `save_lora_weights` keeps: component -> config.

    `save_lora_adapter`, which saves one model, names none: its settings stand under the empty name. Raises
    CorruptFileError, or UnknownFormatError where the settings ask for more than plain LoRA.
    """
    text = metadata.get(_KEY)
    if text is None:
        return {}
    # What understands the settings is left alone where there are none.
    from lorakit_cli.core.adapter_config import config_of, require_plain

    try:
        components: dict[str, dict[str, Any]] = {}
        for key, value in json.loads(text).items():
            component, _, setting = key.rpartition(".")
            components.setdefault(component, {})[setting] = value
        for name, settings in components.items():
            require_plain(settings, f"{where}: its {name or _KEY}")
        return {name: config_of(settings) for name, settings in components.items()}
    except (ValueError, TypeError, AttributeError, re.error, RecursionError) as error:
        raise CorruptFileError(f"{where}: its {_KEY} cannot be read: {error}") from error


def config_beside(path: Path) -> "AdapterConfig | None":
    """Read the adapter_config.json that peft writes beside its weights, None where these are no weights of peft's.

    Raises CorruptFileError, or UnknownFormatError where the settings ask for what is not known.
    """
    config = _file_beside(path)
    if config is None:
        return None
    from lorakit_cli.core.adapter_config import config_of, require_plain

    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        require_plain(settings, str(config))
        return config_of(settings)
    except OSError as error:
        raise CorruptFileError(f"{config} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, re.error, RecursionError) as error:
        raise CorruptFileError(f"{config} cannot be read: {error}") from error


def metadata_beside(path: Path) -> dict[str, str]:
    """Give the settings beside weights of peft's as metadata, with which a file means the same elsewhere.

    Raises OSError.
    """
    config = _file_beside(path)
    return {} if config is None else {_KEY: config.read_text(encoding="utf-8")}


def _file_beside(path: Path) -> Path | None:
    # A link under another name is still the file that peft wrote.
    weights = (place for place in (path, path.resolve()) if place.name in _WEIGHTS)
    return next((beside for place in weights if (beside := place.parent / _BESIDE).is_file()), None)
