"""A folder that `save` wrote: adapters beside their base, or beside a reference to it, and how they are used."""

from dataclasses import dataclass
from pathlib import Path

from lorakit_cli.core.adapter_spec import NAME, AdapterSpec
from lorakit_cli.core.block_scales import BlockScales, read_block_scales
from lorakit_cli.core.recipe import RECIPE_FILE, Recipe, RecipeAdapter, read_recipe
from lorakit_cli.core.user_path import user_path
from lorakit_cli.demo import NAME as EMBEDDED
from lorakit_cli.errors import BlockScalesError, RecipeError
from lorakit_cli.sources.config import FILE_NAME, read_config
from lorakit_cli.sources.library import Library, LibraryEntry, from_folder

ADAPTERS = "adapters"
"""The folder inside it that holds the adapters."""
VERB = "save"


@dataclass(frozen=True, slots=True)
class SavedFolder:
    """A folder with adapters, and the recipe that says how they are used."""

    path: Path
    recipe: Recipe

    @property
    def specs(self) -> tuple[AdapterSpec, ...]:
        """The adapters at the weights that the user gave them; the recipe's scale multiplies these."""
        return tuple(AdapterSpec(adapter.name, adapter.weight) for adapter in self.recipe.adapters)

    def entries(self) -> dict[str, LibraryEntry]:
        """Give the adapters as a library knows them, each at what it acts with. Raises RecipeError."""
        return {adapter.name: self._entry(adapter) for adapter in self.recipe.adapters}

    def _entry(self, adapter: RecipeAdapter) -> LibraryEntry:
        # A recipe comes from anywhere, and leads to nothing outside its folder.
        if not NAME.fullmatch(adapter.name) or adapter.source != adapter_source(adapter.name):
            raise RecipeError(f"{self.path / RECIPE_FILE}: {adapter.source!r:.80} is no adapter of this folder")
        return LibraryEntry(
            adapter.name,
            str(self.path / adapter.source),
            str(self.path),
            adapter.weight * self.recipe.scale,
            adapter.triggers,
            str(self.path),
            self._scales(adapter),
        )

    def _scales(self, adapter: RecipeAdapter) -> BlockScales | None:
        try:
            return read_block_scales(adapter.name, adapter.block_scales) if adapter.block_scales else None
        except BlockScalesError as error:
            raise RecipeError(f"{self.path / RECIPE_FILE}: {error}") from error


def adapter_source(name: str) -> str:
    """Say where in its folder an adapter is kept."""
    return f"{ADAPTERS}/{name}.safetensors"


def saved_folder(base: str | None, library: Library) -> SavedFolder | None:
    """Give the saved folder that a base is, asked for or the library's, None for another. Raises RecipeError."""
    # A lorakit.toml in such a folder may name a base elsewhere, which may be such a folder again.
    places = [] if base or library.base_from is None else [library.base_from]
    wanted = base or library.base
    if wanted is not None and wanted != EMBEDDED:
        places.append(user_path(wanted))
    for path in places:
        recipe = read_recipe(path) if path.is_dir() else None
        if recipe and recipe.verb == VERB:
            return SavedFolder(path, recipe)
    return None


def referenced_base(path: Path) -> str | None:
    """Give the base that a folder of adapters refers to, None where it is no such folder. Raises LorakitError."""
    if not (path / FILE_NAME).is_file():
        return None
    recipe = read_recipe(path)
    if recipe is None or recipe.verb != VERB:
        return None
    config = read_config(path / FILE_NAME)
    return from_folder(path, config.base) if config.base else None
