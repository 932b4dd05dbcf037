"""Find the base of a recipe again, wherever it is by now, and tell by its digests whether it is the one it was."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PureWindowsPath

from lorakit_cli.core.base_digest import differing_files
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.hub_reference import HubReference
from lorakit_cli.core.recipe import RecipeBase
from lorakit_cli.core.shown import shown
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import BaseModelError, CorruptFileError, LorakitError, PathError, RecipeError
from lorakit_cli.service.bases import open_base
from lorakit_cli.sources.hub_snapshot import hub_snapshot
from lorakit_cli.sources.library import Library
from lorakit_cli.sources.local import find_base

_DIGITS = 12


@dataclass(frozen=True, slots=True)
class RecalledBase:
    """What was found for a recorded base: the base, or the first thing in its place that is not what it was.

    `differs` names the files of weights in which it is not; `looked` says where it was looked for.
    """

    recorded: RecipeBase
    index: BaseIndex | None
    differs: tuple[str, ...]
    looked: str

    @property
    def is_there(self) -> bool:
        """Whether it is at hand, as it was."""
        return self.index is not None and not self.differs

    def require(self) -> BaseIndex:
        """Give the base. Raises RecipeError where it is not there, or not as it was."""
        if self.index is None:
            raise RecipeError(f"{self.missing}; --base PATH says where it is")
        if self.differs:
            raise RecipeError(f"{self.changed}; --base PATH says where the one it was is")
        return self.index

    @property
    def missing(self) -> str:
        """Say that it is not there."""
        name, digest = max(self.recorded.files.items(), key=lambda file: file[1].size, default=("", None))
        known = f" ({shown(name)} of xxh3 {digest.xxh3[:_DIGITS]})" if digest else ""
        remote = self.recorded.remote
        on_hub = f"; it is on the Hub as {remote}, of which nothing is downloaded" if remote else ""
        return f"the base {shown(self.recorded.source)}{known} is not here: looked for it {self.looked}{on_hub}"

    @property
    def changed(self) -> str:
        """Say that it is not what it was."""
        assert self.index is not None
        first = self.differs[0]
        digest = self.recorded.files.get(first)
        more = f" and {len(self.differs) - 1} more files" if len(self.differs) > 1 else ""
        what = f"differs from what the recipe has, xxh3 {digest.xxh3[:_DIGITS]}" if digest else "is not in the recipe"
        return f"{self.index.path} is not the base it was: {shown(first)} {what}{more}"


def recall_base(
    recorded: RecipeBase,
    beside: Path,
    library: Library,
    asked: str | None = None,
    *,
    every: bool = False,
    allow_pickle: bool = False,
    elsewhere: Iterable[str] = (),
) -> RecalledBase:
    """Look for a recorded base as it was asked for then, from here and from `beside`, the folder of the recipe.

    What is `asked` for is the only place; else the first that is the base it was wins, and without one what is
    where it was then is given. With `every`, all files in which that differs are named, else the first alone. Raises
    BaseModelError for something asked for that is no base. `elsewhere` are further places to look in.
    """
    first: tuple[BaseIndex, tuple[str, ...]] | None = None
    looked = f"as {shown(asked or recorded.source)}"
    if not asked:
        looked += f", also in {beside} and in {beside.parent}"
    places = {asked: True} if asked else _places(recorded, beside, library, elsewhere)
    for place, sure in places.items():
        try:
            index = _opened(place, recorded, library, allow_pickle=allow_pickle)
            differs = None if index is None else tuple(islice(differing_files(index, recorded.files), 1))
        except (LorakitError, OSError) as error:
            if asked:
                raise error if isinstance(error, LorakitError) else BaseModelError(f"{asked}: {error}") from error
            # A download that was cut off is there, and yet of no use.
            looked += f" ({error})" if isinstance(error, CorruptFileError) else ""
            continue
        if index is None:
            continue
        if not differs:
            return RecalledBase(recorded, index, (), looked)
        if sure and not first:
            first = index, differs
    if first is None:
        return RecalledBase(recorded, None, (), looked)
    index, differs = first
    if every:
        differs = tuple(differing_files(index, recorded.files))
    return RecalledBase(recorded, index, differs, looked)


def _places(recorded: RecipeBase, beside: Path, library: Library, elsewhere: Iterable[str]) -> dict[str, bool]:
    """List what the base may be asked for by, and whether it is what it was asked for by then."""
    places = {recorded.source: True}
    if recorded.remote:
        places[recorded.remote] = True
    # Whoever fused wrote paths as seen from the folder that the output was put into; later both were moved together.
    around = dict.fromkeys((beside, beside.parent, beside.resolve().parent))
    for path in _existing(recorded.source, around):
        places.setdefault(path, True)
    for path in _existing(PureWindowsPath(recorded.source).name, (*around, Path())):
        places.setdefault(path, False)
    if library.base:
        places.setdefault(library.base, False)
    return places | {place: places.get(place, False) for place in elsewhere}


def _existing(text: str, around: Iterable[Path]) -> Iterator[str]:
    for folder in around:
        with suppress(PathError):
            path = user_path(str(folder / text)).absolute()
            if text and path.exists():
                yield str(path)


def _opened(place: str, recorded: RecipeBase, library: Library, *, allow_pickle: bool) -> BaseIndex | None:
    """Index what is in a place, None where nothing is, or nothing of a repository is on this machine."""
    found = find_base(place, library, ())
    if isinstance(found, HubReference):
        snapshot = hub_snapshot(found.repo, found.revision)
        # The client may have fetched only some of it.
        if snapshot is None or not all((snapshot / name).is_file() for name in recorded.files):
            return None
        found = snapshot
    variant = recorded.variant if found.is_dir() else None
    return open_base(str(found.absolute()), library, variant=variant, allow_pickle=allow_pickle)
