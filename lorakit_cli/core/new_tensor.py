"""Tensors of a file to be written, put together from runs of bytes of a file that is read."""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from lorakit_cli.core.kind import Shape
from lorakit_cli.core.tensor_info import BIT_SIZES, TensorInfo

Run = tuple[int, int]
# Bytes of the input, from first to last, or bytes as they are.
Piece = Run | bytes


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Rows made of several runs side by side: of each run so many bytes per row, None for as many zeros."""

    rows: int
    runs: tuple[tuple[Run | None, int], ...]

    def pieces(self) -> Iterator[Piece]:
        """Give the pieces in order, row by row."""
        for row in range(self.rows):
            for run, width in self.runs:
                yield bytes(width) if run is None else (run[0] + row * width, run[0] + (row + 1) * width)


@dataclass(frozen=True, slots=True)
class Computed:
    """Bytes that are computed when they are written."""

    size: int
    compute: Callable[[], bytes]


Pieces = Sequence[Piece | Interleaved | Computed]


@dataclass(frozen=True, slots=True)
class NewTensor:
    """One tensor of a new file: its name, dtype as safetensors spells it, shape, and its bytes in pieces."""

    name: str
    dtype: str
    shape: Shape
    pieces: Pieces

    @property
    def size(self) -> int:
        """The number of its bytes."""
        return sum(size_of(piece) for piece in self.pieces)


def write_tensors(file: BinaryIO, tensors: Sequence[NewTensor], metadata: Mapping[str, str], source: memoryview) -> int:
    """Write a safetensors file; give the number of bytes written."""
    written = file.write(header_of(tensors, metadata))
    for tensor in in_order(tensors):
        for piece in flat(tensor.pieces):
            written += file.write(piece if isinstance(piece, bytes) else source[piece[0] : piece[1]])
    return written


def in_order(tensors: Iterable[NewTensor]) -> list[NewTensor]:
    """Sort tensors as the safetensors library does: the widest dtype first, so that all are aligned, then by name."""
    return sorted(tensors, key=lambda tensor: (-BIT_SIZES[tensor.dtype], tensor.name))


def places(tensors: Iterable[NewTensor]) -> dict[str, TensorInfo]:
    """Say where in the data each tensor lies, in order."""
    found: dict[str, TensorInfo] = {}
    begin = 0
    for tensor in in_order(tensors):
        end = begin + tensor.size
        found[tensor.name] = TensorInfo(tensor.dtype, tensor.shape, begin, end)
        begin = end
    return found


def header_of(tensors: Iterable[NewTensor], metadata: Mapping[str, str]) -> bytes:
    """Give what stands before the data: 8 bytes of length, then JSON, padded so that data begins on 8 bytes."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, info in places(tensors).items():
        header[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": (info.begin, info.end)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def flat(pieces: Iterable[Piece | Interleaved | Computed]) -> Iterator[Piece]:
    """Give runs and bytes alone, what is computed as its bytes."""
    for piece in pieces:
        if isinstance(piece, Interleaved):
            yield from piece.pieces()
        else:
            yield piece.compute() if isinstance(piece, Computed) else piece


def size_of(piece: Piece | Interleaved | Computed) -> int:
    """Give how many bytes a piece stands for."""
    if isinstance(piece, Computed):
        return piece.size
    if isinstance(piece, Interleaved):
        return piece.rows * sum(width for _, width in piece.runs)
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
