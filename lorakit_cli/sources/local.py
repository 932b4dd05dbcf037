"""Find the file an adapter spec means and the folder a base means, on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorakit_cli.core.adapter_spec import AdapterSpec, is_plain, is_remote, require_distinct
from lorakit_cli.core.user_path import user_path
from lorakit_cli.demo import BASE
from lorakit_cli.demo import NAME as EMBEDDED
from lorakit_cli.errors import AdapterSpecError, BaseModelError, UnknownAdapterError, UnsupportedError, did_you_mean
from lorakit_cli.sources.library import Library

_CUSTOMARY = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, slots=True)
class FoundAdapter:
    """An adapter spec with its file and what the library knows about it."""

    name: str
    path: Path
    weight: float
    origin: str
    triggers: tuple[str, ...] = ()
    base: str | None = None


def find_adapters(specs: Sequence[AdapterSpec], library: Library) -> list[FoundAdapter]:
    """Find the file of every spec. Raises UnknownAdapterError, or AdapterSpecError for two of one name."""
    require_distinct(spec.name for spec in specs)
    return [find_adapter(spec, library) for spec in specs]


def find_adapter(spec: AdapterSpec, library: Library) -> FoundAdapter:
    """Find the file of one spec; the weight is the spec's, else the library's, else 1."""
    if not is_plain(spec.source):
        return FoundAdapter(spec.name, adapter_path(spec.source), 1.0 if spec.weight is None else spec.weight, "file")
    entry = library.find(spec.source)
    weight = spec.weight if spec.weight is not None else entry.weight
    path = adapter_path(entry.source)
    return FoundAdapter(spec.name, path, 1.0 if weight is None else weight, entry.origin, entry.triggers, entry.base)


def adapter_path(source: str) -> Path:
    """Find the adapter file a path means: itself, or the only one in a folder."""
    if source.startswith("http://"):
        raise AdapterSpecError(f"{source}: adapters are fetched over https only")
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


def _only_file(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"))
    customary = folder / _CUSTOMARY
    if len(files) == 1 or customary in files:
        return customary if customary in files else files[0]
    if not files:
        raise UnknownAdapterError(f"{folder} holds no .safetensors file")
    raise UnknownAdapterError(f"{folder} holds several adapters, name one: {', '.join(file.name for file in files)}")


def find_base(asked: str | None, library: Library, adapters: Sequence[FoundAdapter]) -> Path:
    """Find the base folder: the one asked for, the library's, the one the adapters agree on, the embedded one."""
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
        return path
    if path.is_file():
        raise BaseModelError(f"{wanted} is a file; a base is a diffusers pipeline folder (one with model_index.json)")
    raise BaseModelError(
        f"there is no base {wanted!r}; give the path of a diffusers pipeline folder, or {EMBEDDED} for the embedded one"
    )
