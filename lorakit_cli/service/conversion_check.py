"""Read a converted file back and compare it with what it was to become, before anybody else sees it."""

from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.lora_file import LoraLayer, read_lora_file
from lorakit_cli.core.matching import match_layers
from lorakit_cli.core.new_alpha import same_scale
from lorakit_cli.core.new_layer import NewLayer
from lorakit_cli.core.new_tensor import NewTensor, flat
from lorakit_cli.core.tensor_info import TensorInfo
from lorakit_cli.errors import LorakitError, OutputError
from lorakit_cli.service.reading import READING

_BLOCK = 1 << 17
_WRONG = "what was written does not read back"


def require_same(out: Path, data: Path, base: BaseIndex, layers: Sequence[NewLayer], source: memoryview) -> None:
    """Raise OutputError unless the file at `data` holds exactly these layers, each for its modules and at its scale.

    Names, algorithms, ranks, scales, dtypes, shapes and all values are compared.
    """
    try:
        file = read_lora_file(out, READING, data)
        file.require_sound()
        matches, _ = match_layers(base, "", file, hints=False)
    except LorakitError as error:
        raise OutputError(f"{_WRONG}: {error}") from error
    found = {(match.parts[0].target.component, match.layer.stem, match.layer.kind.name): match for match in matches}
    for layer in layers:
        match = found.pop((layer.component, layer.stem, layer.kind), None)
        if match is None or match.name.parts != layer.name.parts or match.name.swapped != layer.name.swapped:
            raise OutputError(f"{_WRONG}: {layer.stem} is not found again as {layer.kind} of {layer.name.text}")
        _require_same_numbers(layer, match.layer)
    if found:
        raise OutputError(f"{_WRONG}: {next(iter(found))[1]} was not meant to be there")
    _require_same_values(data, [tensor for layer in layers for tensor in layer.tensors], file.tensors, source)


def _require_same_numbers(layer: NewLayer, read: LoraLayer) -> None:
    if read.rank != layer.rank or not same_scale(read.scale, layer.scale):
        raise OutputError(
            f"{_WRONG}: {layer.stem} has rank {read.rank} and scale {read.scale}, not {layer.rank} and {layer.scale}"
        )


def _require_same_values(
    path: Path, tensors: Sequence[NewTensor], written: Mapping[str, TensorInfo], source: memoryview
) -> None:
    """Compare every byte with where it came from; what was computed is computed again."""
    buffer = bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        for tensor in tensors:
            info = written[tensor.name]
            if (info.dtype, info.shape) != (tensor.dtype, tensor.shape):
                raise OutputError(f"{_WRONG}: {tensor.name} is {info.dtype} {list(info.shape)}")
            file.seek(info.begin)
            for piece in flat(tensor.pieces):
                wanted = memoryview(piece) if isinstance(piece, bytes) else source[piece[0] : piece[1]]
                if not _same_bytes(file, wanted, buffer):
                    raise OutputError(f"{_WRONG}: the values of {tensor.name} differ")


def _same_bytes(file: FileIO, wanted: memoryview, buffer: bytearray) -> bool:
    """Compare what comes next in a file. One buffer, small enough for a cache, costs no memory of its own."""
    for begin in range(0, len(wanted), len(buffer)):
        block = wanted[begin : begin + len(buffer)]
        if len(block) < len(buffer):
            return bytearray(file.read(len(block))) == block
        # A bytearray is compared as a whole, a memoryview item by item.
        if file.readinto(buffer) != len(block) or buffer != block:
            return False
    return True
