"""LoRA of an embedding table: its rows are the tokens, so that the product is turned on its side.

https://github.com/huggingface/peft/blob/main/src/peft/tuners/lora/layer.py, `Embedding`.
"""

from typing import TYPE_CHECKING

from lorakit_cli.core.kind import Factors, Kind, Settings, Shape, Shapes
from lorakit_cli.kinds.shapes import require_same_rank, require_values

if TYPE_CHECKING:
    from torch import Tensor


def _rank(shapes: Shapes) -> int:
    down, up = shapes["embedding_down"], shapes["embedding_up"]
    if len(down) != 2 or len(up) != 2:
        raise ValueError(f"its factors have shapes {list(down)} and {list(up)}, which are no embedding pair")
    require_values({"embedding_down": down, "embedding_up": up})
    return require_same_rank(down=(down[0], down), up=(up[1], up))


def _delta_shape(shapes: Shapes) -> Shape:
    return (shapes["embedding_down"][1], shapes["embedding_up"][0])


def _delta(factors: Factors, scale: float, base: "Tensor | None", settings: Settings) -> "Tensor":
    """Give `scale * (up @ down).T`: `[tokens, rank] @ [rank, width]`."""
    return factors["embedding_down"].T @ (factors["embedding_up"].T * scale)


EMBEDDING = Kind(
    "embedding",
    {"lora_embedding_A": "embedding_down", "lora_embedding_B": "embedding_up"},
    frozenset({"embedding_down", "embedding_up"}),
    _delta_shape,
    _delta,
    _rank,
)
