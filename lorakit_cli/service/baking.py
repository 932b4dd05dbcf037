"""Write the files of weights of an output: what stays is copied while torch is still loading, the rest computed."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lorakit_cli.core.base_files import by_file
from lorakit_cli.core.base_index import BaseIndex, BaseTensor
from lorakit_cli.core.bytes_done import BytesDone
from lorakit_cli.core.file_copy import clone_file
from lorakit_cli.core.file_digest import digest_tensors
from lorakit_cli.core.kept_bytes import split
from lorakit_cli.core.match import Target
from lorakit_cli.core.plan import Term
from lorakit_cli.core.positional import write_at
from lorakit_cli.core.preallocation import preallocate
from lorakit_cli.core.weights_file import Piece, WeightsFile

if TYPE_CHECKING:
    from lorakit_cli.service.streaming import Amount

_THREADS = 4


class Output(NamedTuple):
    """A file to be written, and where; `opened` is the number of one that is open already."""

    file: WeightsFile
    path: Path
    opened: int | None = None


@dataclass(frozen=True, slots=True)
class Baked:
    """What came of it: the digest of every tensor that was read, and how much those that changed did."""

    digests: dict[Target, bytes] = field(default_factory=dict)
    amounts: "dict[Target, Amount]" = field(default_factory=dict)
    arithmetic: dict[str, str] = field(default_factory=dict)


def bake_files(
    base: BaseIndex,
    stored: Mapping[Target, BaseTensor],
    changes: Mapping[Target, tuple[Term, ...]],
    outputs: Sequence[Output],
    device: str,
    done: BytesDone,
) -> Baked:
    """Write the files. Raises LorakitError for a fault of base or adapters, OSError for one of the disk."""
    baked = Baked()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_THREADS))
        jobs: list[Future[int]] = []
        pieces: list[tuple[int, Piece]] = []
        try:
            for output in outputs:
                runs, own = split(output.file, stored, changes)
                computed = {piece.target for piece in own}
                kept = {piece.target: stored[piece.target] for piece in output.file.pieces}
                kept = {target: tensor for target, tensor in kept.items() if target not in computed}
                if not own and _is_cloned(output):
                    done(output.file.size)
                else:
                    number = _opened(output, stack)
                    jobs += [pool.submit(run.copy, number) for run in runs]
                    pieces += [(number, piece) for piece in own]
                jobs += [pool.submit(_digest, path, tensors, baked) for path, tensors in by_file(kept).items()]
            if pieces:
                from lorakit_cli.service.streaming import Baking, bake

                baked.arithmetic.update(
                    bake(Baking(base, stored, changes, pieces), device, baked.digests, baked.amounts, done)
                )
            for job in jobs:
                done(job.result())
        except BaseException:
            # What has not begun is not worth waiting for.
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return baked


def _opened(output: Output, stack: ExitStack) -> int:
    number = output.opened
    if number is None:
        output.path.parent.mkdir(parents=True, exist_ok=True)
        number = stack.enter_context(output.path.open("xb", buffering=0)).fileno()
    preallocate(number, output.file.size)
    write_at(number, memoryview(output.file.header), 0)
    return number


def _is_cloned(output: Output) -> bool:
    """Let a file share its blocks with the base's that it is a copy of, and tell whether that is possible."""
    if output.file.copy_of is None or output.opened is not None:
        return False
    output.path.parent.mkdir(parents=True, exist_ok=True)
    if clone_file(output.file.copy_of, output.path):
        return True
    output.path.unlink()
    return False


def _digest(path: Path, tensors: Mapping[Target, BaseTensor], baked: Baked) -> int:
    found = digest_tensors(path, tensors)
    baked.digests.update(found)
    return 0
