"""Find the adapters of a recipe again, wherever their files are by now and whatever they are called, by sha256."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PureWindowsPath

from lorakit_cli.core.adapter_spec import AdapterSpec, is_plain, is_remote, is_web, require_distinct
from lorakit_cli.core.plan import Plan
from lorakit_cli.core.recipe import Recipe, RecipeAdapter
from lorakit_cli.core.scales_digest import scales_digest
from lorakit_cli.core.shown import shown
from lorakit_cli.errors import CorruptFileError, LorakitError, OptionError, RecipeError, did_you_mean
from lorakit_cli.service.adapter_digests import digest_of, places_of_adapter
from lorakit_cli.sources.library import Library
from lorakit_cli.sources.local import ADAPTER_SUFFIXES, find_adapter, find_file
from lorakit_cli.sources.web_cache import kept_with_hash

# Where `save` keeps them.
KEPT = "adapters"
_DIGITS = 12


def recall_adapters(
    recipe: Recipe,
    beside: Path,
    library: Library,
    given: Sequence[AdapterSpec] = (),
    *,
    changed: bool = False,
    otherwise: str = "",
) -> tuple[Path, ...]:
    """Find the file of each adapter of a recipe. `beside` is the folder of the recipe.

    What is `given` under an adapter's name is the only place for it. Raises RecipeError for one that is not there or
    not what it was, unless `changed` allows that, which `otherwise` says how to do; OptionError for a spec that says
    more than where one of them is.
    """
    asked = require_places(recipe, given)
    search = _Search(beside, library, {}, changed, otherwise)
    return tuple(search.find(adapter, asked.get(adapter.name)) for adapter in recipe.adapters)


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


@dataclass(frozen=True, slots=True)
class _Search:
    """Where to look, the hashes of what was looked at, and what may be said of a file that is another one."""

    beside: Path
    library: Library
    hashes: dict[Path, str]
    changed: bool
    otherwise: str

    def find(self, adapter: RecipeAdapter, asked: AdapterSpec | None) -> Path:
        """Find the file of an adapter. Raises RecipeError."""
        if asked:
            path = find_adapter(asked, self.library).path
            if not self.changed and not _is_it(path, adapter, self.hashes):
                raise self._changed(adapter, path)
            return path
        beside = self.beside
        named = list(dict.fromkeys(_named(adapter, beside, self.library)))
        others = (_kept(beside), _in_library(self.library), _around(adapter, beside), places_of_adapter(adapter.sha256))
        for path in dict.fromkeys(chain(named, *others)):
            if _is_it(path, adapter, self.hashes):
                return path
        fetched, reason = _fetched(adapter)
        if fetched and _is_it(fetched, adapter, self.hashes):
            return fetched
        # Something else under the name it had is worth a word.
        named += [fetched] if fetched else []
        if named and self.changed:
            return named[0]
        if named:
            raise self._changed(adapter, named[0])
        place = adapter.source if is_web(adapter.source) else "PATH"
        raise RecipeError(
            f"adapter {adapter.name} ({shown(adapter.file)}, sha256 {adapter.sha256[:_DIGITS]}) is not here: looked "
            f"for it as {shown(adapter.source)}, by its file's name in {beside}, in {beside / KEPT} and in this "
            f"folder, and in the library{reason}; --lora {adapter.name}={place} says where it is"
        )

    def _changed(self, adapter: RecipeAdapter, path: Path) -> RecipeError:
        return RecipeError(
            f"adapter {adapter.name}: {path} is not the file it was: sha256 {_hash(path, self.hashes)[:_DIGITS]} "
            f"instead of {adapter.sha256[:_DIGITS]}; --lora {adapter.name}=PATH says where the one it was is"
            f"{self.otherwise}"
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
        hashes[path] = digest_of(path)
    return hashes[path]


def _named(adapter: RecipeAdapter, beside: Path, library: Library) -> Iterator[Path]:
    """Yield the files that go by what the adapter was asked for by, or by its file's name."""
    if is_web(adapter.source):
        # Only what is here: whoever wrote a recipe does not choose what is downloaded.
        kept = kept_with_hash(adapter.sha256)
        if kept:
            yield kept
        return
    yield from _file(AdapterSpec(adapter.source), library)
    if not (is_plain(adapter.source) or is_remote(adapter.source)):
        # Whoever fused wrote paths as seen from the folder that the output was put into.
        for folder in dict.fromkeys((beside, beside.parent, beside.resolve().parent)):
            yield from _file(AdapterSpec(str((folder / adapter.source).absolute())), library)
    name = PureWindowsPath(adapter.file).name
    for folder in (beside, beside / KEPT, Path()):
        if name and (folder / name).is_file():
            yield (folder / name).absolute()


def _fetched(adapter: RecipeAdapter) -> tuple[Path | None, str]:
    """Fetch an adapter from where it was fetched then, or say why that fails."""
    if not is_remote(adapter.source) or is_web(adapter.source):
        return None, ""
    try:
        return find_file(adapter.source, allow_pickle=True).path.absolute(), ""
    except LorakitError as error:
        return None, f" ({error})"


def _kept(beside: Path) -> list[Path]:
    """List all that is in the folder of adapters beside a recipe."""
    return sorted(file.absolute() for file in (beside / KEPT).glob("*") if file.suffix.lower() in ADAPTER_SUFFIXES)


def _around(adapter: RecipeAdapter, beside: Path) -> Iterator[Path]:
    """Yield the files beside a recipe and here that have the adapter's size, whatever they are called by now."""
    for folder in dict.fromkeys((beside, Path())) if adapter.size is not None else ():
        for file in sorted(folder.glob("*")):
            with suppress(OSError):
                if file.suffix.lower() in ADAPTER_SUFFIXES and file.stat().st_size == adapter.size:
                    yield file.absolute()


def _in_library(library: Library) -> Iterator[Path]:
    for name in library.entries:
        yield from _file(AdapterSpec(name), library)


def _file(spec: AdapterSpec, library: Library) -> Iterator[Path]:
    """Yield the file that a spec means, if it means one that is here."""
    with suppress(LorakitError):
        yield find_adapter(spec, library, allow_pickle=True, download=False).path.absolute()
