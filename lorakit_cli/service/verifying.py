"""Prove an output: its files against what they should be, its untouched bytes against the base, its sums made again."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from lorakit_cli.core.base_files import piece_size
from lorakit_cli.core.bytes_done import BytesDone
from lorakit_cli.core.kept_bytes import Run, split
from lorakit_cli.core.positional import read_into
from lorakit_cli.core.tensor_file import parse_header, read_header
from lorakit_cli.errors import CorruptFileError
from lorakit_cli.service.baking import Output
from lorakit_cli.service.devices import choose_device
from lorakit_cli.service.findings import Findings
from lorakit_cli.service.lanes import run_side_by_side
from lorakit_cli.service.streaming import Baking
from lorakit_cli.service.tensor_replay import replay
from lorakit_cli.service.tensors import TensorReader
from lorakit_cli.service.verify_report import VerifyReport

_BLOCK = 4 << 20
FULL = "full"


def verify_files(
    baking: Baking, outputs: Sequence[Output], level: str, device: str, done: BytesDone, *, exact: bool = True
) -> VerifyReport:
    """Look at the files of an output again; `level` is `sample`, some rows of every changed tensor, or `full`.

    `exact`: no value may differ; else one in a thousand may be off by one unit in the last place, as sums that another
    kind of device made are. Raises LorakitError where base or adapters cannot be read.
    """
    begin = time.monotonic()
    findings = Findings(exact=exact)
    jobs: list[Callable[[], int]] = []
    with TensorReader(choose_device(device)) as reader:
        for output in outputs:
            problem = _header_problem(output)
            if problem:
                findings.problems.append(problem)
                continue
            number = reader.open(output.path)
            runs, pieces = split(output.file, baking.stored, baking.changes)
            findings.tensors += len(output.file.pieces)
            findings.unchanged += len(output.file.pieces) - len(pieces)
            jobs += [partial(_compare, baking, output, run, number, findings) for run in runs]
            jobs += [partial(replay, baking, reader, piece, number, findings, full=level == FULL) for piece in pieces]
        run_side_by_side(jobs, reader.device, done)
    return findings.report(level, time.monotonic() - begin)


def _header_problem(output: Output) -> str | None:
    """Say what is wrong with a file as a whole, None if its header is what it should be."""
    name = output.file.name
    try:
        found = read_header(output.path).tensors
        wanted, _ = parse_header(output.path, output.file.header[8:], output.file.size)
    except CorruptFileError as error:
        return str(error)
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    for missing in sorted(wanted.keys() - found.keys()):
        return f"{name} has no {missing}"
    for extra in sorted(found.keys() - wanted.keys()):
        return f"{name} has {extra}, which does not belong there"
    starts = [min((info.begin for info in tensors.values()), default=0) for tensors in (found, wanted)]
    for tensor, info in wanted.items():
        other = found[tensor]
        if (other.dtype, other.shape) != (info.dtype, info.shape):
            return f"{name}: {tensor} is {other.dtype} {list(other.shape)}, not {info.dtype} {list(info.shape)}"
        if other.begin - starts[0] != info.begin - starts[1]:
            return f"{name}: {tensor} lies elsewhere than it was written"
    return None


def _compare(baking: Baking, output: Output, run: Run, number: int, findings: Findings) -> int:
    """Compare a stretch that should be the base's, byte by byte."""
    size = min(_BLOCK, run.size)
    ours, theirs = bytearray(size), bytearray(size)
    with run.source.open("rb", buffering=0) as source:
        for place in range(0, run.size, size):
            count = min(size, run.size - place)
            if count < len(ours):
                ours, theirs = bytearray(count), bytearray(count)
            # Arrays are compared as a whole.
            got = read_into(number, memoryview(ours), run.into + place)
            expected = read_into(source.fileno(), memoryview(theirs), run.begin + place)
            if got != expected or ours != theirs:
                _note(baking, output, run.into + place, ours, theirs, findings)
    return run.size


def _note(baking: Baking, output: Output, place: int, ours: bytearray, theirs: bytearray, findings: Findings) -> None:
    """Name the tensors that a difference is in."""
    for piece in output.file.pieces:
        begin = max(piece.begin - place, 0)
        end = min(piece.begin - place + piece_size(piece, baking.stored[piece.target].info), len(ours))
        if begin < end and ours[begin:end] != theirs[begin:end]:
            count = sum(a != b for a, b in zip(ours[begin:end], theirs[begin:end], strict=True))
            findings.untouched(piece.target.label, count, end - begin)
