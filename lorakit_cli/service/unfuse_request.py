"""What `unfuse` is asked for: whether the base is at hand, else whether the adapters are and can be subtracted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.output_place import require_place
from lorakit_cli.core.plan import Plan
from lorakit_cli.core.recipe import RECIPE_FILE, Recipe
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OutputError, RecipeError, UnsupportedError
from lorakit_cli.service.fuse_request import SINGLE_FILE
from lorakit_cli.service.planning import make_plan
from lorakit_cli.service.recalled_adapters import recall_adapters, require_places, require_read_alike
from lorakit_cli.service.recalled_base import RecalledBase, recall_base
from lorakit_cli.service.recalling import block_scales_of, open_recipe, specs_of
from lorakit_cli.sources.library import Library, open_library


@dataclass(frozen=True, slots=True)
class UnfuseRequest:
    """A request for the base of a fused pipeline; `base` and `adapters` say where these are now."""

    source: Path
    out: Path
    base: str | None = None
    adapters: Sequence[AdapterSpec] = ()
    overwrite: bool = False
    allow_pickle: bool = False


@dataclass(frozen=True, slots=True)
class PreparedUnfuse:
    """A request that is known to be possible.

    `index` is the recorded base, which is to be copied, or with a `plan` the fused pipeline, to which that adds the
    adapters with their strengths negated.
    """

    request: UnfuseRequest
    recipe: Recipe
    index: BaseIndex
    plan: Plan | None
    warnings: tuple[str, ...]

    @property
    def is_folder(self) -> bool:
        """Whether the output is a folder."""
        return isinstance(self.index.path, Path) and self.index.path.is_dir()


def prepare_unfuse(request: UnfuseRequest) -> PreparedUnfuse:
    """Find the base, or else plan how to get near it. Raises LorakitError for all that is wrong with the request."""
    source = user_path(str(request.source))
    recipe, beside = open_recipe(source)
    if recipe.verb != "fuse":
        raise RecipeError(
            f"{source} has nothing to undo: `lorakit {recipe.verb}` keeps adapters beside the weights, which are the "
            f"base's own; the base is what is in it without its adapters and {RECIPE_FILE}"
        )
    library = open_library()
    require_places(recipe, request.adapters)
    found = recall_base(recipe.base, beside, library, request.base, allow_pickle=request.allow_pickle)
    if found.index and found.is_there:
        prepared = PreparedUnfuse(request, recipe, found.index, None, ())
    else:
        _require_missing(found, request)
        plan = _plan(request, recipe, beside if source.suffix == ".json" else source, found, library)
        prepared = PreparedUnfuse(request, recipe, plan.base, plan, tuple(_warnings(recipe, found)))
    _require_place(prepared, source)
    return prepared


def _require_missing(found: RecalledBase, request: UnfuseRequest) -> None:
    """Raise RecipeError for a base that is there and is another one, or was asked for and is not there."""
    if request.base:
        found.require()
    if found.differs:
        raise RecipeError(
            f"{found.changed}; --base PATH says where the one it was is, and with nothing in its place the adapters "
            "are subtracted"
        )


def _plan(request: UnfuseRequest, recipe: Recipe, source: Path, found: RecalledBase, library: Library) -> Plan:
    """Plan to add to the fused pipeline what was added to its base, negated."""
    try:
        files = recall_adapters(recipe, source if source.is_dir() else source.parent, library, request.adapters)
    except RecipeError as error:
        raise RecipeError(
            f"{found.missing}; --base PATH says where it is. Without it the adapters have to be subtracted, but {error}"
        ) from error
    plan = make_plan(
        str(source.absolute()),
        specs_of(recipe, files),
        scale=-recipe.scale,
        block_scales=block_scales_of(recipe),
        allow_pickle=request.allow_pickle,
        library=library,
    ).plan
    require_read_alike(recipe, plan)
    if recipe.components is not None:
        plan = plan.only(recipe.components)
    _require_sums(plan, found)
    return plan


def _require_sums(plan: Plan, found: RecalledBase) -> None:
    """Raise UnsupportedError for what depends on the base's values, which are not known any more."""
    acting = {
        term.adapter: term.layer.kind.name
        for _, terms in plan.changes()
        for term in terms
        if term.layer.kind.needs_base
    }
    if acting:
        names = " and ".join(f"{name} ({kind})" for name, kind in acting.items())
        raise UnsupportedError(
            f"{found.missing}; --base PATH says where it is. Without it {names} cannot be undone: what that changes "
            "depends on the base's own values"
        )


def _warnings(recipe: Recipe, found: RecalledBase) -> list[str]:
    warnings = [f"{found.missing}; the adapters are subtracted, which comes near the base but not back to it"]
    if recipe.dtype:
        warnings.append(
            f"it was fused with --dtype {recipe.dtype} and stays in that; what rounding took from the base is lost"
        )
    return warnings


def _require_place(prepared: PreparedUnfuse, source: Path) -> None:
    request, path = prepared.request, prepared.index.path
    out, plan = request.out, prepared.plan
    if prepared.is_folder and out.suffix.lower() == SINGLE_FILE:
        raise OutputError(
            f"{path} is a folder and becomes one: --out {out.with_suffix('')} or another name for a folder"
        )
    if not prepared.is_folder and out.suffix.lower() != SINGLE_FILE:
        raise OutputError(
            f"{path} is a single file and becomes one: --out {out}{SINGLE_FILE} or another name in {SINGLE_FILE}"
        )
    sources = [source, *(adapter.file.path for adapter in (plan.adapters if plan else ()))]
    if isinstance(path, Path):
        sources.append(path)
    require_place(out, sources, folder=prepared.is_folder, overwrite=request.overwrite)
