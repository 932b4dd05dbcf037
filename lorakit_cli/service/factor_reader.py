"""Read factors as numpy's arrays: products of thin factors are done with before torch would have started."""

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lorakit_cli.core.lora_file import LoraLayer
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service.stored_values import DTYPES, widened
from lorakit_cli.service.tensor_bytes import TensorBytes

if TYPE_CHECKING:
    from lorakit_cli.service.tensors import TensorReader


class FactorReader(TensorBytes):
    """Reads values from files that stay open until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self._tensors: TensorReader | None = None
        self._starting = Lock()

    @property
    def tensors(self) -> "TensorReader":
        """Reads the same to the device on which whole changes are computed in fp64.

        The first use starts torch, which must not happen in one thread while others compute.
        """
        with self._starting:
            if self._tensors is None:
                from lorakit_cli.service.devices import fp64_device
                from lorakit_cli.service.tensors import TensorReader

                self._tensors = self._stack.enter_context(TensorReader(fp64_device()))
            return self._tensors

    def values(self, path: Path, name: str, wide: DTypeLike) -> NDArray[Any]:
        """Read a tensor of floating numbers as an array of its own. Raises CorruptFileError."""
        place = self.find(path, name)
        if place.dtype not in DTYPES:
            raise CorruptFileError(f"{path}: {name} is {place.dtype}, which are no values by themselves")
        data = np.empty(place.end - place.begin, np.uint8)
        self.fill(path, name, place, data.data)
        return widened(data, place.dtype, wide).reshape(place.shape)

    def layer(self, path: Path, layer: LoraLayer, wide: DTypeLike) -> dict[str, NDArray[Any]]:
        """Read the factors of a layer, by role. Raises CorruptFileError where they have changed since."""
        factors = {role: self.values(path, key, wide) for role, key in layer.keys.items()}
        for role, factor in factors.items():
            if factor.shape != layer.shapes[role]:
                raise CorruptFileError(f"{path} has changed since its header was read: {layer.keys[role]}")
        return factors
