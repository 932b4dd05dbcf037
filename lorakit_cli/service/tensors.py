"""Read tensors of adapter and base files, each file opened once."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.lora_file import LoraLayer
from lorakit_cli.core.matching import Part
from lorakit_cli.core.plan import Term
from lorakit_cli.errors import CorruptFileError


class TensorReader:
    """Reads tensors straight to one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = str(device)
        self._stack = ExitStack()
        self._files: dict[Path, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, path: Path, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """Read one tensor or some of its rows. Raises CorruptFileError where the file has changed since its header."""
        try:
            if path not in self._files:
                self._files[path] = self._stack.enter_context(safe_open(path, framework="pt", device=self._device))
            file = self._files[path]
            tensor: Tensor = file.get_tensor(name) if rows is None else file.get_slice(name)[rows[0] : rows[1]]
        except (SafetensorError, OSError) as error:
            raise CorruptFileError(f"{path}: {name} cannot be read: {error}") from error
        return tensor

    def factors(self, term: Term) -> Mapping[str, Tensor]:
        """Read the factors of a term, by role. Raises CorruptFileError where they are not those of the plan."""
        return self.layer(term.file, term.layer)

    def layer(self, path: Path, layer: LoraLayer) -> Mapping[str, Tensor]:
        """Read the factors of a layer, by role. Raises CorruptFileError where they have changed since."""
        factors = {role: self.read(path, key) for role, key in layer.keys.items()}
        for role, factor in factors.items():
            if tuple(factor.shape) != layer.shapes[role]:
                raise CorruptFileError(f"{path} has changed since its header was read: {layer.keys[role]}")
        return factors

    def part(self, base: BaseIndex, part: Part) -> Tensor:
        """Read the part of the base that a layer changes, its rows in the layer's order."""
        file = base.components[part.target.component].tensors[part.target.tensor].local_file
        rows = self.read(file, part.target.tensor, part.into)
        rows = rows.T if part.transposed else rows
        return torch.cat(rows.chunk(2)[::-1]) if part.swapped else rows
