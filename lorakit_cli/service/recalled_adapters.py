"""Find the adapters of a recipe again, wherever their files are by now and whatever they are called, by sha256."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PureWindowsPath

from lorakit_cli.core.adapter_spec import AdapterSpec, is_plain, is_remote, require_distinct
from lorakit_cli.core.plan import Plan
from lorakit_cli.core.recipe import Recipe, RecipeAdapter
from lorakit_cli.core.scales_digest import scales_digest
from lorakit_cli.core.shown import shown
from lorakit_cli.errors import CorruptFileError, LorakitError, OptionError, RecipeError, did_you_mean
from lorakit_cli.service.hashing import sha256_of
from lorakit_cli.sources.library import Library
from lorakit_cli.sources.local import ADAPTER_SUFFIXES, find_adapter
from lorakit_cli.sources.web_cache import kept_with_hash

# Where `save` keeps them.
KEPT = "adapters"
_DIGITS = 12


def recall_adapters(
    recipe: Recipe, beside: Path, library: Library, given: Sequence[AdapterSpec] = ()
) -> tuple[Path, ...]:
    """Find the file of each adapter of a recipe. `beside` is the folder of the recipe.

    What is `given` under an adapter's name is the only place for it. Raises RecipeError for one that is not there or
    not what it was, OptionError for a spec that says more than where one of them is.
    """
    asked = require_places(recipe, given)
    hashes: dict[Path, str] = {}
    return tuple(_recalled(adapter, asked.get(adapter.name), beside, library, hashes) for adapter in recipe.adapters)


def require_places(recipe: Recipe, given: Sequence[AdapterSpec]) -> Mapping[str, AdapterSpec]:
    """See that specs say where the adapters of a recipe are, and no more. Raises OptionError."""
    require_distinct(spec.name for spec in given)
    names = [adapter.name for adapter in recipe.adapters]
    for spec in given:
        if spec.name not in names:
            near = did_you_mean(spec.name, names) or "."
            raise OptionError(f"--lora {spec}: the recipe has no adapter {spec.name!r}{near} It has {', '.join(names)}")
        if spec.weight is not None:
            raise OptionError(f"--lora {spec}: the weight is in the recipe; write --lora {spec.name}={spec.source}")
    return {spec.name: spec for spec in given}


def require_read_alike(recipe: Recipe, plan: Plan) -> None:
    """Raise RecipeError for an adapter of which the file is the same, but not what lay beside it."""
    for recorded, adapter in zip(recipe.adapters, plan.adapters, strict=True):
        if recorded.scales is not None and recorded.scales != scales_digest(adapter.file):
            raise RecipeError(
                f"adapter {recorded.name}: {adapter.file.path} is the file it was, but its layers have other scales: "
                f"an adapter_config.json gives them, which has to lie beside it, and it has to be called "
                f"{shown(recorded.file)} again"
            )


def _recalled(
    adapter: RecipeAdapter, asked: AdapterSpec | None, beside: Path, library: Library, hashes: dict[Path, str]
) -> Path:
    if asked:
        path = find_adapter(asked, library).path
        if not _is_it(path, adapter, hashes):
            raise _changed(adapter, path, hashes)
        return path
    named = list(dict.fromkeys(_named(adapter, beside, library)))
    for path in dict.fromkeys((*named, *_kept(beside), *_in_library(library))):
        if _is_it(path, adapter, hashes):
            return path
    # Something else under the name it had is worth a word.
    if named:
        raise _changed(adapter, named[0], hashes)
    place = adapter.source if is_remote(adapter.source) else "PATH"
    raise RecipeError(
        f"adapter {adapter.name} ({shown(adapter.file)}, sha256 {adapter.sha256[:_DIGITS]}) is not here: looked for it "
        f"as {shown(adapter.source)}, by its file's name in {beside}, in {beside / KEPT} and in this folder, and in "
        f"the library; --lora {adapter.name}={place} says where it is"
    )


def _is_it(path: Path, adapter: RecipeAdapter, hashes: dict[Path, str]) -> bool:
    """Tell whether a file is an adapter's, by its size where that is known, then by its hash."""
    try:
        if adapter.size is not None and path.stat().st_size != adapter.size:
            return False
        return _hash(path, hashes) == adapter.sha256
    except (OSError, CorruptFileError):
        return False


def _hash(path: Path, hashes: dict[Path, str]) -> str:
    """Hash a file, once."""
    if path not in hashes:
        hashes[path] = sha256_of(path)
    return hashes[path]


def _changed(adapter: RecipeAdapter, path: Path, hashes: dict[Path, str]) -> RecipeError:
    return RecipeError(
        f"adapter {adapter.name}: {path} is not the file it was: sha256 {_hash(path, hashes)[:_DIGITS]} instead of "
        f"{adapter.sha256[:_DIGITS]}; --lora {adapter.name}=PATH says where the one it was is"
    )


def _named(adapter: RecipeAdapter, beside: Path, library: Library) -> Iterator[Path]:
    """Yield the files that go by what the adapter was asked for by, or by its file's name."""
    if is_plain(adapter.source):
        yield from _file(AdapterSpec(adapter.source), library)
    elif is_remote(adapter.source):
        # Only what is here: whoever wrote a recipe does not choose what is downloaded.
        kept = kept_with_hash(adapter.sha256)
        if kept:
            yield kept
    else:
        yield from _file(AdapterSpec(adapter.source), library)
        # Whoever fused wrote paths as seen from the folder that the output was put into.
        for folder in dict.fromkeys((beside, beside.parent, beside.resolve().parent)):
            yield from _file(AdapterSpec(str((folder / adapter.source).absolute())), library)
    name = PureWindowsPath(adapter.file).name
    for folder in (beside, beside / KEPT, Path()):
        if name and (folder / name).is_file():
            yield (folder / name).absolute()


def _kept(beside: Path) -> list[Path]:
    """List all that is in the folder of adapters beside a recipe."""
    return sorted(file.absolute() for file in (beside / KEPT).glob("*") if file.suffix.lower() in ADAPTER_SUFFIXES)


def _in_library(library: Library) -> Iterator[Path]:
    for name in library.entries:
        yield from _file(AdapterSpec(name), library)


def _file(spec: AdapterSpec, library: Library) -> Iterator[Path]:
    """Yield the file that a spec means, if it means one."""
    with suppress(LorakitError):
        yield find_adapter(spec, library, fetch=False).path.absolute()
