"""Read a converted file back and compare it with what it was to become, before anybody else sees it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.lora_file import LoraFile, LoraLayer, read_lora_file
from lorakit_cli.core.matching import match_layers
from lorakit_cli.core.new_alpha import same_scale
from lorakit_cli.core.new_layer import NewLayer
from lorakit_cli.core.new_tensor import NewTensor, blocks
from lorakit_cli.core.source import Source
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.errors import LorakitError, OutputError
from lorakit_cli.service.reading import READING

_WRONG = "what was written does not read back"


def require_same(out: Path, data: Path, base: BaseIndex, layers: Sequence[NewLayer], source: Source) -> None:
    """Raise OutputError unless the file at `data` holds exactly these layers, each for its modules and at its scale.

    Names, algorithms, ranks, scales, dtypes, shapes and all values are compared.
    """
    try:
        file = read_lora_file(out, READING, data)
        file.require_sound()
    except LorakitError as error:
        raise OutputError(f"{_WRONG}: {error}") from error
    tensors = _in_place([tensor for layer in layers for tensor in layer.tensors], file.tensors)
    middle = len(tensors) // 2
    # Most of the time goes into reading, which lets others work.
    with ThreadPoolExecutor(2) as pool:
        halves = [
            pool.submit(_require_same_values, data, half, file.tensors, source)
            for half in (tensors[:middle], tensors[middle:])
        ]
        _require_same_layers(file, base, layers)
        for half in halves:
            half.result()


def _in_place(tensors: Sequence[NewTensor], written: Mapping[str, TensorInfo]) -> list[NewTensor]:
    """Sort tensors as they lie in the file, each once. Raises OutputError unless these, and only these, are there."""
    named = {tensor.name: tensor for tensor in tensors}
    for name in named.keys() ^ written.keys():
        raise OutputError(f"{_WRONG}: {name} {'is missing' if name in named else 'was not meant to be there'}")
    for tensor in tensors:
        info = written[tensor.name]
        if (info.dtype, info.shape, info.end - info.begin) != (tensor.dtype, tensor.shape, tensor.size):
            raise OutputError(f"{_WRONG}: {tensor.name} is {info.dtype} {list(info.shape)}")
    return sorted(named.values(), key=lambda tensor: written[tensor.name].begin)


def _require_same_layers(file: LoraFile, base: BaseIndex, layers: Sequence[NewLayer]) -> None:
    """Compare names, algorithms, ranks and scales."""
    try:
        matches, _ = match_layers(base, "", file, hints=False)
    except LorakitError as error:
        raise OutputError(f"{_WRONG}: {error}") from error
    found = {(match.component, match.layer.stem, match.layer.kind.name): match for match in matches}
    for layer in layers:
        match = found.pop((layer.component, layer.stem, layer.kind), None)
        if match is None or match.name.parts != layer.name.parts or match.name.swapped != layer.name.swapped:
            raise OutputError(f"{_WRONG}: {layer.stem} is not found again as {layer.kind} of {layer.name.text}")
        _require_same_numbers(layer, match.layer)
    if found:
        raise OutputError(f"{_WRONG}: {next(iter(found))[1]} was not meant to be there")


def _require_same_numbers(layer: NewLayer, read: LoraLayer) -> None:
    if read.rank != layer.rank or not same_scale(read.scale, layer.scale):
        raise OutputError(
            f"{_WRONG}: {layer.stem} has rank {read.rank} and scale {read.scale}, not {layer.rank} and {layer.scale}"
        )


def _require_same_values(
    path: Path, tensors: Sequence[NewTensor], written: Mapping[str, TensorInfo], source: Source
) -> None:
    """Compare every byte of tensors that lie side by side with where it came from; what was computed is done again."""
    place = written[tensors[0].name].begin if tensors else 0
    buffer = bytearray()
    with path.open("rb", buffering=0) as file:
        file.seek(place)
        for block in blocks(tensors, source):
            if len(buffer) != len(block):
                buffer = bytearray(len(block))
            # A bytearray is compared as a whole, a memoryview item by item.
            if file.readinto(buffer) != len(block) or buffer != block:
                differing = (n for n, (ours, theirs) in enumerate(zip(buffer, block, strict=True)) if ours != theirs)
                place += next(differing, 0)
                wrong = next(tensor.name for tensor in tensors if written[tensor.name].end > place)
                raise OutputError(f"{_WRONG}: the values of {wrong} differ")
            place += len(block)
