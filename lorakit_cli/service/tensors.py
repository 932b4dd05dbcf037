"""Read tensors of adapter and base files to the device that computes with them."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.delta import in_layer_order
from lorakit_cli.core.lora_file import LoraLayer
from lorakit_cli.core.match import Part
from lorakit_cli.core.plan import Term
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service.dtypes import TORCH_DTYPES
from lorakit_cli.service.tensor_bytes import TensorBytes


class KeptTensors:
    """Small tensors that were read before, until they come to so many bytes: it is small ones that take long to read.

    One of more bytes than `largest` is not kept, so that it does not take the room of many.
    """

    def __init__(self, most: int = 1 << 26, largest: int = 1 << 20) -> None:
        self._left, self._largest = most, largest
        self._tensors: dict[tuple[Path, str], Tensor] = {}
        self._adding = Lock()

    def get(self, path: Path, name: str) -> Tensor | None:
        """Give a tensor that is not to be written to, if it was kept."""
        return self._tensors.get((path, name))

    def add(self, path: Path, name: str, tensor: Tensor) -> None:
        """Keep a tensor, if it is small and there is room for it."""
        with self._adding:
            if tensor.nbytes <= min(self._left, self._largest) and (path, name) not in self._tensors:
                self._left -= tensor.nbytes
                self._tensors[path, name] = tensor


class TensorReader(TensorBytes):
    """Reads tensors to one device; with `kept`, small ones only once."""

    def __init__(self, device: torch.device, kept: KeptTensors | None = None) -> None:
        super().__init__()
        self.device = device
        self._kept = kept

    def read(self, path: Path, name: str, rows: tuple[int, int] | None = None) -> Tensor:
        """Read one tensor or some of its rows. Raises CorruptFileError where the file has changed since its header."""
        if self._kept is None or rows is not None:
            return self._read(path, name, rows)
        tensor = self._kept.get(path, name)
        if tensor is None:
            tensor = self._read(path, name, None)
            self._kept.add(path, name, tensor)
        return tensor

    def _read(self, path: Path, name: str, rows: tuple[int, int] | None) -> Tensor:
        place = self.find(path, name, rows)
        if place.dtype not in TORCH_DTYPES:
            raise CorruptFileError(f"{path}: {name} is {place.dtype}, a dtype that torch has not")
        data = torch.empty(place.end - place.begin, dtype=torch.uint8)
        self.fill(path, name, place, data.numpy().data)
        return data.view(TORCH_DTYPES[place.dtype]).view(place.shape).to(self.device)

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
        return in_layer_order(self.read(file, part.target.tensor, part.into), part)
