"""Write down how an output was made."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lorakit_cli import __version__
from lorakit_cli.core.adapter_spec import AdapterSpec, is_plain
from lorakit_cli.core.file_digest import FileDigest
from lorakit_cli.core.generation import said_by
from lorakit_cli.core.recipe import Recipe, RecipeAdapter, RecipeBase
from lorakit_cli.core.scales_digest import scales_digest
from lorakit_cli.errors import RecipeError
from lorakit_cli.service.fuse_request import PreparedFuse
from lorakit_cli.service.output_request import PreparedOutput
from lorakit_cli.sources.local import FoundAdapter
from lorakit_cli.sources.saved_folder import adapter_source
from lorakit_cli.sources.web_address import without_secret


def make_recipe(
    verb: str, prepared: PreparedOutput, sha256: Mapping[Path, str], files: Mapping[Path, FileDigest], **facts: Any
) -> Recipe:
    """Give the recipe of a request, with the sha256 of the adapters' files and the digests of the base's."""
    base = prepared.plan.base
    return Recipe(
        verb=verb,
        base=RecipeBase(
            source=prepared.base_source,
            class_name=base.class_name,
            remote=base.remote,
            variant=base.variant,
            files={_inside(path, base.path): digest for path, digest in files.items()},
            recipe=prepared.earlier,
        ),
        adapters=tuple(
            RecipeAdapter(
                name=adapter.name,
                source=_source(spec, found),
                file=found.path.name,
                sha256=sha256[found.path],
                weight=adapter.weight,
                block_scales=adapter.block_scales.as_json() if adapter.block_scales else None,
                triggers=found.triggers,
                size=found.path.stat().st_size,
                scales=scales_digest(adapter.file),
            )
            for adapter, found, spec in zip(prepared.plan.adapters, prepared.found, prepared.specs, strict=True)
        ),
        scale=prepared.scale,
        versions={"lorakit": __version__, "torch": version("torch")},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        generate=said_by(base),
        **facts,
    )


def fuse_recipe(
    prepared: PreparedFuse, sha256: Mapping[Path, str], files: Mapping[Path, FileDigest], **facts: Any
) -> Recipe:
    """Give the recipe of a fused pipeline.

    What is made by a recipe gets that one, with when and on what it was made this time. Raises RecipeError where base
    or adapters have turned out not to be those of it.
    """
    request = prepared.request
    what = {"components": tuple(request.components) or None, "dtype": request.dtype}
    made = make_recipe("fuse", prepared, sha256, files, **what, **facts)
    return _made_again(request.recipe, made) if request.recipe else made


def _source(spec: AdapterSpec, found: FoundAdapter) -> str:
    """Say where an adapter was found: what is elsewhere by its commit, what a base brought along by its file."""
    if found.remote:
        return found.remote
    beside_base = is_plain(spec.source) and found.path == Path(found.origin) / adapter_source(spec.source)
    return str(found.path) if beside_base else without_secret(spec.source)


def _made_again(recipe: Recipe, made: Recipe) -> Recipe:
    """Give a recipe as it was, but for what is not the same each time; names and places may have changed since."""
    if [adapter.sha256 for adapter in recipe.adapters] != [adapter.sha256 for adapter in made.adapters]:
        raise RecipeError("an adapter has changed since it was held against the recipe; try again")
    if sorted(recipe.base.files.values()) != sorted(made.base.files.values()):
        raise RecipeError("the base has changed since it was held against the recipe; try again")
    return replace(recipe, engine=made.engine, arithmetic=made.arithmetic, versions=made.versions, date=made.date)


def _inside(path: Path, base: object) -> str:
    try:
        return path.relative_to(str(base)).as_posix() if path != base else path.name
    except ValueError:
        return path.name
