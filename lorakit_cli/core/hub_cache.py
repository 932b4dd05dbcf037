"""Folders that belong to the client of the Hub, in which nothing else may write."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_REPOSITORIES = ("models--", "datasets--", "spaces--")
_INSIDE = ("snapshots", "blobs", "refs")


def hub_cache_around(path: Path) -> Path | None:
    """Give the part of a Hub cache that a path is or lies in, known by its layout or by the client's settings."""
    resolved = path.resolve()
    for folder in (resolved, *resolved.parents):
        if folder.name.startswith(_REPOSITORIES) and any((folder / name).is_dir() for name in _INSIDE):
            return folder
    return next((cache for cache in _caches(os.environ) if cache == resolved or cache in resolved.parents), None)


def _caches(variables: Mapping[str, str]) -> list[Path]:
    """List where the client keeps repositories, without loading it."""
    named = [variables.get(name) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")]
    home = variables.get("HF_HOME") or str(Path(variables.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    caches = []
    # Not all of HF_HOME, which on rented machines is often the disk that everything is on.
    for text in filter(None, (*named, f"{home}/hub")):
        # Not every user of a container has a home.
        with suppress(RuntimeError):
            caches.append(Path(os.path.expandvars(text)).expanduser().resolve())
    return caches
