"""The arithmetic: the sum of an adapter's terms for one tensor, in fp32 (fp64 to verify), rounded once.

A sum is made a few rows at a time: what it takes then fits a processor's cache, and its bits depend on nothing but
the shape of the tensor, whoever asks for them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lorakit_cli.core.lora_file import LoraLayer
from lorakit_cli.core.match import Part
from lorakit_cli.core.plan import Term
from lorakit_cli.errors import LoraFileError

LoadFactors = Callable[[Term], Mapping[str, Tensor]]
LoadBase = Callable[[Part], Tensor]
Rows = Callable[[int, int], Tensor]
# In fp32 a megabyte, which with what it is made of stays in the cache of a core; a GPU wants more at once.
_ELEMENTS, _ELEMENTS_ON_GPU = 1 << 18, 1 << 24
# So many terms of a product are summed before they go to the rest; it costs no time, and rounding takes a third less.
_DEPTH = 32


def blocks(shape: Sequence[int], device: torch.device) -> Iterator[tuple[int, int]]:
    """Yield the first row and the one behind the last of each block that a tensor is worked on in."""
    rows, width = as_matrix(shape)
    size = max(1, (_ELEMENTS if device.type == "cpu" else _ELEMENTS_ON_GPU) // max(1, width))
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


def as_matrix(shape: Sequence[int]) -> tuple[int, int]:
    """Give the shape of a tensor with all but its first dimension taken together."""
    rows, width = shape[0] if shape else 1, 1
    for size in shape[1:]:
        width *= size
    return rows, width


def delta_rows(
    terms: Sequence[Term],
    shape: Sequence[int],
    load: LoadFactors,
    load_base: LoadBase,
    dtype: torch.dtype = torch.float32,
) -> Rows:
    """Prepare the sum `strength * delta(layer)` over the terms for a base tensor of that shape.

    `load` gives a term's factors by role, `load_base` the whole tensor that a part lies in, both on the device
    where the sum is wanted; they are widened to `dtype` before any product. The function that comes back gives rows
    of the sum as a matrix, a tensor of its own.
    """
    if not terms:
        raise ValueError("a delta needs at least one term")
    height, width = as_matrix(shape)
    parts = [((into or (0, height)), _rows_of(own, width, load, load_base, dtype)) for into, own in _together(terms)]

    def rows(start: int, stop: int) -> Tensor:
        total: Tensor | None = None
        for (first, last), give in parts:
            begin, end = max(start, first), min(stop, last)
            if begin >= end:
                continue
            change = give(begin - first, end - first)
            if total is None and (begin, end) == (start, stop):
                total = change
                continue
            if total is None:
                total = change.new_zeros(stop - start, width)
            total[begin - start : end - start].add_(change)
        # Between the parts of a fused tensor there may be rows that no adapter reaches.
        return parts[0][1](0, 0).new_zeros(stop - start, width) if total is None else total

    return rows


def delta(
    terms: Sequence[Term],
    shape: Sequence[int],
    load: LoadFactors,
    load_base: LoadBase,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Give the whole sum that `delta_rows` prepares, in the base tensor's shape."""
    return delta_rows(terms, shape, load, load_base, dtype)(0, as_matrix(shape)[0]).reshape(tuple(shape))


def _together(terms: Sequence[Term]) -> list[tuple[tuple[int, int] | None, list[Term]]]:
    """Put together terms that are products for the same rows: one product of all their factors is their sum."""
    groups: list[tuple[tuple[int, int] | None, list[Term]]] = []
    products: dict[tuple[int, int] | None, list[Term]] = {}
    for term in terms:
        into = term.part.into
        if _in_order(term) and term.layer.kind.product and into in products:
            products[into].append(term)
            continue
        groups.append((into, [term]))
        if _in_order(term) and term.layer.kind.product:
            products[into] = groups[-1][1]
    return groups


def _in_order(term: Term) -> bool:
    return not term.part.swapped and not term.part.transposed


def _rows_of(terms: Sequence[Term], width: int, load: LoadFactors, load_base: LoadBase, dtype: torch.dtype) -> Rows:
    """Prepare the change of terms that belong together, its rows as they lie in the file, at their strengths."""
    term = terms[0]
    if _in_order(term) and term.layer.kind.product:
        left, right = _product(terms, width, load, dtype)
        return lambda start, stop: _multiplied(left[start:stop], right)
    if _in_order(term) and term.layer.kind.by_row:
        return _some_rows(term, width, load, dtype)
    whole = _whole(term, width, load, load_base, dtype)
    return lambda start, stop: whole[start:stop].clone()


def _product(terms: Sequence[Term], width: int, load: LoadFactors, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Give two matrices whose product is the sum of the terms."""
    lefts: list[Tensor] = []
    rights: list[Tensor] = []
    for term in terms:
        product = term.layer.kind.product
        assert product is not None
        left, right = product(_widened(load(term), dtype), term.layer.scale * term.strength)
        _require_rows(term, left.shape[0])
        lefts.append(left[term.part.start : term.part.stop])
        rights.append(right.reshape(-1, width))
    if len(terms) == 1:
        return lefts[0], rights[0]
    return torch.cat(lefts, 1), torch.cat(rights)


def _multiplied(left: Tensor, right: Tensor) -> Tensor:
    """Multiply, a few ranks at a time: the longer a sum grows, the more each step rounds away."""
    total = left[:, :_DEPTH] @ right[:_DEPTH]
    for begin in range(_DEPTH, right.shape[0], _DEPTH):
        total.addmm_(left[:, begin : begin + _DEPTH], right[begin : begin + _DEPTH])
    return total


def _some_rows(term: Term, width: int, load: LoadFactors, dtype: torch.dtype) -> Rows:
    layer, part = term.layer, term.part
    wide, scale = _widened(load(term), dtype), layer.scale * term.strength
    _require_rows(term, wide[min(layer.kind.by_row)].shape[0])

    def some(start: int, stop: int) -> Tensor:
        rows = slice(part.start + start, part.start + stop)
        own = {role: factor[rows] if role in layer.kind.by_row else factor for role, factor in wide.items()}
        return _computed(layer, own, scale, None).reshape(stop - start, width)

    return some


def _whole(term: Term, width: int, load: LoadFactors, load_base: LoadBase, dtype: torch.dtype) -> Tensor:
    """Compute all that a term changes, as a matrix of rows as they lie in the file, at its strength."""
    layer, part = term.layer, term.part
    base = None
    if layer.kind.needs_base:
        base = torch.cat([_own(load_base(other), other).to(dtype) for other in term.whole])
    change = layer_delta(layer, load(term), base, dtype)
    if change.ndim:
        _require_rows(term, change.shape[0])
    if part.transposed:
        change = change.reshape(part.stop, -1).T
    elif len(term.whole) > 1 or part.swapped:
        change = change.reshape(term.whole[-1].stop, -1)[part.start : part.stop]
        if part.swapped:
            change = torch.cat(change.chunk(2)[::-1])
    return change.reshape(-1, width) * term.strength


def _require_rows(term: Term, rows: int) -> None:
    wanted = term.whole[-1].stop
    if rows != wanted:
        raise LoraFileError(f"{term.file}: {term.layer.stem} changes {rows} rows, the base has {wanted}")


def layer_delta(layer: LoraLayer, factors: Mapping[str, Tensor], base: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Compute what a layer changes at strength 1, flattened or not: a tensor of its own.

    `base` is the value that it changes, for an algorithm that needs it. Raises LoraFileError where only the values
    show that the factors do not fit it.
    """
    return _computed(layer, _widened(factors, dtype), layer.scale, base)


def _widened(factors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    # Flags and indices are no values to compute with.
    return {role: factor.to(dtype) if factor.is_floating_point() else factor for role, factor in factors.items()}


def _computed(layer: LoraLayer, factors: Mapping[str, Tensor], scale: float, base: Tensor | None) -> Tensor:
    try:
        return layer.kind.delta(factors, scale, base, layer.settings)
    except ValueError as error:
        raise LoraFileError(f"{layer.stem}: {error}") from error


def _own(tensor: Tensor, part: Part) -> Tensor:
    """Cut a part out of its tensor, its rows in the layer's order."""
    return in_layer_order(tensor if part.into is None else tensor[part.into[0] : part.into[1]], part)


def in_layer_order(rows: Tensor, part: Part) -> Tensor:
    """Turn the rows of a part, as they lie in the file, into those that the layer changes."""
    rows = rows.T if part.transposed else rows
    return torch.cat(rows.chunk(2)[::-1]) if part.swapped else rows


def add_delta(base: Tensor, change: Tensor, dtype: torch.dtype) -> Tensor:
    """Add a delta to a base tensor in the delta's precision and round once to `dtype`."""
    return (base.to(change.dtype) + change).to(dtype)
