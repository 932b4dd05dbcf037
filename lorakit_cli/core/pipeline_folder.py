"""Index a diffusers pipeline in any folder that lists its files and gives up JSON and headers."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any, Protocol

from lorakit_cli.core.base_index import BaseComponent, BaseIndex, BaseTensor
from lorakit_cli.core.packed_tensors import QUANTIZED, under_live_names
from lorakit_cli.core.shown import shown
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.core.weight_files import is_plain, only_variant, shards, variants, weight_file
from lorakit_cli.errors import BaseModelError

MODEL_INDEX = "model_index.json"


class PipelineFolder(Protocol):
    """A folder with a pipeline in it; names are relative to it, with `/` between their parts."""

    @property
    def path(self) -> PurePath:
        """What the folder is called in messages and in the index."""

    def files(self, folder: str = "") -> Collection[str] | None:
        """List the files directly in it or in a folder of it, None where there is no such folder."""

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON object. Raises BaseModelError."""

    def tensors(self, name: str) -> Mapping[str, TensorInfo]:
        """Read the header of a safetensors file. Raises BaseModelError."""


def index_pipeline(folder: PipelineFolder, variant: str | None = None) -> BaseIndex:
    """Index a diffusers folder; takes its only variant where it has no plain weights. Raises BaseModelError.

    A component without files of a variant that was asked for is taken plain, if another has them.
    """
    if MODEL_INDEX not in (folder.files() or ()):
        raise BaseModelError(f"{folder.path} is not a diffusers pipeline: it has no {MODEL_INDEX}")
    class_name, classes = _components(folder)
    beside: dict[str, Collection[str]] = {}
    for name in classes:
        inside = folder.files(name)
        # diffusers makes up an empty tokenizer for a folder that is not there.
        if inside is None:
            raise BaseModelError(f"{folder.path} is incomplete: its {name} is missing")
        beside[name] = inside
    known = variants(beside.values())
    if variant and variant not in known:
        there = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise BaseModelError(f"{folder.path} has no weights of the variant {variant}; {there}")
    variant = variant or only_variant(list(beside.values()))
    indexed: dict[str, BaseComponent] = {}
    for name, names in beside.items():
        weights = _weights(folder, name, names, variant)
        if weights:
            tensors = {
                tensor: BaseTensor(info, folder.path / file)
                for file in weights
                for tensor, info in folder.tensors(file).items()
            }
            config = folder.json(f"{name}/config.json") if "config.json" in names else {}
            if isinstance(config.get(QUANTIZED), Mapping):
                tensors = under_live_names(tensors)
            indexed[name] = BaseComponent(name, classes[name], config, tensors)
        elif pickle := next((file for file in sorted(names) if file.endswith(".bin")), None):
            raise BaseModelError(
                f"{folder.path / name / pickle} is a pickle, and only safetensors are read; --allow-pickle takes its "
                "tensors out, and loading the base with diffusers and saving it again converts it"
            )
    if not indexed:
        raise BaseModelError(f"{folder.path} holds no safetensors weights; is it complete?")
    return BaseIndex(folder.path, class_name, indexed, variant)


def _components(folder: PipelineFolder) -> tuple[str, dict[str, str]]:
    """Read the class of the pipeline, and those of its components by name."""
    entries = folder.json(MODEL_INDEX)
    class_name = entries.get("_class_name")
    if not isinstance(class_name, str):
        raise BaseModelError(f"{folder.path / MODEL_INDEX} names no pipeline class (_class_name)")
    found = {
        name: entry[1]
        for name, entry in entries.items()
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)
    }
    for name in found:
        if not is_plain(name):
            raise BaseModelError(
                f"{folder.path / MODEL_INDEX} names a component {shown(name)}, which is no folder in it"
            )
    return class_name, found


def _weights(folder: PipelineFolder, name: str, names: Collection[str], variant: str | None) -> list[str]:
    """List the weight files of a component: one file, or the shards its index names."""
    file = weight_file(names, variant) or weight_file(names, None)
    if file is None:
        return []
    if not file.endswith(".json"):
        return [f"{name}/{file}"]
    parts = shards(folder.json(f"{name}/{file}"))
    if parts is None:
        raise BaseModelError(f"{folder.path / name / file}: its weight_map does not map tensors to files beside it")
    missing = next((part for part in parts if part not in names), None)
    if missing:
        raise BaseModelError(f"{folder.path / name} is incomplete: {missing} is missing")
    return [f"{name}/{part}" for part in parts]


def json_object(file: Path, path: PurePath) -> dict[str, Any]:
    """Read a JSON object from a file that messages call `path`. Raises BaseModelError."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(entries, dict):
        raise BaseModelError(f"{path} should hold a JSON object")
    return entries
