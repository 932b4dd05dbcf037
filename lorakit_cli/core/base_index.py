"""A base pipeline as an index: component -> tensor name -> shape, dtype, file and place. Headers only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit_cli.core.tensor_file import TensorInfo, read_header
from lorakit_cli.errors import BaseModelError

# The file-name stems under which diffusers and transformers keep weights.
_WEIGHT_STEMS = ("diffusion_pytorch_model", "model")
# CLIP text models saved by transformers before 5 carry this prefix; the live module of 5 and later does not.
_DROPPED_PREFIX = "text_model."


@dataclass(frozen=True, slots=True)
class BaseTensor:
    """One tensor of a base: what its header says, and the file that holds it."""

    info: TensorInfo
    file: Path


@dataclass(frozen=True, slots=True)
class BaseComponent:
    """One component of a pipeline: its class, its configuration, and its tensors by their name in the file."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    tensors: Mapping[str, BaseTensor]

    def spellings(self, name: str) -> tuple[str, ...]:
        """Give every name one tensor or module goes by: the file's first, then the live module's or an older file's."""
        if not self.class_name.startswith("CLIPText"):
            return (name,)
        if name.startswith(_DROPPED_PREFIX):
            return (name, name.removeprefix(_DROPPED_PREFIX))
        return (name, _DROPPED_PREFIX + name)

    @property
    def modules(self) -> Mapping[str, str]:
        """The modules that have a weight: module name -> tensor name."""
        return {name.removesuffix(".weight"): name for name in self.tensors if name.endswith(".weight")}


@dataclass(frozen=True, slots=True)
class BaseIndex:
    """A base pipeline: its folder, its pipeline class, and the components that hold weights."""

    path: Path
    class_name: str
    components: Mapping[str, BaseComponent]
    variant: str | None = None


def read_base_index(path: Path, variant: str | None = None) -> BaseIndex:
    """Index a diffusers folder; takes its only variant where it has no plain weights. Raises BaseModelError."""
    model_index = path / "model_index.json"
    if not model_index.is_file():
        raise BaseModelError(f"{path} is not a diffusers pipeline folder: it has no model_index.json")
    entries = _read_json(model_index)
    components = {
        name: entry[1]
        for name, entry in entries.items()
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)
    }
    class_name = entries.get("_class_name")
    if not isinstance(class_name, str):
        raise BaseModelError(f"{model_index} names no pipeline class (_class_name)")
    # diffusers makes up an empty tokenizer for a folder that is not there.
    missing = [name for name in components if not (path / name).is_dir()]
    if missing:
        raise BaseModelError(f"{path} is incomplete: its {missing[0]} is missing")
    variant = variant or _only_variant([path / name for name in components])
    indexed: dict[str, BaseComponent] = {}
    for name, component_class in components.items():
        files = _weight_files(path / name, variant) or _weight_files(path / name, None)
        if files:
            tensors = {key: BaseTensor(info, file) for file in files for key, info in read_header(file).tensors.items()}
            config = path / name / "config.json"
            indexed[name] = BaseComponent(name, component_class, _read_json(config) if config.exists() else {}, tensors)
        elif pickles := sorted((path / name).glob("*.bin")):
            raise BaseModelError(
                f"{pickles[0]} is a pickle, and only safetensors are read; loading the base with diffusers and saving "
                "it again converts it"
            )
    if not indexed:
        raise BaseModelError(f"{path} holds no safetensors weights; is it complete?")
    return BaseIndex(path, class_name, indexed, variant)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(entries, dict):
        raise BaseModelError(f"{path} should hold a JSON object")
    return entries


def _weight_files(folder: Path, variant: str | None) -> list[Path]:
    """List the weight files of a component: one file, or the shards its index names."""
    dotted = f".{variant}" if variant else ""
    for stem in _WEIGHT_STEMS:
        single = folder / f"{stem}{dotted}.safetensors"
        if single.is_file():
            return [single]
        for index in (
            folder / f"{stem}.safetensors.index{dotted}.json",
            folder / f"{stem}{dotted}.safetensors.index.json",
        ):
            if index.is_file():
                shards = [folder / name for name in _shard_names(index)]
                missing = [shard.name for shard in shards if not shard.is_file()]
                if missing:
                    raise BaseModelError(f"{folder} is incomplete: {missing[0]} is missing")
                return shards
    return []


def _shard_names(index: Path) -> list[str]:
    """List the files an index names; only plain names, for an index must not reach out of its folder."""
    names = _read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) and Path(n).name == n for n in names.values()):
        raise BaseModelError(f"{index}: its weight_map does not map tensors to files beside it")
    return sorted(set(names.values()))


def _only_variant(folders: list[Path]) -> str | None:
    """Name the variant of the weights where every component has just that one and none is plain."""
    plain = any(_weight_files(folder, None) for folder in folders)
    found = {
        file.name.removesuffix(".safetensors").split(".")[1]
        for folder in folders
        for stem in _WEIGHT_STEMS
        for file in folder.glob(f"{stem}.*.safetensors")
        if file.name.count(".") == 2 and "-of-" not in file.name
    }
    return found.pop() if len(found) == 1 and not plain else None
