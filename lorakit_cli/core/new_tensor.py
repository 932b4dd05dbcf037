"""Tensors of a file to be written, put together from runs of bytes of a file that is read."""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from lorakit_cli.core.ahead import ahead
from lorakit_cli.core.kind import Shape
from lorakit_cli.core.output_file import send_to_disk
from lorakit_cli.core.source import Source
from lorakit_cli.core.tensor_info import BIT_SIZES, TensorInfo

_BLOCK = 1 << 20
# So much goes to the disk at a time.
_SENT = 8 << 20

Run = tuple[int, int]
# Bytes of the input, from first to last, or bytes as they are.
Piece = Run | bytes


class Interleaved(NamedTuple):
    """Rows made of several runs side by side: of each run so many bytes per row, None for as many zeros."""

    rows: int
    runs: tuple[tuple[Run | None, int], ...]

    def pieces(self) -> Iterator[Piece]:
        """Give the pieces in order, row by row."""
        for row in range(self.rows):
            for run, width in self.runs:
                yield bytes(width) if run is None else (run[0] + row * width, run[0] + (row + 1) * width)


class Computed(NamedTuple):
    """Bytes that are computed when they are written."""

    size: int
    compute: Callable[[], bytes]


Pieces = Sequence[Piece | Interleaved | Computed]


class NewTensor(NamedTuple):
    """One tensor of a new file: its name, dtype as safetensors spells it, shape, and its bytes in pieces."""

    name: str
    dtype: str
    shape: Shape
    pieces: Pieces

    @property
    def size(self) -> int:
        """The number of its bytes."""
        return sum(size_of(piece) for piece in self.pieces)


def write_tensors(file: BinaryIO, tensors: Sequence[NewTensor], metadata: Mapping[str, str], source: Source) -> int:
    """Write a safetensors file; give the number of bytes written."""
    written = file.write(header_of(tensors, metadata))
    sent = 0
    for block in ahead(blocks(in_order(tensors), source)):
        written += file.write(block)
        if written - sent > _SENT:
            send_to_disk(file, sent, written)
            sent = written
    return written


def blocks(tensors: Iterable[NewTensor], source: Source) -> Iterator[memoryview]:
    """Give the bytes of tensors one after another, a megabyte at a time; a block stands until the next but one."""
    buffer, other = (memoryview(bytearray(_BLOCK)) for _ in range(2))
    full = 0
    for piece in _joined(piece for tensor in tensors for piece in flat(tensor.pieces)):
        done, size = 0, size_of(piece)
        while done < size:
            count = min(size - done, _BLOCK - full)
            part = buffer[full : full + count]
            if isinstance(piece, bytes):
                part[:] = piece[done : done + count]
            else:
                source.fill(part, piece[0] + done)
            done += count
            full += count
            if full == _BLOCK:
                yield buffer
                buffer, other, full = other, buffer, 0
    yield buffer[:full]


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Make one run of those that follow each other in the input."""
    last: Run | None = None
    for piece in pieces:
        if last and not isinstance(piece, bytes) and piece[0] == last[1]:
            last = last[0], piece[1]
            continue
        if last:
            yield last
        last = None
        if isinstance(piece, bytes):
            yield piece
        else:
            last = piece
    if last:
        yield last


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
