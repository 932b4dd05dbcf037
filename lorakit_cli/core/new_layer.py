"""One layer, or rows of it, under a new name: its tensors as pieces of the file it comes from, and its scale."""

import math
from typing import NamedTuple

from lorakit_cli.core.architecture import Name
from lorakit_cli.core.kind import Shape
from lorakit_cli.core.lora_file import LoraFile, LoraLayer
from lorakit_cli.core.new_alpha import new_alpha
from lorakit_cli.core.new_tensor import NewTensor, Run
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.errors import UnsupportedError

# Of these parts, each row of the change has its own; all other parts belong to every row.
BY_ROW = frozenset(
    {"up", "hada_w1_a", "hada_w2_a", "diff", "bias_diff", "norm_diff", "norm_bias_diff", "value", "up_bias"}
)
_MAGNITUDES = ("magnitude", "row_magnitude")
_ROW_MAGNITUDE = "row_magnitude"
_SPLIT = frozenset(
    {
        "lora", "lora-tucker", "loha", "dora", "dora-tucker", "dora-loha", "full", "bias", "norm", "norm-bias",
        "replacement", "lora-bias",
    }
)  # fmt: skip
# Two factors and nothing else: they can take the dimensions of a linear layer or of a convolution.
_PAIRS = frozenset({"lora", "dora"})


class Share(NamedTuple):
    """Rows of a layer, and where they come to lie.

    `start` to `stop` of the layer's `rows` rows begin at row `offset` of the `total` rows of the new layer;
    `swapped`: in halves the other way round.
    """

    layer: LoraLayer
    start: int
    stop: int
    rows: int
    offset: int
    total: int
    swapped: bool

    @property
    def whole(self) -> bool:
        """Whether these are all rows of the layer, in their order."""
        return self.stop - self.start == self.rows and not self.swapped

    @property
    def covers(self) -> bool:
        """Whether these are all rows of the layer and of the new one, in the layer's order."""
        return self.whole and self.rows == self.total


class NewLayer(NamedTuple):
    """A layer of the new file: the modules it covers, its tensors, its rank and scale, and the layers it is made of."""

    stem: str
    component: str
    name: Name
    kind: str
    rank: int
    scale: float
    tensors: tuple[NewTensor, ...]
    sources: tuple[LoraLayer, ...]


class Place(NamedTuple):
    """Where a new layer belongs: the start of its keys, its module, the shape that it changes, and the layout."""

    stem: str
    component: str
    name: Name
    shape: Shape
    target: TargetLayout

    def tensor_name(self, role: str) -> str:
        """Write the name of a part."""
        return f"{self.stem}.{self.target.suffix(self.component, role)}"


def rename(file: LoraFile, place: Place, share: Share) -> NewLayer:
    """Write a layer, or rows of it, under another name. Raises UnsupportedError where rows cannot be told apart."""
    layer = share.layer
    kind = layer.kind.name
    if not share.whole and kind not in _SPLIT:
        raise UnsupportedError(f"{layer.stem} is {kind} over several modules, which cannot be split exactly")
    tensors = [_part(file, role, share, place) for role in layer.keys]
    if place.target.alpha:
        tensors += new_alpha(file, layer, place.stem, layer.rank)
    scale = layer.scale
    if kind == "lora-bias":
        # A bias that goes with a factor becomes one of its own.
        kind, scale = "bias", 1.0
        if layer.scale != scale:
            raise UnsupportedError(
                f"{layer.stem} has a bias scaled by {layer.scale}, and the layout keeps no scaled one"
            )
    rank = layer.rank if kind == layer.kind.name else 0
    return NewLayer(place.stem, place.component, place.name, kind, rank, scale, tuple(tensors), (layer,))


def run_of(file: LoraFile, layer: LoraLayer, role: str) -> Run:
    """Give the bytes of a part of a layer."""
    info = file.tensors[layer.keys[role]]
    return info.begin, info.end


def magnitude_shape(rows: int, whole: Shape, target: TargetLayout) -> Shape:
    """Give the shape of a magnitude with a value for each row: LyCORIS' form, or peft's of a linear layer or conv."""
    if target.alpha:
        return (rows, *(1 for _ in whole[1:]))
    return (rows,) if len(whole) == 2 else (1, rows, *(1 for _ in whole[2:]))


def has_row_magnitude(layer: LoraLayer, whole: Shape) -> bool:
    """Say whether a DoRA's magnitude has a value for each row of what it changes, and not for each column."""
    role = next(role for role in _MAGNITUDES if role in layer.shapes)
    shape = layer.shapes[role]
    return role == _ROW_MAGNITUDE or len(shape) == 1 or shape[0] != 1 or math.prod(shape) != whole[1]


def _part(file: LoraFile, role: str, share: Share, place: Place) -> NewTensor:
    """Write one part of a layer, or the rows of it that are wanted."""
    layer, whole = share.layer, place.shape
    info = file.tensors[layer.keys[role]]
    rows = share.stop - share.start
    by_row = role in BY_ROW
    shape: Shape = (rows, *info.shape[1:]) if by_row and not share.whole else info.shape
    if role in _MAGNITUDES:
        by_row = has_row_magnitude(layer, whole)
        if not by_row and rows != share.rows:
            raise UnsupportedError(
                f"{layer.stem} is DoRA over several modules by column, which cannot be split exactly"
            )
        shape = magnitude_shape(rows, whole, place.target) if by_row else shape
    elif layer.kind.name in _PAIRS:
        shape = (layer.rank, *whole[1:]) if role == "down" else (rows, layer.rank, *(1 for _ in whole[2:]))
    pieces: tuple[Run, ...] = ((info.begin, info.end),)
    if by_row and not share.whole:
        width = (info.end - info.begin) // share.rows
        pieces = tuple((info.begin + a * width, info.begin + b * width) for a, b in _runs(share))
    return NewTensor(place.tensor_name(role), info.dtype, shape, pieces)


def _runs(share: Share) -> tuple[tuple[int, int], ...]:
    if not share.swapped:
        return ((share.start, share.stop),)
    middle = (share.start + share.stop) // 2
    return ((middle, share.stop), (share.start, middle))
