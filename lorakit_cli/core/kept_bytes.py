"""The stretches of a base's files that a new file has unchanged, copied by the system without a look at them."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lorakit_cli.core.base_files import piece_size
from lorakit_cli.core.base_index import BaseTensor
from lorakit_cli.core.file_copy import copy_range
from lorakit_cli.core.match import Target
from lorakit_cli.core.weights_file import Piece, WeightsFile

# So much at a time, so that several threads have something to do and progress shows.
_MOST = 64 << 20


class Run(NamedTuple):
    """Bytes of one of the base's files, and where they begin in the new file."""

    source: Path
    begin: int
    into: int
    size: int

    def copy(self, target: int) -> int:
        """Copy them into an open file; give their number. Raises OSError."""
        with self.source.open("rb", buffering=0) as source:
            copy_range(source.fileno(), target, self.begin, self.into, self.size)
        return self.size


def split(
    file: WeightsFile, stored: Mapping[Target, BaseTensor], changed: Collection[Target]
) -> tuple[list[Run], list[Piece]]:
    """Part a file into what is copied, in runs as long as can be, and the pieces that are to be computed."""
    runs: list[Run] = []
    pieces: list[Piece] = []
    for piece in file.pieces:
        tensor = stored[piece.target]
        if piece.target in changed or piece.transposed or piece.dtype != tensor.info.dtype:
            pieces.append(piece)
            continue
        size = piece_size(piece, tensor.info)
        last = runs[-1] if runs else None
        if last and (last.source, last.begin + last.size, last.into + last.size) == (
            tensor.file, tensor.info.begin, piece.begin
        ):  # fmt: skip
            runs[-1] = last._replace(size=last.size + size)
        elif size:
            runs.append(Run(tensor.local_file, tensor.info.begin, piece.begin, size))
    return [part for run in runs for part in _parts(run)], pieces


def _parts(run: Run) -> Iterator[Run]:
    for begin in range(0, run.size, _MOST):
        yield Run(run.source, run.begin + begin, run.into + begin, min(_MOST, run.size - begin))
