"""Make the sums of one tensor again and hold them against what an output has."""

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lorakit_cli.core.base_files import piece_size
from lorakit_cli.core.delta import Rows, as_matrix, blocks, delta_rows
from lorakit_cli.core.match import Part
from lorakit_cli.core.plan import Term
from lorakit_cli.core.positional import read_into
from lorakit_cli.core.weights_file import Piece
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service.diagnosing import diagnose
from lorakit_cli.service.dtypes import TORCH_DTYPES
from lorakit_cli.service.findings import Findings, Kept
from lorakit_cli.service.streaming import Baking, is_finite
from lorakit_cli.service.tensors import TensorReader
from lorakit_cli.service.ulps import ulps_between
from lorakit_cli.service.verify_report import Deviation

# Algorithms that need a tensor whole cost as much again as baking it; of those a sample is one in so many.
_WHOLE_SAMPLE = 8
# What is left of each adapter by itself takes its sums apart; a sample of one tensor in so many shows it.
_APART_SAMPLE = 4
# Where sums were made on another kind of device: how many values may be off, and by how much.
_OFF, _ULPS = 1e-3, 1


def replay(baking: Baking, reader: TensorReader, piece: Piece, number: int, findings: Findings, *, full: bool) -> int:
    """Compare a tensor in an open file with its sums, all of them or those of one block; give its size.

    All of it is looked at for values that are not finite.
    """
    tensor = _Replay(baking, reader, piece, number)
    chosen = tensor.all_blocks if full else tensor.sample()
    counted, kept, finite = tensor.compare(chosen)
    deviation = None
    if not finite:
        deviation = Deviation(tensor.name, 0, tensor.count, None, "it holds NaN or infinity")
    elif counted.differing and not (not findings.exact and counted.is_rounding):
        deviation = Deviation(tensor.name, counted.differing, counted.values, counted.ulps, tensor.diagnose(counted))
    findings.replayed(counted.values, deviation, kept if finite else {})
    return piece_size(piece, tensor.stored.info)


class _Counted:
    """How many values were compared, how many differ, and by how much at most."""

    def __init__(self) -> None:
        self.values = self.differing = self.ulps = 0
        self.first: tuple[int, int] | None = None

    def add(self, block: tuple[int, int], found: Tensor, wanted: Tensor) -> None:
        """Compare a block; the first that deviates is kept in mind."""
        self.values += found.numel()
        # Bits and not values: a zero has a sign.
        if not torch.equal(found.view(torch.uint8), wanted.contiguous().view(torch.uint8)):
            distance = ulps_between(found, wanted)
            self.first = self.first or block
            self.differing += int((distance != 0).sum())
            self.ulps = max(self.ulps, int(distance.max()))

    @property
    def is_rounding(self) -> bool:
        """Whether it is no more than what another kind of device rounds otherwise."""
        return self.ulps <= _ULPS and self.differing <= max(1, _OFF * self.values)


class _Replay:
    """One tensor of an output, with what it is made of."""

    def __init__(self, baking: Baking, reader: TensorReader, piece: Piece, number: int) -> None:
        self._baking, self._reader, self._piece, self._number = baking, reader, piece, number
        self.stored = baking.stored[piece.target]
        self.terms = baking.changes.get(piece.target, ())
        self.dtype = TORCH_DTYPES[piece.dtype]
        self.name = piece.target.label
        self._hash = zlib.crc32(self.name.encode())
        self.rows, self.width = as_matrix(self.stored.info.shape)
        self.count = self.rows * self.width
        self.all_blocks = list(blocks(self.stored.info.shape, reader.device))

    def sample(self) -> list[tuple[int, int]]:
        """Choose the block that is to be made again, by the tensor's name; none of most that have to be made whole."""
        if any(not term.layer.kind.by_row and not term.layer.kind.product for term in self.terms):
            return self.all_blocks if self._hash % _WHOLE_SAMPLE == 0 else []
        return [self.all_blocks[self._hash % len(self.all_blocks)]]

    def compare(self, chosen: list[tuple[int, int]]) -> tuple[_Counted, Mapping[str, Kept], bool]:
        """Compare these blocks, and see of all others whether they are finite."""
        counted = _Counted()
        finite = True
        kept: dict[str, Kept] = {}
        total = self._sum(self.terms) if self.terms and chosen else None
        apart = self._apart(total) if chosen == self.all_blocks or self._hash % _APART_SAMPLE == 0 else []
        whole = self._transposed() if self._piece.transposed else None
        for start, stop in self.all_blocks:
            found = self._found(start, stop) if whole is None else whole[start:stop]
            if (start, stop) not in chosen:
                finite = finite and is_finite(found)
                continue
            base = self._base(start, stop)
            exact = base if total is None else total(start, stop).add_(base)
            counted.add((start, stop), found, exact.to(self.dtype).cpu())
            finite = finite and is_finite(found)
            rounding = found.to(base.device, torch.float32).sub_(exact)
            for name, give in apart:
                change, known = give(start, stop), kept.get(name, Kept())
                kept[name] = Kept(known.delta + _dot(change, change), known.rounded + _dot(rounding, change))
        return counted, kept, finite

    def _apart(self, total: Rows | None) -> list[tuple[str, Rows]]:
        """Give the sum of each adapter alone; of a single one, that is all there is."""
        names = list(dict.fromkeys(term.adapter for term in self.terms))
        if total is None:
            return []
        if len(names) == 1:
            return [(names[0], total)]
        return [(name, self._sum([term for term in self.terms if term.adapter == name])) for name in names]

    def _sum(self, terms: Sequence[Term]) -> Rows:
        def load_base(part: Part) -> Tensor:
            return self._reader.read(self._baking.stored[part.target].local_file, part.target.tensor)

        return delta_rows(terms, self.stored.info.shape, self._reader.factors, load_base)

    def _base(self, start: int, stop: int) -> Tensor:
        """Read rows of the base, in fp32."""
        shape = self.stored.info.shape
        values = self._reader.read(self.stored.local_file, self._piece.target.tensor, (start, stop) if shape else None)
        return values.reshape(stop - start, self.width).float()

    def _found(self, start: int, stop: int) -> Tensor:
        """Read rows of the output."""
        values = torch.empty((stop - start) * self.width, dtype=self.dtype)
        place = self._piece.begin + start * self.width * self.dtype.itemsize
        data = values.view(torch.uint8).numpy().data
        if read_into(self._number, data, place) < len(data):
            raise CorruptFileError(f"{self.name} of the output has been cut off since its header was read")
        return values.view(stop - start, self.width)

    def _transposed(self) -> Tensor:
        return self._found(0, self.rows).view(self.width, self.rows).T.contiguous()

    def diagnose(self, counted: _Counted) -> str:
        """Say what may have happened to it, from the first block that deviates."""
        start, stop = counted.first or (0, 0)
        found = self._transposed()[start:stop] if self._piece.transposed else self._found(start, stop)
        # On the CPU, where the output's values are: not every GPU has fp64.
        changes = [(term, self._sum([term])(start, stop).cpu().double()) for term in self.terms]
        return diagnose(found, self._base(start, stop).cpu().double(), changes, counted.differing, counted.values)


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.reshape(-1), other.reshape(-1)))
