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
    NotALoraError,
    UnknownAdapterError,
    UnsupportedError,
    did_you_mean,
)

if TYPE_CHECKING:
    from lorakit_cli.core.block_scales import BlockScales
    from lorakit_cli.core.hub_reference import HubReference
    from lorakit_cli.sources.library import Library

EMBEDDED = NAME
"""What the embedded model is asked for by."""
ADAPTER_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
BASE_SUFFIXES = (*ADAPTER_SUFFIXES, ".gguf")
_CUSTOMARY = "pytorch_lora_weights.safetensors"
_PEFT, _PEFT_COPY = "adapter_model.safetensors", "adapter_model.bin"


class FoundAdapter(Record):
    """An adapter spec with its file and what the library knows about it."""

    name: str
    path: Path
    weight: float
    origin: str
    triggers: tuple[str, ...] = ()
    base: str | None = None
    block_scales: "BlockScales | None" = None


def find_adapters(specs: Sequence[AdapterSpec], library: "Library", *, allow_pickle: bool = True) -> list[FoundAdapter]:
    """Find the file of every spec. Raises UnknownAdapterError, or AdapterSpecError for two of one name."""
    require_distinct(spec.name for spec in specs)
    return [find_adapter(spec, library, allow_pickle=allow_pickle) for spec in specs]


def find_adapter(
    spec: AdapterSpec, library: "Library", *, fetch: bool = True, allow_pickle: bool = True
) -> FoundAdapter:
    """Find the file of one spec; the weight is the spec's, else the library's, else 1.

    `fetch`: what is on the web and not in the cache is downloaded, without `allow_pickle` not what is no safetensors
    file. Raises UnknownAdapterError, and what `web_file` raises.
    """
    if not is_plain(spec.source):
        path = adapter_path(spec.source, fetch=fetch, allow_pickle=allow_pickle)
        return FoundAdapter(spec.name, path, 1.0 if spec.weight is None else spec.weight, "file")
    entry = library.find(spec.source)
    weight = spec.weight if spec.weight is not None else entry.weight
    return FoundAdapter(
        spec.name,
        adapter_path(entry.source, fetch=fetch, allow_pickle=allow_pickle),
        1.0 if weight is None else weight,
        entry.origin,
        entry.triggers,
        entry.base,
        entry.block_scales,
    )


def adapter_path(source: str, *, fetch: bool = True, allow_pickle: bool = True) -> Path:
    """Find the adapter file a source means: a path's own, the only one in a folder, or one from the web."""
    if source.startswith("http://"):
        raise AdapterSpecError(f"{source}: adapters are fetched over https only")
    if is_web(source):
        return _from_web(source, fetch=fetch, allow_pickle=allow_pickle)
    if is_remote(source):
        raise UnsupportedError(f"{source} is not on this machine; download the file and give its path")
    path = user_path(source)
    if path.is_dir():
        return _only_file(path)
    if not path.is_file():
        folder = path.parent
        siblings = [file.name for file in folder.glob("*.safetensors")] if folder.is_dir() else []
        hint = did_you_mean(path.name, siblings) if folder.is_dir() else f"; there is no folder {folder}"
        raise UnknownAdapterError(f"there is no adapter file {source}{hint}")
    return path


def _from_web(source: str, *, fetch: bool, allow_pickle: bool) -> Path:
    # What knows the web is left alone where all is on this machine.
    from lorakit_cli.sources import web
    from lorakit_cli.sources.web_address import public_source

    if fetch:
        return web.web_file(source, allow_pickle=allow_pickle)
    path = web.cached_file(source)
    if path is None:
        raise UnknownAdapterError(f"{public_source(source)} is not downloaded yet; using or inspecting it does that")
    return path


def _only_file(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"))
    customary = folder / _CUSTOMARY
    if len(files) == 1 or customary in files:
        return customary if customary in files else files[0]
    if not files:
        raise UnknownAdapterError(f"{folder} holds no .safetensors file")
    raise UnknownAdapterError(f"{folder} holds several adapters, name one: {', '.join(file.name for file in files)}")


def find_files(source: str, library: "Library | None" = None, *, allow_pickle: bool = True) -> list[Path]:
    """Find the adapter files that a word on the command line means: a file, all of a folder, or a library name.

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
        return [adapter_path(spec.source, allow_pickle=allow_pickle)]
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
        raise UnknownAdapterError(f"{folder} holds no adapter file ({', '.join(ADAPTER_SUFFIXES)})")
    names = {file.name for file in files}
    return sorted(file for file in files if not (file.name == _PEFT_COPY and _PEFT in names))


def find_base(asked: str | None, library: "Library", adapters: Sequence[FoundAdapter]) -> "Path | HubReference":
    """Find the base: the one asked for, the library's, the one the adapters agree on, the embedded one.

    What is on this machine under the very words wins over the Hub. Raises BaseModelError.
    """
    wanted = asked or library.base
    if wanted is None:
        bases = sorted({adapter.base for adapter in adapters if adapter.base})
        if len(bases) > 1:
            raise BaseModelError(f"the adapters are for different bases, {' and '.join(bases)}; choose with --base")
        wanted = bases[0] if bases else EMBEDDED
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
