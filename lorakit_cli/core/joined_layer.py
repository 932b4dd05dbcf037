"""Layers over parts of a module, written as one over all of it.

Two factors: `down` stacked, `up` along a diagonal of blocks, rank and alpha added up. Where `down` is one and the
same, as after splitting, it is kept once and `up` is stacked. Whole differences are stacked, with zeros in gaps.
"""

from collections.abc import Sequence
from itertools import pairwise

from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.new_alpha import new_alpha
from lorakit_cli.core.new_layer import BY_ROW, NewLayer, Place, Share, has_row_magnitude, magnitude_shape, run_of
from lorakit_cli.core.new_tensor import Interleaved, NewTensor, Piece, Run
from lorakit_cli.core.tensor_info import BIT_SIZES
from lorakit_cli.errors import UnsupportedError

_PAIRS = frozenset({"lora", "dora"})
# Of these, rows that nothing is said about stay as they are.
_GAPS = frozenset({"lora", "full", "bias", "norm", "norm-bias"})


def join(file: LoraFile, place: Place, shares: Sequence[Share]) -> NewLayer:
    """Write layers over parts of a module as one. Raises UnsupportedError where that is not exact."""
    shares = sorted(shares, key=lambda share: share.offset)
    layers = [share.layer for share in shares]
    kind = layers[0].kind.name
    _require_joinable(file, place, shares)
    tensors: list[NewTensor] = []
    rank = layers[0].rank
    if kind in _PAIRS:
        shared = _same_bytes(file, [run_of(file, layer, "down") for layer in layers])
        rank = rank if shared else sum(layer.rank for layer in layers)
        tensors += _pair(file, place, shares, rank, shared=shared)
        if place.target.alpha:
            tensors += new_alpha(file, layers[0], place.stem, rank)
    for role in layers[0].keys:
        if role not in ("up", "down"):
            tensors.append(_stacked(file, place, shares, role))
    return NewLayer(place.stem, place.component, place.name, kind, rank, layers[0].scale, tuple(tensors), tuple(layers))


def _require_joinable(file: LoraFile, place: Place, shares: Sequence[Share]) -> None:
    """Raise UnsupportedError with the reason why layers cannot be one."""
    layers = [share.layer for share in shares]
    first, text = layers[0], place.name.text
    if any(a.offset + a.stop - a.start > b.offset for a, b in pairwise(shares)):
        raise UnsupportedError(f"{first.stem} and {layers[1].stem} change the same rows of {text}")
    stacked = all(role in BY_ROW for role in first.keys)
    pair = first.kind.name in _PAIRS and len(place.shape) == 2
    if not (stacked or pair) or any(share.swapped for share in shares):
        raise UnsupportedError(f"{first.stem} is {first.kind.name}, which cannot be joined into {text} exactly")
    if len({layer.scale for layer in layers}) > 1:
        raise UnsupportedError(
            f"{' and '.join(layer.stem for layer in layers)} have different scales, and {text} has room for one; "
            "the diffusers and peft layouts keep them apart"
        )
    if first.kind.name not in _GAPS and sum(share.stop - share.start for share in shares) != place.shape[0]:
        raise UnsupportedError(
            f"{first.stem} is {first.kind.name} of a part of {text}, and what it is for the rest only the base knows"
        )
    if first.kind.name == "dora" and not all(has_row_magnitude(layer, place.shape) for layer in layers):
        raise UnsupportedError(f"{first.stem} is DoRA by column, which cannot be joined into {text} exactly")
    for role in first.keys:
        dtypes = {file.tensors[layer.keys[role]].dtype for layer in layers}
        if len(dtypes) > 1:
            raise UnsupportedError(
                f"the layers of {text} are stored in {' and '.join(sorted(dtypes))}; "
                "convert --to diffusers --dtype fp32 first"
            )


def _pair(file: LoraFile, place: Place, shares: Sequence[Share], rank: int, *, shared: bool) -> list[NewTensor]:
    layer = shares[0].layer
    down, up = (file.tensors[layer.keys[role]].dtype for role in ("down", "up"))
    runs = [run_of(file, share.layer, "down") for share in shares]
    rows = _up_rows(file, shares, BIT_SIZES[up] // 8, rank, shared=shared)
    return [
        NewTensor(place.tensor_name("down"), down, (rank, place.shape[1]), tuple(runs[:1] if shared else runs)),
        NewTensor(place.tensor_name("up"), up, (place.shape[0], rank), tuple(rows)),
    ]


def _up_rows(
    file: LoraFile, shares: Sequence[Share], item: int, rank: int, *, shared: bool
) -> list[Piece | Interleaved]:
    pieces: list[Piece | Interleaved] = []
    row = before = 0
    for share in shares:
        if share.offset > row:
            pieces.append(bytes((share.offset - row) * rank * item))
        own = share.layer.rank
        begin, _ = run_of(file, share.layer, "up")
        rows = share.stop - share.start
        run = (begin + share.start * own * item, begin + share.stop * own * item)
        if shared:
            pieces.append(run)
        else:
            widths = ((None, before * item), (run, own * item), (None, (rank - before - own) * item))
            pieces.append(Interleaved(rows, tuple((part, width) for part, width in widths if width)))
            before += own
        row = share.offset + rows
    if row < shares[0].total:
        pieces.append(bytes((shares[0].total - row) * rank * item))
    return pieces


def _stacked(file: LoraFile, place: Place, shares: Sequence[Share], role: str) -> NewTensor:
    """Stack the rows of a part that each row has its own of, with zeros where there is none."""
    info = file.tensors[shares[0].layer.keys[role]]
    width = (info.end - info.begin) // shares[0].rows
    pieces: list[Piece] = []
    row = 0
    for share in shares:
        if share.offset > row:
            pieces.append(bytes((share.offset - row) * width))
        begin, _ = run_of(file, share.layer, role)
        pieces.append((begin + share.start * width, begin + share.stop * width))
        row = share.offset + share.stop - share.start
    if row < place.shape[0]:
        pieces.append(bytes((place.shape[0] - row) * width))
    shape = (place.shape[0], *info.shape[1:])
    if role not in BY_ROW:
        shape = magnitude_shape(place.shape[0], place.shape, place.target)
    return NewTensor(place.tensor_name(role), info.dtype, shape, tuple(pieces))


def _same_bytes(file: LoraFile, runs: Sequence[Run]) -> bool:
    """Tell whether factors are one and the same, as after splitting a fused layer."""
    if len({end - begin for begin, end in runs}) > 1:
        return False
    with file.data.open("rb") as source:
        first: bytes | None = None
        for begin, end in runs:
            source.seek(begin)
            data = source.read(end - begin)
            first = data if first is None else first
            if data != first:
                return False
    return True
