"""A safetensors file to be written from a base: its header, and the base tensor that each stretch of it comes from."""

from pathlib import Path
from typing import NamedTuple

from lorakit_cli.core.match import Target


class Piece(NamedTuple):
    """The whole of a base tensor, as it is to stand in a new file: from byte `begin` on, in rows of its own order.

    `dtype` is that of the new file. `transposed`: the new file holds the transpose of the matrix.
    """

    target: Target
    dtype: str
    begin: int
    transposed: bool = False


class WeightsFile(NamedTuple):
    """A file to be written: its name in the output, its header with the eight bytes of its length, and its pieces.

    The pieces stand in the order of their bytes and cover the data without a gap; several in a row may be one tensor
    of the header (projections that the original code keeps stacked). `size` is that of the whole file. `copy_of` is
    the base's file with the same header, of which it is a copy where nothing changes.
    """

    name: str
    header: bytes
    pieces: tuple[Piece, ...]
    size: int
    copy_of: Path | None = None
