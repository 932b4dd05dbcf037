"""Where lorakit keeps what it has fetched and may fetch again."""

import os
from pathlib import Path

from platformdirs import user_cache_path

from lorakit_cli.core.user_path import user_path

VARIABLE = "LORAKIT_CACHE"


def cache_folder() -> Path:
    """Give the folder, which need not exist: the one that LORAKIT_CACHE names, else the user's. Raises PathError."""
    named = os.environ.get(VARIABLE)
    return user_path(named).absolute() if named else user_cache_path("lorakit")
