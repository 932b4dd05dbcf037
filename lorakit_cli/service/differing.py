"""How two models differ, parameter by parameter: as two factors, as a whole, or only by how much."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.model_pairs import Pair
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.errors import BaseModelError
from lorakit_cli.kinds.norms import frobenius
from lorakit_cli.service.dense_rank import left_out, singular_values, truncated_svd
from lorakit_cli.service.lanes import Progress, run_side_by_side
from lorakit_cli.service.tensors import TensorReader

# Values that are widened at a time.
_AT_ONCE = 1 << 20


class Wanted(NamedTuple):
    """What is wanted of a difference: of matrices the leading directions that `rule` keeps of that parameter.

    Differences that nowhere exceed `least` are left out; `whole`: what has no factors is kept as it is.
    """

    rule: Callable[[Pair], RankRule]
    least: float
    whole: bool
    dtype: torch.dtype


class Difference(NamedTuple):
    """A parameter that differs: Frobenius norms of the difference, of the base, and of what the factors leave out.

    `up` is `[rows, rank]` and `down` `[rank, columns]`, scale 1; `diff` the whole difference in the parameter's shape.
    None of them: only the norms are known, for the `reason`.
    """

    pair: Pair
    norm: float
    base_norm: float
    left_out: float
    up: Tensor | None = None
    down: Tensor | None = None
    diff: Tensor | None = None
    exact: bool = False
    reason: str | None = None


class Models(NamedTuple):
    """Two models of one architecture, and the device to compute on."""

    before: BaseIndex
    after: BaseIndex
    device: torch.device


def differences(
    models: Models, pairs: Iterable[Pair], wanted: Wanted, progress: Progress | None = None
) -> list[Difference]:
    """Take the difference of every pair, one in each thread; those that are equal are left out.

    The order is that of the pairs. `progress` is given the number of values that are done. Raises BaseModelError for
    a model that is not finite.
    """
    found: dict[int, Difference] = {}
    lock = Lock()
    with TensorReader(models.device) as reader:

        def job(number: int, pair: Pair) -> int:
            difference = _difference(models, reader, pair, wanted)
            if difference:
                with lock:
                    found[number] = difference
            return pair.size

        # The largest first, so that no thread is left alone with one at the end.
        numbered = sorted(enumerate(pairs), key=lambda entry: -entry[1].size)
        run_side_by_side((partial(job, *entry) for entry in numbered), models.device, progress)
    return [found[number] for number in sorted(found)]


def spectra(
    models: Models, pairs: Iterable[Pair], least: float, progress: Progress | None = None
) -> dict[str, list[float]]:
    """Give the singular values of the difference of every matrix that adapters are made for, by its label.

    Those that are equal, or differ by no more than `least` in any value, are left out.
    """
    found: dict[str, list[float]] = {}
    with TensorReader(models.device) as reader:

        def job(pair: Pair) -> int:
            change = _change(models, reader, pair)
            if change is not None and _largest(change[1]) > least:
                # Each thread writes a key of its own.
                found[pair.label] = singular_values(change[1].flatten(1))
            return pair.size

        matrices = [pair for pair in pairs if pair.is_adapted and pair.is_matrix]
        ordered = sorted(matrices, key=lambda pair: -pair.size)
        run_side_by_side((partial(job, pair) for pair in ordered), models.device, progress)
    return found


def _change(models: Models, reader: TensorReader, pair: Pair) -> tuple[float, Tensor] | None:
    """Give the norm of a parameter of the base and what the other model changes of it, in fp32; None if they are equal.

    Raises BaseModelError where either is not finite.
    """
    before, after = reader.part(models.before, pair.before), reader.part(models.after, pair.after)
    if before.dtype == after.dtype and torch.equal(before, after):
        return None
    # Of what was read as fp32 it is the very tensor, and nobody else's; its values in one row, for what follows.
    change = after.float().contiguous()
    values, less = change.view(-1), before.reshape(-1)
    for start in range(0, len(values), _AT_ONCE):
        values[start : start + _AT_ONCE].sub_(less[start : start + _AT_ONCE].float())
    # A sum is quicker, and finite only where all values are.
    if not math.isfinite(change.sum()) and not torch.isfinite(change).all():
        where = models.after if torch.isfinite(before.float()).all() else models.before
        raise BaseModelError(f"{pair.label} of {where.label} holds NaN or infinity; is the file broken?")
    return (_norm(before), change) if change.any() else None


def _difference(models: Models, reader: TensorReader, pair: Pair, wanted: Wanted) -> Difference | None:
    both = _change(models, reader, pair)
    if both is None:
        return None
    base_norm, change = both
    norm = _norm(change)
    plain = Difference(pair, norm, base_norm, norm)
    if not pair.is_adapted:
        return plain._replace(reason=f"no adapter is made for a {pair.component}")
    if _largest(change) <= wanted.least:
        return plain._replace(reason="below --min-diff")
    if pair.is_matrix:
        return _factored(plain, change.flatten(1), wanted.rule(pair), wanted.dtype)
    if wanted.whole:
        diff = change.to(wanted.dtype)
        return plain._replace(diff=diff.cpu(), left_out=_norm(change - diff.float()))
    return plain._replace(reason="no linear layer or convolution")


def _factored(plain: Difference, matrix: Tensor, rule: RankRule, dtype: torch.dtype) -> Difference:
    found = truncated_svd(matrix, rule)
    up, down = (factor.to(dtype) for factor in found.balanced())
    error = left_out(matrix, up, down)
    return plain._replace(up=up.cpu(), down=down.cpu(), left_out=error, exact=found.exact)


def _norm(tensor: Tensor) -> float:
    return float(frobenius(tensor))


def _largest(change: Tensor) -> float:
    lowest, highest = torch.aminmax(change)
    return max(-float(lowest), float(highest))
