"""Open the base that was asked for, whatever it is: a pipeline folder, a checkpoint, or a repository on the Hub."""

from collections.abc import Sequence
from pathlib import Path, PurePath

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.architectures.single_files import LAYOUTS, STRANGERS
from lorakit_cli.core.base_index import BaseIndex, with_architectures
from lorakit_cli.core.hub_reference import HubReference
from lorakit_cli.core.local_folder import read_base_index
from lorakit_cli.core.private_folder import private_folder
from lorakit_cli.core.single_file import read_single_file
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import BaseModelError, OptionError, UnsupportedError
from lorakit_cli.kinds import KINDS
from lorakit_cli.sources.hub import hub_index
from lorakit_cli.sources.library import Library
from lorakit_cli.sources.local import FoundAdapter, beside, find_base

_ADAPTER_SUFFIXES = frozenset(suffix for kind in KINDS for suffix in kind.suffixes)
# What people have as a base that is no safetensors file, by the end of its name.
_OTHERS = {
    "model_index.json": "is one file of a pipeline; give the folder it is in",
    ".gguf": "is quantized, and nothing can be added to it; take the model in 16 bit, as safetensors",
} | dict.fromkeys(
    (".ckpt", ".pt", ".pth", ".bin"),
    "is a pickle, and only safetensors are read; most models are published as .safetensors too",
)


def open_base(
    asked: str | None,
    library: Library,
    found: Sequence[FoundAdapter] = (),
    *,
    variant: str | None = None,
    allow_pickle: bool = False,
) -> BaseIndex:
    """Index the base asked for, or the one that follows from library and adapters, from headers alone.

    `variant` picks the weights of a folder that has several, `allow_pickle` reads those that are only pickled.
    Raises BaseModelError, or CorruptFileError for a broken header.
    """
    place = find_base(asked, library, found)
    if isinstance(place, HubReference):
        index = _on_hub(place, variant)
    elif place.is_dir():
        index = read_base_index(_whole(place, allow_pickle=allow_pickle), variant)
    else:
        if variant:
            raise OptionError(f"--variant {variant}: {place} is a single file, which has no variants")
        index = _checkpoint(place)
    return with_architectures(index, ARCHITECTURES)


def open_weights(asked: str, library: Library, *, variant: str | None = None, allow_pickle: bool = False) -> BaseIndex:
    """Index a base of which nothing but weights is read, by the path asked for even where its pickles are copied.

    Raises what open_base does.
    """
    index = open_base(asked, library, variant=variant, allow_pickle=allow_pickle)
    if allow_pickle and index.path.parent == private_folder():
        # Of a copy without pickles nobody has heard.
        return index._replace(path=user_path(asked))
    return index


def _whole(folder: Path, *, allow_pickle: bool) -> Path:
    if not allow_pickle:
        return folder
    # Only what is about to open a pickle needs to know how.
    from lorakit_cli.service.unpickled_base import unpickled_base

    return unpickled_base(folder)


def require_folder(path: PurePath) -> None:
    """Raise UnsupportedError for a base that is a file, with a way to a folder of it."""
    if not Path(path).is_dir():
        raise UnsupportedError(
            f"{path} is a single file, and this needs a pipeline folder; diffusers' from_single_file and "
            "save_pretrained make one of it"
        )


def _checkpoint(path: Path) -> BaseIndex:
    """Index a single-file checkpoint."""
    if path.suffix.lower() != ".safetensors":
        name = path.name.lower()
        what = next((what for end, what in _OTHERS.items() if name.endswith(end)), "is no safetensors file")
        raise BaseModelError(f"{path} {what}")
    try:
        return read_single_file(path, LAYOUTS, STRANGERS, _ADAPTER_SUFFIXES)
    except OSError as error:
        raise BaseModelError(f"{path} cannot be read: {error.strerror}") from error


def _on_hub(place: HubReference, variant: str | None) -> BaseIndex:
    """Index a pipeline on the Hub; where it cannot be, a path with a misspelt end may have been meant."""
    try:
        return hub_index(place.repo, place.revision, variant)
    except BaseModelError as error:
        path = Path(place.repo)
        if path.exists() or not path.parent.is_dir():
            raise
        raise BaseModelError(f"{error}; the folder {path.parent} here has none either{beside(path)}") from error
