"""Which files of a pipeline's folder go into a copy of it as they are: all but weights and what is said about it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from lorakit_cli.core.pipeline_folder import MODEL_INDEX
from lorakit_cli.core.recipe import RECIPE_FILE

# Weights, for any library: those that were read are written anew, and others would be loaded in their place.
_WEIGHTS = (
    ".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".onnx_data", ".pb", ".gguf", ".tflite",
)  # fmt: skip
_OPENVINO = ("openvino_", ".xml")
_SHARD_INDEX = ".index."
# About the base and not about the copy.
_ABOUT = frozenset({"README.md", RECIPE_FILE, "lorakit.toml"})
# What a base shows of itself beside its model card, and copies of it that are packed.
_SHOWN = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg", ".mp4", ".webm", ".mov", ".pdf", ".zip", ".tar", ".gz", ".7z",
)  # fmt: skip


def files_to_copy(folder: Path) -> list[PurePosixPath]:
    """List the files at the top of a pipeline's folder and those of its components, by their names in it."""
    entries = json.loads((folder / MODEL_INDEX).read_text(encoding="utf-8"))
    components = components_of(entries)
    names: list[str] = []
    for entry in folder.iterdir():
        # Nothing else is looked into: a folder may hold a thousand pictures.
        inside = entry.rglob("*") if entry.name in components and entry.is_dir() else (entry,)
        names += [file.relative_to(folder).as_posix() for file in inside if file.is_file()]
    return to_copy(names, components)


def components_of(model_index: Mapping[str, object]) -> frozenset[str]:
    """Name the folders that a model_index.json gives parts of the pipeline."""
    return frozenset(name for name, entry in model_index.items() if isinstance(entry, list))


def to_copy(names: Iterable[str], components: Iterable[str]) -> list[PurePosixPath]:
    """Pick from the names of all files of a pipeline's folder those that go into a copy."""
    known = frozenset(components)
    return [path for path in map(PurePosixPath, sorted(names)) if _goes_along(path, known)]


def _goes_along(name: PurePosixPath, components: frozenset[str]) -> bool:
    if is_weights(name) or any(part.startswith(".") for part in name.parts):
        return False
    if len(name.parts) == 1:
        return name.name not in _ABOUT and not name.name.lower().endswith(_SHOWN)
    return name.parts[0] in components


def is_weights(name: PurePosixPath) -> bool:
    """Tell files of weights, and indices of their parts, by their names."""
    start, end = _OPENVINO
    openvino = name.name.startswith(start) and name.suffix == end
    return name.name.endswith(_WEIGHTS) or openvino or (_SHARD_INDEX in name.name and name.suffix == ".json")
