"""Bake a plan into files of weights, a few rows at a time: read, add, round once, write to the place where it belongs.

Never more than a block of a tensor and its factors in each thread is in memory, but for algorithms that need a tensor
whole.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from xxhash import xxh3_128

from lorakit_cli.core.base_files import piece_size
from lorakit_cli.core.base_index import BaseIndex, BaseTensor
from lorakit_cli.core.delta import Rows, as_matrix, blocks, delta_rows
from lorakit_cli.core.match import Part, Target
from lorakit_cli.core.plan import Term
from lorakit_cli.core.positional import read_into, write_at
from lorakit_cli.core.weights_file import Piece
from lorakit_cli.errors import BaseModelError, LoraFileError, UnsupportedError
from lorakit_cli.service.devices import arithmetic, choose_device
from lorakit_cli.service.dtypes import TORCH_DTYPES
from lorakit_cli.service.lanes import Progress, run_side_by_side
from lorakit_cli.service.tensors import TensorReader


class Amount(NamedTuple):
    """How much a tensor is and is changed: the squares of the Frobenius norms of its base and of its delta."""

    base: float
    delta: float


class Baking(NamedTuple):
    """What is to be put into which files: pieces to compute, each with the number of the open file it belongs to."""

    base: BaseIndex
    stored: Mapping[Target, BaseTensor]
    changes: Mapping[Target, tuple[Term, ...]]
    pieces: Iterable[tuple[int, Piece]]


def bake(
    baking: Baking,
    device: str,
    digests: dict[Target, bytes],
    amounts: dict[Target, Amount],
    progress: Progress | None = None,
) -> dict[str, str]:
    """Compute the pieces and write them; put what comes out for each tensor into `digests` and `amounts`.

    Gives what decides the bits of the sums. `device` is a name, `auto` for the best there is; `progress` is given the
    number of bytes that are done.

    Raises LoraFileError for an adapter whose values are not finite, BaseModelError for such a base, UnsupportedError
    for a sum that the dtype cannot hold, CorruptFileError for a file that has changed since its header was read.
    """
    with TensorReader(choose_device(device)) as reader:

        def job(file: int, piece: Piece) -> int:
            tensor = _Tensor(baking, reader, piece)
            amount = _write(tensor, file)
            digests[piece.target] = tensor.digest.digest()
            if amount:
                amounts[piece.target] = amount
            return piece_size(piece, baking.stored[piece.target].info)

        # The largest first, so that no thread is left alone with one at the end.
        pieces = sorted(baking.pieces, key=lambda entry: -piece_size(entry[1], baking.stored[entry[1].target].info))
        run_side_by_side((partial(job, *entry) for entry in pieces), reader.device, progress)
        return arithmetic(reader.device)


class _Tensor:
    """One tensor on its way: what the base has, and what is added to it."""

    def __init__(self, baking: Baking, reader: TensorReader, piece: Piece) -> None:
        self.piece = piece
        self.stored = baking.stored[piece.target]
        self.terms = baking.changes.get(piece.target, ())
        self.device = reader.device
        self.digest = xxh3_128()
        self.rows: Rows | None = None
        if self.terms:

            def load_base(part: Part) -> Tensor:
                return reader.read(baking.stored[part.target].local_file, part.target.tensor)

            self.rows = delta_rows(self.terms, self.stored.info.shape, reader.factors, load_base)
        self.source = reader.open(self.stored.local_file)

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """Yield blocks of rows: the first row, the base's values in fp32, and what is added.

        The values stand in one place for all blocks: new memory costs as much as a pass over it.
        """
        info = self.stored.info
        _, width = as_matrix(info.shape)
        dtype = TORCH_DTYPES[info.dtype]
        ranges = list(blocks(info.shape, self.device))
        most = (ranges[0][1] - ranges[0][0]) * width if ranges else 0
        raw = torch.empty(most, dtype=dtype, pin_memory=self.device.type == "cuda")
        wide = torch.empty(most, dtype=torch.float32, device=self.device)
        for start, stop in ranges:
            count = (stop - start) * width
            data = raw[:count].view(torch.uint8).numpy().data
            if read_into(self.source, data, info.begin + start * width * dtype.itemsize) < len(data):
                raise BaseModelError(f"{self.stored.file} has been cut off since its header was read")
            self.digest.update(data)
            base = wide[:count].copy_(raw[:count]).view(stop - start, width)
            yield start, base, self.rows(start, stop) if self.rows else None


def _write(tensor: _Tensor, file: int) -> Amount | None:
    piece, info = tensor.piece, tensor.stored.info
    dtype = TORCH_DTYPES[piece.dtype]
    rows, width = as_matrix(info.shape)
    base_square = delta_square = 0.0
    whole = torch.empty(rows if piece.transposed else 0, width, dtype=dtype)
    rounded: Tensor | None = None
    for start, base, change in tensor.blocks():
        squares = (_square(base), _square(change)) if change is not None else (math.inf, 0.0)
        total = base if change is None else change.add_(base)
        if rounded is None:
            rounded = torch.empty_like(total, dtype=dtype, device="cpu", pin_memory=total.is_cuda)
        value = rounded[: len(total)].copy_(total)
        if not _fits(squares, dtype) and not is_finite(value):
            raise _not_finite(tensor, start, base)
        if piece.transposed:
            whole[start : start + len(value)] = value
        else:
            _put(file, value, piece.begin + start * width * dtype.itemsize)
        base_square += squares[0]
        delta_square += squares[1]
    if piece.transposed:
        _put(file, whole.T.contiguous(), piece.begin)
    return Amount(base_square, delta_square) if tensor.terms else None


def _put(file: int, value: Tensor, place: int) -> None:
    write_at(file, value.reshape(-1).view(torch.uint8).numpy().data, place)


def _square(value: Tensor) -> float:
    flat = value.reshape(-1)
    return float(torch.dot(flat, flat))


def _fits(squares: tuple[float, float], dtype: torch.dtype) -> bool:
    """Tell whether norms alone show that no value of a sum is too large: none exceeds the norms of what is added up."""
    return math.sqrt(squares[0]) + math.sqrt(squares[1]) < torch.finfo(dtype).max


def is_finite(value: Tensor) -> bool:
    """Tell whether all values are finite, in one look at them: NaN comes through as the lowest and the highest."""
    if not value.numel():
        return True
    lowest, highest = torch.aminmax(value if value.dtype.itemsize > 1 else value.float())
    return math.isfinite(lowest) and math.isfinite(highest)


def _not_finite(tensor: _Tensor, start: int, base: Tensor) -> Exception:
    """Say whose fault it is that a value in these rows is not finite."""
    where, dtype = tensor.piece.target.label, tensor.piece.dtype
    if not is_finite(base):
        return BaseModelError(f"{where} of the base holds NaN or infinity; take another copy of it")
    names = " and ".join(dict.fromkeys(term.adapter for term in tensor.terms))
    if tensor.rows and not is_finite(tensor.rows(start, start + base.shape[0])):
        return LoraFileError(
            f"{where}: what {names} adds is not finite; the adapter holds NaN or infinity, or values too large "
            "(`lorakit inspect --scan` shows where)"
        )
    adds = f" with {names}" if names else ""
    return UnsupportedError(
        f"{where}{adds} comes to values that {dtype} cannot hold; try --dtype bf16, --dtype fp32 or a smaller weight"
    )
