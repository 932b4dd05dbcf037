"""Which adapters a request is about: those it names, else those that were saved with its base, else the library's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.errors import OptionError
from lorakit_cli.sources.library import Library
from lorakit_cli.sources.local import find_base, is_embedded
from lorakit_cli.sources.saved_folder import saved_folder


@dataclass(frozen=True, slots=True)
class Choice:
    """The adapters of a request, the library that their names are looked up in, and what multiplies all weights."""

    specs: tuple[AdapterSpec, ...]
    library: Library
    scale: float


def choose_adapters(
    base: str | None, named: Sequence[AdapterSpec], scale: float, library: Library, *, some: bool = False
) -> Choice:
    """Choose the adapters of a request that names these, or none.

    In this order: those named, in options or in the prompt; those saved with the base; those that `use` in lorakit.toml
    lists. `some`: at least one is needed, on the embedded model its own. Then raises OptionError where there are none,
    and always RecipeError for a saved base that cannot be read.
    """
    saved = saved_folder(base, library)
    if saved and saved.recipe.adapters and not named:
        # The names are those of the recipe, whatever else goes by them.
        entries = saved.entries()
        return Choice(saved.specs, replace(library, entries={**library.entries, **entries}), scale * saved.recipe.scale)
    if saved:
        library = library.with_entries(saved.entries())
    specs = tuple(named or library.use or ())
    if some and not specs:
        specs = _own(base, library)
    return Choice(specs, library, scale)


def _own(base: str | None, library: Library) -> tuple[AdapterSpec, ...]:
    """List the embedded model's own adapters. Raises OptionError for any other base."""
    if is_embedded(find_base(base, library, ())):
        return tuple(AdapterSpec.parse(name) for name in library.embedded)
    raise OptionError(
        "no adapters: name them with --lora NAME:WEIGHT, once for each (`lorakit list-adapters` shows those with a "
        "name), or with `use` in lorakit.toml"
    )
