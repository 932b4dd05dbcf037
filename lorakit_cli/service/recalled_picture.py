"""Find again what a picture was made with, from what is written in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from lorakit_cli.core.adapter_spec import NAME, AdapterSpec
from lorakit_cli.core.block_scales import BlockScales
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.option_values import option_values, options_from, overridden
from lorakit_cli.core.picture_recipe import PictureRecipe, parse_picture_recipe
from lorakit_cli.core.recipe import Recipe, RecipeBase
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import RecipeError
from lorakit_cli.service.adapter_digests import digest_of
from lorakit_cli.service.base_digests import places_of_base
from lorakit_cli.service.foreign_picture import recall_foreign
from lorakit_cli.service.option_files import overlaid
from lorakit_cli.service.picture_reading import read_picture
from lorakit_cli.service.recalled_adapters import recall_adapters
from lorakit_cli.service.recalled_base import recall_base
from lorakit_cli.service.recalling import block_scales_of, specs_of
from lorakit_cli.sources.library import Library
from lorakit_cli.sources.saved_folder import saved_folder

Options = TypeVar("Options", Settings, Loading)
_ALL_THE_SAME = "--allow-changed draws with this one all the same"


@dataclass(frozen=True, slots=True)
class Given:
    """What is asked for beside a picture, and wins over what is in it."""

    base: str | None
    adapters: Sequence[AdapterSpec]
    settings: Settings
    loading: Loading
    changed: bool = False
    allow_pickle: bool = False
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class RecalledPicture:
    """A picture's own request: what was asked for, with where it is now.

    `sources` say what adapters were asked for by then; `base_record` is what is known of a base that is the one it was;
    `before` the recipe with what it was made on, None for a picture of another program. `warnings` tell what is not as
    it was.
    """

    prompt: str
    negative: str | None
    seed: int | None
    settings: Settings
    loading: Loading
    literal: bool | None
    base: str | None
    adapters: tuple[AdapterSpec, ...]
    variant: str | None = None
    scale: float = 1.0
    block_scales: Mapping[str, BlockScales] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    base_record: RecipeBase | None = None
    before: Recipe | None = None
    warnings: tuple[str, ...] = ()


def recall_picture(path: Path, given: Given, library: Library) -> RecalledPicture:
    """Read a picture and find its base and adapters, by name and by hash. Raises RecipeError.

    What is given as `NAME=SOURCE`, without a weight and for adapters of the picture alone, says where these are now;
    any other adapters take their place.
    """
    path = user_path(str(path))
    texts = read_picture(path)
    if texts.record is None:
        foreign = recall_foreign(texts.parameters or "", given.adapters, library, path.absolute().parent)
        return RecalledPicture(
            foreign.prompt,
            foreign.negative,
            foreign.seed,
            overridden(given.settings, foreign.settings),
            given.loading,
            None,
            given.base,
            foreign.adapters,
            given.variant,
            warnings=(f"{path.name} is of another program: its settings, not its very picture", *foreign.warnings),
        )
    return _own(parse_picture_recipe(texts.record, path), path.absolute().parent, given, library)


def _own(picture: PictureRecipe, beside: Path, given: Given, library: Library) -> RecalledPicture:
    recipe = picture.recipe
    for adapter in recipe.adapters:
        if not NAME.fullmatch(adapter.name):
            raise RecipeError(f"the picture names an adapter {adapter.name!r:.60}, which none can be called")
    warnings: list[str] = []
    base, variant, base_record = _base(recipe.base, beside, given, library, warnings)
    if not Path(base).is_file():
        picture = _without_config(picture, base, warnings)
    saved = saved_folder(base, library)
    library = library.with_entries(saved.entries()) if saved else library
    names = {adapter.name for adapter in recipe.adapters}
    only_places = all(spec.alias and spec.weight is None and spec.name in names for spec in given.adapters)
    adapters, scales, sources = tuple(given.adapters), {}, {}
    if only_places:
        places = given.adapters
        otherwise = f", {_ALL_THE_SAME}"
        files = recall_adapters(recipe, beside, library, places, changed=given.changed, otherwise=otherwise)
        adapters, scales = specs_of(recipe, files), block_scales_of(recipe)
        for adapter, file in zip(recipe.adapters, files, strict=True):
            if digest_of(file) == adapter.sha256:
                sources[adapter.name] = adapter.source
            else:
                warnings.append(f"adapter {adapter.name} is no longer the file it was: {file}")
    return RecalledPicture(
        picture.prompt,
        picture.negative,
        picture.seed,
        _merged(given.settings, picture.settings, picture, beside),
        _merged(given.loading, picture.loading, picture, beside),
        picture.literal,
        base,
        adapters,
        variant,
        recipe.scale if only_places else 1.0,
        scales,
        sources,
        base_record,
        recipe,
        tuple(warnings),
    )


def _base(
    recorded: RecipeBase, beside: Path, given: Given, library: Library, warnings: list[str]
) -> tuple[str, str | None, RecipeBase | None]:
    """Give what to ask for to get the base of a picture, its variant, and its record where it is the one it was."""
    elsewhere = () if given.base else places_of_base(recorded)
    other = given.variant not in (None, recorded.variant)
    # A base that is named need not have the variant that it was.
    wanted = replace(recorded, variant=given.variant) if other and given.base else recorded
    found = recall_base(wanted, beside, library, given.base, allow_pickle=given.allow_pickle, elsewhere=elsewhere)
    if found.index is None:
        raise RecipeError(f"{found.missing}; --base PATH says where it is")
    path, variant = str(found.index.path), found.index.variant
    if other:
        return path, given.variant, None
    if not found.differs:
        return path, variant, recorded
    if not given.changed:
        raise RecipeError(f"{found.changed}; --base PATH says where the one it was is, {_ALL_THE_SAME}")
    warnings.append(found.changed)
    return path, variant, None


def _without_config(picture: PictureRecipe, base: str, warnings: list[str]) -> PictureRecipe:
    """Leave out the configurations that a single file needed, where the base is a folder by now."""
    if picture.loading.config is None and "config" not in picture.files:
        return picture
    warnings.append(f"the picture's --config is left out: {base} has its own configurations")
    files = {name: file for name, file in picture.files.items() if name != "config"}
    return replace(picture, loading=replace(picture.loading, config=None), files=files)


def _merged(given: Options, recorded: Options, picture: PictureRecipe, beside: Path) -> Options:
    """Take what was given, else what is recorded; local files are found again by what is in them."""
    values = overlaid(option_values(recorded), picture.files, given, beside)
    return options_from(type(given), values | option_values(given))
