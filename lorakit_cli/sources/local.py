"""Find the file an adapter spec means, and the folder, file or Hub repository a base means."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit_cli.core.adapter_spec import AdapterSpec, is_plain, is_remote, is_web, require_distinct
from lorakit_cli.core.record import Record
from lorakit_cli.core.user_path import user_path
from lorakit_cli.demo import BASE, NAME
from lorakit_cli.errors import (
    AdapterSpecError,
    BaseModelError,
    FetchError,
    NotALoraError,
    NotDownloadedError,
    UnknownAdapterError,
    UnsupportedError,
    did_you_mean,
)

if TYPE_CHECKING:
    from lorakit_cli.core.block_scales import BlockScales
    from lorakit_cli.core.hub_file import HubFile
    from lorakit_cli.core.hub_reference import HubReference
    from lorakit_cli.sources.library import Library

EMBEDDED = NAME
"""What the embedded model is asked for by."""
EMBEDDED_FOLDER = BASE
ADAPTER_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
BASE_SUFFIXES = (*ADAPTER_SUFFIXES, ".gguf")
_PEFT, _PEFT_COPY = "adapter_model.safetensors", "adapter_model.bin"


class FoundFile(Record):
    """An adapter file on this machine; `remote` is the reference it is fetched again by, at the same commit."""

    path: Path
    remote: str | None = None


class FoundAdapter(Record):
    """An adapter spec with its file, what the library knows about it, and the reference to it if it is elsewhere."""

    name: str
    path: Path
    weight: float
    origin: str
    triggers: tuple[str, ...] = ()
    base: str | None = None
    block_scales: "BlockScales | None" = None
    remote: str | None = None
    base_from: str = "lorakit.toml"


def find_adapters(
    specs: Sequence[AdapterSpec], library: "Library", *, allow_pickle: bool = False
) -> list[FoundAdapter]:
    """Find the file of every spec, as find_adapter does. Raises AdapterSpecError for two of one name."""
    require_distinct(spec.name for spec in specs)
    return [find_adapter(spec, library, allow_pickle=allow_pickle) for spec in specs]


def find_adapter(
    spec: AdapterSpec, library: "Library", *, allow_pickle: bool = False, download: bool = True
) -> FoundAdapter:
    """Find the file of one spec; the weight is the spec's, else the library's, else 1.

    What is elsewhere is downloaded into a cache, or with `download` False has to be there, else NotDownloadedError is
    raised. Raises UnknownAdapterError, FetchError.
    """
    entry = library.find(spec.source) if is_plain(spec.source) else None
    file = find_file(entry.source if entry else spec.source, allow_pickle=allow_pickle, download=download)
    weight = entry.weight if entry and spec.weight is None else spec.weight
    return FoundAdapter(
        spec.name,
        file.path,
        1.0 if weight is None else weight,
        entry.origin if entry else "Hub" if file.remote else "file",
        entry.triggers if entry else (),
        entry.base if entry else None,
        entry.block_scales if entry else None,
        file.remote,
    )


def find_file(source: str, *, allow_pickle: bool = False, download: bool = True) -> "FoundFile":
    """Find the file that a source means which is no library name: here, or else on the Hub, from where it is fetched.

    Raises UnknownAdapterError, FetchError, PickleError, NotDownloadedError without `download`.
    """
    reference = _on_hub(source)
    if reference is None:
        return FoundFile(adapter_path(source, allow_pickle=allow_pickle, download=download))
    # What speaks to the Hub is left alone where nobody asks for it.
    from lorakit_cli.sources.hub_adapter import hub_adapter

    try:
        path, remote = hub_adapter(reference, allow_pickle=allow_pickle, download=download)
    except FetchError as error:
        local = Path(source)
        if reference.forced or not local.parent.is_dir():
            raise
        raise FetchError(f"{error}; the folder {local.parent} here has none either{beside(local)}") from error
    return FoundFile(path, remote)


def _on_hub(source: str) -> "HubFile | None":
    """Read a source as a reference to the Hub, None where it is a path, an address or here under the very words."""
    if not source.startswith("hf:"):
        if is_remote(source) or source.startswith((".", "~", "/")) or "/" not in source:
            return None
        path = user_path(source)
        is_file = source.lower().endswith(ADAPTER_SUFFIXES)
        # A missing file in a folder that is here is not looked for on the Hub.
        if path.exists() or (is_file and (source.count("/") == 1 or path.parent.is_dir())):
            return None
    from lorakit_cli.core.hub_file import HubFile

    return HubFile.parse(source)


def adapter_path(source: str, *, allow_pickle: bool = False, download: bool = True) -> Path:
    """Find the adapter file a source means: a path's own, the only one in a folder, or one from the web."""
    if source.startswith("http://"):
        raise AdapterSpecError(f"{source}: adapters are fetched over https only")
    if is_web(source):
        return _from_web(source, download=download, allow_pickle=allow_pickle)
    if is_remote(source):
        raise UnsupportedError(f"{source} is not on this machine; download the file and give its path")
    path = user_path(source)
    if path.is_dir():
        return _only_file(path, allow_pickle=allow_pickle)
    if not path.is_file():
        folder = path.parent
        siblings = [file.name for file in folder.glob("*.safetensors")] if folder.is_dir() else []
        hint = did_you_mean(path.name, siblings) if folder.is_dir() else f"; there is no folder {folder}"
        raise UnknownAdapterError(f"there is no adapter file {source}{hint}")
    return path


def _from_web(source: str, *, download: bool, allow_pickle: bool) -> Path:
    # What knows the web is left alone where all is on this machine.
    from lorakit_cli.sources import web
    from lorakit_cli.sources.web_address import without_secret

    if download:
        return web.web_file(source, allow_pickle=allow_pickle)
    path = web.cached_file(source)
    if path is None:
        raise NotDownloadedError(f"{without_secret(source)} is not downloaded yet; using or inspecting it does that")
    return path


def _only_file(folder: Path, *, allow_pickle: bool) -> Path:
    from lorakit_cli.sources.adapter_choice import choose_file

    try:
        names = [file.name for file in folder.iterdir() if file.is_file()]
    except OSError as error:
        raise UnknownAdapterError(f"{folder} cannot be read: {error.strerror}") from error
    return folder / choose_file(names, "", str(folder), lambda name: f"{folder}/{name}", allow_pickle=allow_pickle)


def find_files(source: str, library: "Library | None" = None, *, allow_pickle: bool = False) -> list[Path]:
    """Find the adapter files that a word on the command line means: a file, all of a folder, or what a spec may name.

    The library is opened only for a word that can be a name. Raises UnknownAdapterError, also for a folder without
    any adapter file, NotALoraError for a pipeline folder.
    """
    # What is there under this very name is meant, whatever characters the name has; an address may be no path at all.
    if not source.startswith("https://"):
        path = user_path(source)
        if path.is_file():
            return [path]
        if path.is_dir():
            return _files_in(path)
    spec = AdapterSpec.parse(source)
    if not is_plain(spec.source):
        return [find_file(spec.source, allow_pickle=allow_pickle).path]
    if library is None:
        from lorakit_cli.sources.library import open_library

        library = open_library()
    return [find_adapter(spec, library, allow_pickle=allow_pickle).path]


def _files_in(folder: Path) -> list[Path]:
    """List the adapter files of a folder by name; of peft's two copies of one adapter the safetensors file."""
    if (folder / "model_index.json").is_file():
        raise NotALoraError(f"{folder} is a diffusers pipeline, a base and no adapter; give it with --base")
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in ADAPTER_SUFFIXES and not file.is_dir()]
    except OSError as error:
        raise UnknownAdapterError(f"{folder} cannot be read: {error.strerror}") from error
    if not files:
        # What lorakit itself writes for peft where several components are adapted.
        parts = sorted(str(path.parent) for path in folder.glob(f"*/{_PEFT}"))
        near = f"; name one of {', '.join(parts)}" if parts else ""
        raise UnknownAdapterError(f"{folder} holds no adapter file ({', '.join(ADAPTER_SUFFIXES)}){near}")
    names = {file.name for file in files}
    return sorted(file for file in files if not (file.name == _PEFT_COPY and _PEFT in names))


def find_base(asked: str | None, library: "Library", adapters: Sequence[FoundAdapter]) -> "Path | HubReference":
    """Find the base: the one asked for, the library's, the one the adapters agree on, the embedded one.

    What is on this machine under the very words wins over the Hub. Raises BaseModelError.
    """
    wanted = asked or library.base
    if wanted is None:
        bases = {
            adapter.base: f"{adapter.name} for {adapter.base} ({adapter.base_from})"
            for adapter in adapters
            if adapter.base
        }
        if len(bases) > 1:
            raise BaseModelError(
                f"the adapters are for different bases: {', '.join(bases.values())}; choose with --base"
            )
        wanted = next(iter(bases), EMBEDDED)
    # A name is a name: a folder that happens to be called so is written ./demo.
    if wanted == EMBEDDED:
        return BASE
    path = user_path(wanted)
    if path.is_dir():
        return _referenced(path) or path
    if path.exists():
        return path
    # What tells paths from repositories is left alone where a path is there.
    from lorakit_cli.core.hub_reference import HubReference

    # A missing file is not looked for on the Hub.
    on_hub = None if path.suffix.lower() in BASE_SUFFIXES else HubReference.parse(wanted)
    if on_hub:
        return on_hub
    near = did_you_mean(wanted, [EMBEDDED]) or beside(path)
    raise BaseModelError(
        f"there is no base {wanted!r}{near}{'' if near else ';'} give the path of a diffusers pipeline folder or "
        f"checkpoint, a Hub repository as owner/name, or {EMBEDDED} for the embedded one"
    )


def _referenced(path: Path) -> "Path | HubReference | None":
    """Give the base that a folder of adapters was saved for, None for a folder that is a base itself."""
    # What indexes pipelines is left alone where an adapter is looked for.
    from lorakit_cli.core.pipeline_folder import MODEL_INDEX

    if (path / MODEL_INDEX).exists():
        return None
    from lorakit_cli.sources.saved_folder import referenced_base

    base = referenced_base(path)
    if base is None or user_path(base).resolve() == path.resolve():
        return None
    from lorakit_cli.sources.library import Library

    return find_base(base, Library({}), ())


def is_embedded(place: object) -> bool:
    """Tell whether a base is the embedded model, which goes by EMBEDDED."""
    return place == BASE


def beside(path: Path) -> str:
    """Give a sentence that names what is called alike in the folder of a path that is missing, or nothing."""
    try:
        return did_you_mean(path.name, (other.name for other in path.parent.iterdir()))
    except OSError:
        return ""
