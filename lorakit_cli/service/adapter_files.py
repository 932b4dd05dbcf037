"""Write adapters to be kept beside a base: in diffusers' layout, or byte for byte in their own."""

from pathlib import Path

from lorakit_cli.core.adapter_metadata import metadata_beside
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.file_copy import copy_file
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.new_tensor import NewTensor, write_tensors
from lorakit_cli.core.source import Source
from lorakit_cli.errors import LorakitError, OutputError
from lorakit_cli.service.converted_file import write_adapter
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.service.save_request import LAYOUT, KeptAdapter


def write_kept(kept: KeptAdapter, base: BaseIndex, path: Path) -> int:
    """Write one adapter and give the size of its file. Raises OutputError where it would not mean the same."""
    file = kept.adapter.file
    if kept.reason:
        _copy(file, path)
        return path.stat().st_size
    with path.open("xb") as out, Source(file.data) as source:
        return write_adapter(out, path, LAYOUT, base, kept.layers, file.metadata, source)


def _copy(file: LoraFile, path: Path) -> None:
    """Copy a file; settings that lie beside it, which peft keeps so, go into its metadata."""
    settings = metadata_beside(file.path)
    if settings:
        tensors = [
            NewTensor(name, info.dtype, info.shape, ((info.begin, info.end),)) for name, info in file.tensors.items()
        ]
        with path.open("xb") as out, Source(file.data) as source:
            write_tensors(out, tensors, {**file.metadata, **settings}, source)
    else:
        copy_file(file.data, path)
    try:
        same = open_adapter(path).layers == file.layers
    except LorakitError as error:
        raise OutputError(f"{file.path} cannot be kept as it is: {error}") from error
    if not same:
        raise OutputError(f"{file.path} cannot be kept as it is: as {path.name} it would not mean the same")
