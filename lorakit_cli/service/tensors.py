"""Read tensors of adapter and base files, each file opened once."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorakit_cli.core.lora_file import ALPHA
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

    def read(self, path: Path, name: str) -> Tensor:
        """Read one tensor. Raises CorruptFileError where the file has changed since its header was read."""
        try:
            if path not in self._files:
                self._files[path] = self._stack.enter_context(safe_open(path, framework="pt", device=self._device))
            tensor: Tensor = self._files[path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CorruptFileError(f"{path}: {name} cannot be read: {error}") from error
        return tensor

    def factors(self, term: Term) -> Mapping[str, Tensor]:
        """Read the factors of a term, by role. Raises CorruptFileError where they are not those of the plan."""
        factors = {role: self.read(term.file, key) for role, key in term.layer.keys.items() if role != ALPHA}
        for role, factor in factors.items():
            if tuple(factor.shape) != term.layer.shapes[role]:
                raise CorruptFileError(f"{term.file} has changed since it was planned: {term.layer.keys[role]}")
        return factors
