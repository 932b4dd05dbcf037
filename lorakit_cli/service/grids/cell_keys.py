"""Digests of all that determines a picture, by which one that is there already is known."""

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lorakit_cli import __version__
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.grid_cell import GridCell
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.user_path import user_path
from lorakit_cli.service.hashing import sha256_of

_LIBRARIES = ("torch", "diffusers", "transformers")


class CellKeys:
    """Gives the keys of cells; files that several need are read once."""

    def __init__(self, loading: Loading) -> None:
        self._common = {
            "loading": asdict(loading),
            **{
                name: _look_of(user_path(path)) if path else None
                for name, path in (("config", loading.config), ("vae", loading.vae))
            },
            "versions": {"lorakit": __version__} | {name: version(name) for name in _LIBRARIES},
        }
        self._files: dict[Path, str] = {}
        self._bases: dict[Path, str] = {}

    def of(self, cell: GridCell) -> str:
        """Give the key of a cell: the same settings, adapters by content, and base have the same."""
        settings = cell.spec.settings
        facts = self._common | {
            "picture": asdict(cell.spec),
            "begun from": [self._sha256(user_path(path)) for path in (settings.init_image, settings.mask) if path],
            "scale": cell.scale,
            "base": self._base(cell.plan.base),
            "variant": cell.plan.base.variant,
            "adapters": [
                {
                    "name": adapter.name,
                    "weight": adapter.weight,
                    "sha256": self._sha256(adapter.file.path),
                    "blocks": adapter.block_scales.as_json() if adapter.block_scales else None,
                }
                for adapter in cell.plan.adapters
            ],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def _sha256(self, path: Path) -> str:
        if path not in self._files:
            self._files[path] = sha256_of(path)
        return self._files[path]

    def _base(self, base: BaseIndex) -> str:
        path = Path(base.path)
        if path not in self._bases:
            self._bases[path] = _look_of(path)
        return self._bases[path]


def _look_of(path: Path) -> str:
    """Digest names, sizes and times of a base's files, which say whether it changed without reading gigabytes."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    facts: list[Any] = []
    for file in files:
        stat = file.stat()
        facts.append((file.relative_to(path.parent).as_posix(), stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
