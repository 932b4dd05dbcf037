"""The checkpoint in one file that a pipeline becomes: its header, and which tensors of the base it is made of."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lorakit_cli.core.architecture import Shape
from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.checkpoint_wording import Wording
from lorakit_cli.core.match import Target
from lorakit_cli.core.new_tensor import NewTensor, header_of, in_order
from lorakit_cli.core.shown import shown
from lorakit_cli.core.tensor_info import BIT_SIZES, FLOATS
from lorakit_cli.core.weights_file import Piece, WeightsFile
from lorakit_cli.errors import UnsupportedError


class KeptTensor(NamedTuple):
    """A tensor of a checkpoint: its name, dtype and shape there, and the parameters whose rows it stacks in order.

    `parameters` are called as published files call them, `sizes` are those of their data in bytes.
    """

    name: str
    dtype: str
    shape: Shape
    parameters: tuple[str, ...]
    targets: tuple[Target, ...]
    sizes: tuple[int, ...]
    transposed: bool


def kept_tensors(base: BaseIndex, wordings: Sequence[Wording], dtype: str | None = None) -> tuple[KeptTensor, ...]:
    """Name every tensor of these components as a checkpoint does; `dtype` is that of all floats, None for their own.

    Raises UnsupportedError for a tensor that has no name there, or shares one.
    """
    kept: dict[str, KeptTensor] = {}
    for wording in wordings:
        for tensor in _kept(base, wording, dtype):
            other = kept.setdefault(tensor.name, tensor)
            if other is not tensor:
                raise no_single_file(base, f"{_shown(other)} and {_shown(tensor)} would both be {tensor.name} in it")
    return tuple(kept.values())


def checkpoint_file(
    tensors: Sequence[KeptTensor], name: str, metadata: Mapping[str, str], marks: Iterable[str] = ()
) -> WeightsFile:
    """Describe the file of these tensors: they lie in it as the safetensors library puts them.

    `marks` are tensors without elements, which say something by being there.
    """
    marking = [KeptTensor(mark, "F32", (0,), (), (), (), False) for mark in marks]
    by_name = {tensor.name: tensor for tensor in (*tensors, *marking)}
    new = [NewTensor(kept.name, kept.dtype, kept.shape, ((0, sum(kept.sizes)),)) for kept in by_name.values()]
    header = header_of(new, metadata)
    pieces: list[Piece] = []
    begin = len(header)
    for entry in in_order(new):
        tensor = by_name[entry.name]
        for target, size in zip(tensor.targets, tensor.sizes, strict=True):
            pieces.append(Piece(target, tensor.dtype, begin, tensor.transposed))
            begin += size
    return WeightsFile(name, header, tuple(pieces), begin)


def no_single_file(base: BaseIndex, reason: str) -> UnsupportedError:
    """Make the error that says why a pipeline cannot become a single file, and what can be done."""
    return UnsupportedError(f"{base.label} makes no single file: {reason}; --out a folder instead")


def _kept(base: BaseIndex, wording: Wording, dtype: str | None) -> Iterator[KeptTensor]:
    """Name the tensors of a component. Raises UnsupportedError where one is left over."""
    component = base.components[wording.component]
    # parameter -> the name in the file, by module.
    modules: dict[str, dict[str, str]] = {}
    for tensor in component.tensors:
        spelling = component.long_name(tensor)
        if not wording.needless.fullmatch(spelling):
            module, parameter = _split(spelling)
            modules.setdefault(module, {})[parameter] = tensor
    for name in wording.native(list(modules)):
        # The halves of a swapped one would have to be read apart.
        if name.swapped or not all(part in modules for part in name.parts):
            continue
        first = name.parts[0]
        for parameter in list(modules[first]):
            tensors = [modules[part].get(parameter) for part in name.parts]
            whole = [tensor for tensor in tensors if tensor is not None]
            if len(whole) == len(tensors) and _stack(component, whole):
                for part in name.parts:
                    del modules[part][parameter]
                spellings = tuple(f"{part}.{parameter}" if parameter else part for part in name.parts)
                native = wording.parameter(name.text, parameter)
                yield _tensor(component, wording, native, spellings, whole, dtype)
    left = [tensor for parameters in modules.values() for tensor in parameters.values()]
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise no_single_file(base, f"its {component.name} has {shown(left[0])}{more}, which the original code has not")


def _split(tensor: str) -> tuple[str, str]:
    module, _, parameter = tensor.rpartition(".")
    return (module, parameter) if parameter in ("weight", "bias") else (tensor, "")


def _stack(component: BaseComponent, tensors: Sequence[str]) -> bool:
    """Tell whether tensors can be stacked, row upon row."""
    return len(tensors) == 1 or len({component.tensors[tensor].info.shape[1:] for tensor in tensors}) == 1


def _tensor(
    component: BaseComponent,
    wording: Wording,
    native: str,
    parameters: tuple[str, ...],
    tensors: Sequence[str],
    dtype: str | None,
) -> KeptTensor:
    """Describe one tensor of the checkpoint."""
    infos = [component.tensors[tensor].info for tensor in tensors]
    shape = infos[0].shape
    if len(infos) > 1:
        shape = (sum(info.shape[0] for info in infos), *shape[1:])
    if wording.convolutions.fullmatch(native) and len(shape) == 2:
        shape = (*shape, 1, 1)
    transposed = native in wording.transposed
    dtypes = {dtype if dtype and info.dtype in FLOATS else info.dtype for info in infos}
    # No narrower type holds the values of both halves' formats.
    kept = dtypes.pop() if len(dtypes) == 1 else "F32"
    return KeptTensor(
        wording.prefix + native,
        kept,
        shape[::-1] if transposed else shape,
        parameters,
        tuple(Target(component.name, tensor) for tensor in tensors),
        tuple(math.prod(info.shape) * BIT_SIZES[kept] // 8 for info in infos),
        transposed,
    )


def _shown(tensor: KeptTensor) -> str:
    return f"{tensor.targets[0].component}'s {tensor.parameters[0]}"
