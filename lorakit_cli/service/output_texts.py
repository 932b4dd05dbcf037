"""Write what of an output is no weights: what the base has beside its own, the recipe and the model card."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lorakit_cli.core.base_files import shard_index
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.file_copy import copy_file
from lorakit_cli.core.pipeline_copy import files_to_copy
from lorakit_cli.core.pipeline_folder import json_object
from lorakit_cli.core.recipe import RECIPE_FILE, Recipe
from lorakit_cli.core.weight_files import shards, weight_file
from lorakit_cli.core.weights_file import WeightsFile
from lorakit_cli.errors import BaseModelError


def copy_texts(folder: Path, base: BaseIndex, files: Sequence[WeightsFile]) -> None:
    """Copy what a pipeline has beside its weights, and index the files that these are in."""
    assert isinstance(base.path, Path)
    for name in files_to_copy(base.path):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy_file(base.path / name, folder / name)
    for text, content in shard_index(files).items():
        (folder / text).write_bytes(content)


def text_problems(folder: Path, base: BaseIndex, files: Sequence[WeightsFile]) -> Iterator[str]:
    """Say what of a folder would keep it from being loaded as it was written: configs and indices of weights."""
    assert isinstance(base.path, Path)
    for name in files_to_copy(base.path):
        if not (folder / name).is_file():
            yield f"{name} is missing"
        elif (folder / name).read_bytes() != (base.path / name).read_bytes():
            yield f"{name} is not the base's"
    for component in base.components:
        names = {file.name for file in (folder / component).iterdir()} if (folder / component).is_dir() else set()
        own = {file.name.rpartition("/")[2] for file in files if file.name.startswith(f"{component}/")}
        found = weight_file(names, None)
        if found is None:
            yield f"{component} has no index of its weights, and would not load"
        elif own != ({found} if not found.endswith(".json") else set(shards(_index(folder / component / found)) or ())):
            yield f"{component} is loaded from other files than {', '.join(sorted(own))}"


def _index(path: Path) -> dict[str, Any]:
    try:
        return json_object(path, path)
    except BaseModelError:
        return {}


def write_recipe(folder: Path, recipe: Recipe, card: str) -> None:
    """Write lorakit.json, and the model card as README.md."""
    (folder / RECIPE_FILE).write_text(recipe.text(), encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")
