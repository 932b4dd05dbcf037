"""Index a diffusers pipeline in a folder of this machine."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorakit_cli.core.architecture import Architecture
from lorakit_cli.core.base_index import BaseIndex, with_architectures
from lorakit_cli.core.pipeline_folder import index_pipeline, json_object
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.errors import BaseModelError


def read_base_index(path: Path, variant: str | None = None, architectures: Sequence[Architecture] = ()) -> BaseIndex:
    """Index a diffusers folder; takes its only variant where it has no plain weights. Raises BaseModelError.

    A broken header of a weight file raises CorruptFileError.
    """
    return with_architectures(index_pipeline(LocalFolder(path), variant), architectures)


class LocalFolder:
    """A pipeline's folder; what cannot be read of it raises BaseModelError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def files(self, folder: str = "") -> Collection[str] | None:
        """List the files directly in it or in a folder of it, None where there is no such folder."""
        inside = self.path / folder
        try:
            return frozenset(file.name for file in inside.iterdir() if file.is_file()) if inside.is_dir() else None
        except OSError as error:
            raise BaseModelError(f"{inside} cannot be read: {error.strerror}") from error

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON object."""
        return json_object(self.path / name, self.path / name)

    def tensors(self, name: str) -> Mapping[str, TensorInfo]:
        """Read the header of a safetensors file."""
        path = self.path / name
        try:
            return read_header(path).tensors
        except OSError as error:
            raise BaseModelError(f"{path} cannot be read: {error.strerror}") from error
