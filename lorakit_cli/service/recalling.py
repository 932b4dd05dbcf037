"""Find again what a recipe was made with, so that it can be made once more, proved or undone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.block_scales import BlockScales, parse_block_scales
from lorakit_cli.core.recipe import RECIPE_FILE, Recipe, parse_recipe, recipe_of
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import BlockScalesError, RecipeError
from lorakit_cli.service.fuse_request import FuseRequest
from lorakit_cli.service.recalled_adapters import recall_adapters
from lorakit_cli.service.recalled_base import recall_base
from lorakit_cli.sources.library import Library
from lorakit_cli.sources.local import beside as called_alike


@dataclass(frozen=True, slots=True)
class Recalled:
    """A recipe with its base and the files of its adapters, in its order.

    `base_differs` names the files of weights in which the base is not what it was.
    """

    recipe: Recipe
    base: BaseIndex
    adapters: tuple[Path, ...]
    base_differs: tuple[str, ...] = ()

    def request(self, out: Path | None = None, **options: Any) -> FuseRequest:
        """Ask for the same once more, without `out` only to plan it; `options` are of how, not of what."""
        recipe = self.recipe
        same: dict[str, Any] = {
            "out": out,
            "base": str(self.base.path),
            "adapters": specs_of(recipe, self.adapters),
            "scale": recipe.scale,
            "block_scales": block_scales_of(recipe),
            "components": recipe.components or (),
            "dtype": recipe.dtype,
            "variant": recipe.base.variant,
            # What was allowed then is what is in it.
            "allow_unmatched": True,
            "again": True,
            "recipe": recipe,
            "dry_run": out is None,
        }
        return FuseRequest(**(same | options))


def open_recipe(path: Path) -> tuple[Recipe, Path]:
    """Read the recipe of an output, a folder or a single file, or a lorakit.json; with the folder it lies in.

    Raises RecipeError, or CorruptFileError for a file that is no output at all.
    """
    path = user_path(str(path))
    if not path.exists():
        near = called_alike(path) or "; give the folder or file that lorakit wrote"
        raise RecipeError(f"there is no {path}{near}")
    folder = path if path.is_dir() else path.resolve().parent
    try:
        recipe = (
            parse_recipe(path.read_text(encoding="utf-8"), path)
            if path.suffix == ".json" and path.is_file()
            else recipe_of(path)
        )
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    if recipe is None:
        what = f"has no {RECIPE_FILE}" if path.is_dir() else "holds no recipe"
        raise RecipeError(f"{path} {what}; only what `lorakit fuse` or `lorakit save` wrote says how it was made")
    return recipe, folder


def recall(
    recipe: Recipe,
    beside: Path,
    library: Library,
    *,
    base: str | None = None,
    adapters: Sequence[AdapterSpec] = (),
    changed_base: bool = False,
    allow_pickle: bool = False,
) -> Recalled:
    """Find the base and the adapters of a recipe by their hashes. `beside` is the folder that the recipe lies in.

    `base` and `adapters` say where they are now; without, they are looked for where they were and around. Raises
    RecipeError for what is not there or not what it was; with `changed_base` a base that is not is given all the same,
    and which of its files differ. Raises OptionError for an adapter that is not the recipe's or has a weight.
    """
    found = recall_base(recipe.base, beside, library, base, every=changed_base, allow_pickle=allow_pickle)
    index = found.index if changed_base and found.index else found.require()
    return Recalled(recipe, index, recall_adapters(recipe, beside, library, adapters), found.differs)


def specs_of(recipe: Recipe, files: Sequence[Path]) -> tuple[AdapterSpec, ...]:
    """Give the adapters of a recipe as they would be asked for, each by its file."""
    return tuple(
        AdapterSpec(str(file.absolute()), adapter.weight, adapter.name)
        for adapter, file in zip(recipe.adapters, files, strict=True)
    )


def block_scales_of(recipe: Recipe) -> dict[str, BlockScales]:
    """Give the block scales of a recipe. Raises RecipeError for what are none."""
    said = {adapter.name: adapter.block_scales for adapter in recipe.adapters if adapter.block_scales is not None}
    try:
        return parse_block_scales([json.dumps(said)])
    except BlockScalesError as error:
        raise RecipeError(f"the recipe cannot be made again: {error}") from error
