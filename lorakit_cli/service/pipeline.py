"""Open a base as a diffusers pipeline on a device, and reach its live parameters by their names in the file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from diffusers import DiffusionPipeline
from torch import nn

from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.delta import as_matrix
from lorakit_cli.core.match import Part
from lorakit_cli.core.place import Place
from lorakit_cli.errors import BaseModelError, LorakitError
from lorakit_cli.service.bases import require_folder
from lorakit_cli.service.memory import is_out_of_memory

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def choose_dtype(asked: str, device: torch.device, base: BaseIndex) -> torch.dtype:
    """Give the dtype asked for; `auto` is float32 on the CPU, else what the denoiser is stored in."""
    if asked != "auto":
        return DTYPES[asked]
    if device.type == "cpu":
        return torch.float32
    denoiser = base.components.get("unet") or base.components.get("transformer")
    tensors = denoiser.tensors.values() if denoiser else ()
    stored = next((_STORED[tensor.info.dtype] for tensor in tensors if tensor.info.dtype in _STORED), torch.float16)
    # A base kept in float32 was not made to run so on a GPU.
    return torch.float16 if stored is torch.float32 else stored


@contextmanager
def told_by_diffusers(base: BaseIndex) -> Iterator[None]:
    """Raise BaseModelError with the reason for which a base cannot be loaded."""
    try:
        yield
    except LorakitError:
        raise
    except Exception as error:
        # Whatever diffusers stumbles over in a base from anywhere, from KeyError to OverflowError, is the base's.
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(f"diffusers cannot load {base.path}: {reason}") from error


def open_pipeline(
    base: BaseIndex, device: torch.device, dtype: torch.dtype | Mapping[str, torch.dtype], **parts: Any
) -> Any:
    """Load a base in a dtype, or each component in its own, without touching the network.

    `parts` are components that take the place of the base's, by their names. Raises BaseModelError with diffusers'
    reason, UnsupportedError for a base that is no folder.
    """
    require_folder(base.path)
    with told_by_diffusers(base):
        pipeline = DiffusionPipeline.from_pretrained(
            str(base.path),
            dtype=dict(dtype) if isinstance(dtype, Mapping) else dtype,
            variant=base.variant,
            use_safetensors=True,
            local_files_only=True,
            **parts,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


class View(NamedTuple):
    """The rows of a tensor in the file from `first` on, as a matrix in the memory of the live parameter."""

    first: int
    matrix: torch.Tensor


class LiveComponent:
    """A loaded component, its parameters and modules found by their names in the file."""

    def __init__(self, pipeline: Any, component: BaseComponent) -> None:
        self.component = component
        self.module: nn.Module = getattr(pipeline, component.name)
        self._parameters: dict[str, nn.Parameter] = dict(self.module.named_parameters())
        self._places: dict[str, list[tuple[str, Place]]] = {}
        for name, place in (component.places or {}).items():
            self._places.setdefault(place.tensor, []).append((name, place))

    def name_of(self, parameter: str) -> str:
        """Give the live name of a parameter. Raises BaseModelError where the loaded module has none."""
        for spelling in self.component.spellings(parameter):
            if spelling in self._parameters:
                return spelling
        raise BaseModelError(f"the loaded {self.component.name} has no parameter {parameter}; is the base complete?")

    def parameter(self, name: str) -> nn.Parameter:
        """Give the live parameter of a name."""
        return self._parameters[self.name_of(name)]

    def is_swapped(self, part: Part) -> bool:
        """Tell whether the halves of a part's rows stand the other way round in the live parameter."""
        place = self.component.place(part.parameter)
        return place is not None and part.swapped != place.swapped

    def views(self, tensor: str) -> list[View]:
        """Give what lives of a tensor in the file: one parameter, or several that lie in it."""
        return [view for name, place in self._in(tensor) for view in _views(self.parameter(name), place)]

    def _in(self, tensor: str) -> list[tuple[str, Place]]:
        return self._places[tensor] if self.component.places is not None else [(tensor, Place(tensor))]


def _views(parameter: torch.Tensor, place: Place) -> list[View]:
    matrix = parameter.view(as_matrix(parameter.shape))
    first = place.rows[0] if place.rows else 0
    if place.transposed:
        return [View(first, matrix.T)]
    if place.swapped:
        half = len(matrix) // 2
        return [View(first, matrix[half:]), View(first + half, matrix[:half])]
    return [View(first, matrix)]
