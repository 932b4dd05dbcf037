"""Read the header of a safetensors file: names, shapes, dtypes and places of its tensors, without their values."""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lorakit_cli.errors import CorruptFileError

ITEM_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
# The limit of the safetensors library itself; a larger header is an attack or another kind of file.
_LONGEST_HEADER = 100_000_000
# What people find under the name of a download that went wrong, by its first bytes.
_IMPOSTORS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"<": "a web page, probably the site's error or log-in page",
    b"{": "a JSON text, probably the site's error message",
    b"PK\x03\x04": "a zip or PyTorch pickle file under another name",
    b"\x80": "a pickle file under another name",
}
_SCALARS = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b", "U8": "<B"}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: dtype as safetensors spells it, shape, and its first and last byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The header of one safetensors file."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    size: int

    def scalars(self, names: Iterable[str]) -> list[float]:
        """Read tensors of one element each. Raises CorruptFileError where one has more or is not finite."""
        with self.path.open("rb") as file:
            return [self._scalar(file, name) for name in names]

    def _scalar(self, file: BinaryIO, name: str) -> float:
        info = self.tensors[name]
        if math.prod(info.shape) != 1 or (info.dtype != "BF16" and info.dtype not in _SCALARS):
            raise CorruptFileError(f"{self.path}: {name} should be one number but is {info.dtype} {list(info.shape)}")
        file.seek(info.begin)
        data = file.read(info.end - info.begin)
        if info.dtype == "BF16":  # the upper half of a float32
            data = b"\0\0" + data
        (value,) = struct.unpack(_SCALARS.get(info.dtype, "<f"), data)
        if not math.isfinite(value):
            raise CorruptFileError(f"{self.path}: {name} is {value}")
        return float(value)


def read_header(path: Path) -> TensorFile:
    """Read and check the header of a safetensors file. Raises CorruptFileError or OSError.

    Layout: 8 bytes little-endian header length, a JSON object of that length, then the data.
    https://huggingface.co/docs/safetensors/index#format
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            start += file.read(56)
            instead = next((what for mark, what in _IMPOSTORS.items() if start.lstrip().startswith(mark)), None)
            reason = f"is {instead}" if instead else f"is no complete safetensors file ({size} bytes)"
            raise CorruptFileError(f"{path} {reason}; download or copy it again")
        text = file.read(length)
    try:
        entries = json.loads(text, object_pairs_hook=_no_duplicates)
        if not isinstance(entries, dict):
            raise ValueError("the header is not an object")
        metadata = _metadata(entries.pop("__metadata__", {}))
        tensors = {name: _tensor(name, entry, 8 + length) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptFileError(f"{path} is not a safetensors file: {error}") from error
    end = max((info.end for info in tensors.values()), default=8 + length)
    if end != size:
        state = "is truncated" if end > size else "has something behind its end"
        raise CorruptFileError(
            f"{path} {state}: its header promises {end} bytes, the file has {size}; download or copy it again"
        )
    return TensorFile(path, tensors, metadata, size)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name stands in it twice")
    return entries


def _metadata(entry: object) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ValueError("__metadata__ does not map text to text")
    return entry


def _tensor(name: str, entry: dict[str, Any], start: int) -> TensorInfo:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"{name} has a shape or offset that is not a whole number")
    if dtype in ITEM_SIZES and end - begin != math.prod(shape) * ITEM_SIZES[dtype]:
        raise ValueError(f"{name} takes {end - begin} bytes, which does not fit {dtype} {list(shape)}")
    return TensorInfo(dtype, shape, start + begin, start + end)
