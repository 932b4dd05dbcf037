"""Which scheduler a base brings along, as its configuration says."""

from pathlib import Path
from typing import Any

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.pipeline_folder import json_object
from lorakit_cli.core.schedulers import is_flow

_CONFIG = Path("scheduler", "scheduler_config.json")


def scheduler_config(base: BaseIndex) -> dict[str, Any] | None:
    """Read a folder's configuration of its scheduler, None where there is none. Raises BaseModelError."""
    if not isinstance(base.path, Path):
        return None
    path = base.path / _CONFIG
    return json_object(path, path) if path.is_file() else None


def predicts_flow(base: BaseIndex) -> bool:
    """Tell whether a base predicts flow; where no configuration says, most with a transformer do."""
    config = scheduler_config(base)
    return "transformer" in base.components if config is None else is_flow(config)
