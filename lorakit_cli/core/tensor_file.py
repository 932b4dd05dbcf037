"""Read the header of a safetensors file: names, shapes, dtypes and places of its tensors, without their values."""

import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from io import FileIO
from pathlib import Path, PurePath

from lorakit_cli.core.quick_header import quick_header
from lorakit_cli.core.record import Record
from lorakit_cli.core.shown import shown
from lorakit_cli.core.strict_json import depth, parse_json
from lorakit_cli.core.tensor_info import BIT_SIZES, MOST, TensorInfo
from lorakit_cli.errors import CorruptFileError

# How deep its JSON parser goes, less the header object around a tensor's entry.
_DEEPEST_ENTRY = 126
# The limit of the safetensors library itself; a larger header is an attack or another kind of file.
_LONGEST_HEADER = 100_000_000
# So many first bytes show what a file is that is no safetensors file.
_START = 64
_AGAIN = "download or copy it again"
# What people find under the name of a download that went wrong, by its first bytes.
_IMPOSTORS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"<": "a web page, probably the site's error or log-in page",
    b"{": "a JSON text, probably the site's error message",
    b"PK\x03\x04": "a zip or PyTorch pickle file under another name",
    b"\x80": "a pickle file under another name",
}
_SCALARS = {
    "F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b",
    "U64": "<Q", "U32": "<I", "U16": "<H", "U8": "<B", "BF16": "<f",
}  # fmt: skip


class TensorFile(Record):
    """The header of one safetensors file: `data`, which people know as `path`."""

    path: Path
    data: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    size: int

    def scalars(self, names: Iterable[str]) -> list[float]:
        """Read tensors of one element each. Raises CorruptFileError where one has more or is not finite."""
        # Most files have the same bytes in all of them.
        known: dict[tuple[str, bytes], float] = {}
        tensors = self.tensors
        values: list[float] = []
        # Without a buffer, so that nothing of the tensors around them is read.
        with self.data.open("rb", buffering=0) as file:
            read = _reader(file)
            for name in names:
                dtype, shape, begin, end = info = tensors[name]
                if (shape and math.prod(shape) != 1) or dtype not in _SCALARS:
                    sizes = f"{list(shape)!r:.80}"
                    raise CorruptFileError(f"{self.path}: {shown(name)} should be one number but is {dtype} {sizes}")
                data = read(end - begin, begin)
                value = known.get((dtype, data))
                if value is None:
                    value = known[dtype, data] = self._number(name, info, data)
                values.append(value)
        return values

    def _number(self, name: str, info: TensorInfo, data: bytes) -> float:
        if len(data) != info.end - info.begin:
            raise CorruptFileError(f"{self.path} has been cut off since its header was read")
        if info.dtype == "BF16":  # the upper half of a float32
            data = b"\0\0" + data
        (value,) = struct.unpack(_SCALARS[info.dtype], data)
        if not math.isfinite(value):
            raise CorruptFileError(f"{self.path}: {shown(name)} is {value}, no number to scale by")
        return float(value)


def _reader(file: FileIO) -> Callable[[int, int], bytes]:
    """Give a function that reads so many bytes at a place."""
    if hasattr(os, "pread"):  # one call to the system where there are two
        return partial(os.pread, file.fileno())

    def read(count: int, place: int) -> bytes:
        file.seek(place)
        return file.read(count)

    return read


def read_header(path: Path, data: Path | None = None) -> TensorFile:
    """Read and check the header of a safetensors file. Raises CorruptFileError or OSError.

    `data` is where the file really is, if it was made of the one that messages are to name.
    """
    data = data or path
    with data.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = header_length(path, file.read(_START), size)
        file.seek(8)
        text = file.read(length)
    return TensorFile(path, data, *parse_header(path, text, size), size)


def header_length(path: PurePath, start: bytes, size: int, advice: str = _AGAIN) -> int:
    """Read from the first bytes of a file, of that size, how long its header is. Raises CorruptFileError.

    Layout: 8 bytes little-endian header length, a JSON object of that length, then the data.
    https://huggingface.co/docs/safetensors/index#format
    """
    length = int.from_bytes(start[:8], "little")
    if size < 8 or len(start) < 8 or length > min(size - 8, _LONGEST_HEADER):
        instead = impostor(start)
        reason = f"is {instead}" if instead else f"is no complete safetensors file ({size} bytes)"
        raise CorruptFileError(f"{path} {reason}; {advice}")
    return length


def impostor(start: bytes) -> str | None:
    """Say by its first bytes what a file is that only bears an adapter's name, None where nothing speaks against it."""
    if begins_as_header(start):
        return None
    return next((what for mark, what in _IMPOSTORS.items() if start[:_START].lstrip().startswith(mark)), None)


def begins_as_header(start: bytes) -> bool:
    """Tell whether a file begins as a safetensors file does: with a length, whose bytes may be anybody's, and JSON."""
    return start[4:8] == bytes(4) and start[8:9] == b"{"


def parse_header(
    path: PurePath, text: bytes, size: int, advice: str = _AGAIN
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Check the header of a file of that size: tensors and metadata. Raises CorruptFileError."""
    start = 8 + len(text)
    try:
        tensors, metadata = quick_header(text, start) or _whole_header(text, start)
        end = _end(tensors, start)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path} is not a safetensors file: {shown(str(error), 300)}") from error
    if end != size:
        state = "is truncated" if end > size else "has something behind its end"
        raise CorruptFileError(f"{path} {state}: its header promises {end} bytes, the file has {size}; {advice}")
    return tensors, metadata


def _whole_header(text: bytes, start: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Read a header with all that the format allows in it. Raises ValueError or RecursionError."""
    entries = parse_json(text)
    if not isinstance(entries, dict):
        raise ValueError("the header is not an object")
    metadata = _metadata(entries.pop("__metadata__", None))
    return {name: _tensor(name, entry, start) for name, entry in entries.items()}, metadata


def _metadata(entry: object) -> dict[str, str]:
    if entry is None:
        return {}
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ValueError("__metadata__ does not map text to text")
    return entry


def _tensor(name: str, entry: object, start: int) -> TensorInfo:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{name} has no dtype, shape and data_offsets")
    if len(entry) > 3 and depth(entry) > _DEEPEST_ENTRY:
        raise ValueError(f"{name} is nested too deep")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BIT_SIZES:
        raise ValueError(f"{name} is of the unknown dtype {dtype!r:.40}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name} has a shape or offset that is not a whole number")
    begin, end = offsets
    bits = _bits(name, dtype, shape)
    if 8 * (end - begin) != bits:
        raise ValueError(f"{name} takes {end - begin} bytes, which does not fit {dtype} {shape!r:.80}")
    return TensorInfo(dtype, tuple(shape), start + begin, start + end)


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= MOST for value in values)


def _bits(name: str, dtype: str, shape: list[int]) -> int:
    bits = 1
    # In the library's order: an overflow before a zero counts.
    for factor in (*shape, BIT_SIZES[dtype]):
        bits *= factor
        if bits > MOST:
            raise ValueError(f"{name} is larger than any file: {dtype} {shape!r:.80}")
    return bits


def _end(tensors: Mapping[str, TensorInfo], start: int) -> int:
    """Find the end of the data. Raises ValueError unless every byte before it belongs to exactly one tensor."""
    end = start
    for info in tensors.values():
        if info.begin != end:
            break
        end = info.end
    else:
        return end
    # The header need not list them in the order of their data.
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != start:
            state = "shares bytes with another tensor" if info.begin < start else "leaves a gap before it"
            raise ValueError(f"{name} {state}")
        start = info.end
    return start
