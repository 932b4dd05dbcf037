"""One adapter algorithm: the parts its layers have, what shape they give, and what they come to."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from lorakit_cli.core.record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Array = TypeVar("Array", "Tensor", "NDArray[Any]")

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Factors = Mapping[str, "Tensor"]
Settings = Mapping[str, float]

ALPHA = "alpha"
# Stands in a shape for a size that only the base knows.
ANY = -1


def alpha_over_rank(alpha: float | None, rank: int, shapes: Shapes) -> float:
    """Give alpha / rank; a missing alpha means scale 1."""
    return 1.0 if alpha is None else alpha / rank


def unscaled(alpha: float | None, rank: int, shapes: Shapes) -> float:
    """Give 1: the algorithm has no scale of its own."""
    return 1.0


def _no_rank(shapes: Shapes) -> int:
    return 0


def _always(shapes: Shapes) -> bool:
    return True


class Thin(NamedTuple):
    """A delta as two matrices, `[out, inner]` and `[inner, in * kernel]`, for an algorithm that stores other factors.

    `inner(shapes)` is their common size, `factors(factors, scale)` gives the two; their product is the delta exactly.
    """

    inner: Callable[[Shapes], int]
    factors: Callable[[Factors, float], tuple["Tensor", "Tensor"]]


class Product(Protocol):
    """What gives two matrices whose product is the delta, of torch's tensors or of numpy's arrays."""

    def __call__(self, factors: Mapping[str, Array], scale: float) -> tuple[Array, Array]:
        """Give `[out, rank]`, with the scale in it, and `[rank, in * kernel]`."""


class Kind(Record):
    """One adapter algorithm.

    `suffixes` maps the end of a key to the role of its tensor. A layer is of this kind if it has every role of
    `required` and its shapes pass `when`; it takes those of `optional` with it. (An algorithm with alternative parts
    has no `required` role, and `when` says which sets are whole.) `rank` (0: it has none) and `delta_shape` (ANY for
    a size only the base knows; a two-dimensional shape also fits a convolution of as many values) work on the shapes
    by role and raise ValueError where they contradict each other.

    `delta(factors, scale, base, settings)` gives the change of the parameter at strength 1, in the dtype of the
    factors (fp32 or fp64), flattened or not: at full scale, so that the result is what is added. It is always a new
    tensor, which may be written to; factors and base are left as they are. Kinds with `needs_base` change the base's
    value by what it is, and are given it whole; what they return is still the difference, so that strengths between
    0 and 1 lead on a straight line from the base to the changed value, and several adapters each start from the base.
    They raise ValueError where the base has no size the factors fit. `settings` are numbers from outside the tensors
    (ALPHA among them). `shares_scale`: the scale is that of the layer it stands beside. `beside`: kinds that the same
    tensors are for other parameters of the module, where it has them. `norm(factors, scale)` gives the Frobenius norm
    of the delta, a 0-dim fp64 tensor, from factors of any dtype; None where that takes the delta itself. `by_row` are
    the roles of which each row of the change has its own row, while all others belong to every row: from some of their
    rows `delta` gives those of the change, times whatever the scale is multiplied by. It is empty where any row takes
    all of them. `product(factors, scale)` gives two matrices whose product is the delta, for an algorithm of which that
    is all; None for any other. `thin` does so for one that takes a computation to become a product. The tensors of
    `whole_numbers` are flags, counts or places, of any dtype; all others are floating numbers.
    """

    name: str
    suffixes: Mapping[str, str]
    required: frozenset[str]
    delta_shape: Callable[[Shapes], Shape]
    delta: Callable[[Factors, float, "Tensor | None", Settings], "Tensor"]
    rank: Callable[[Shapes], int] = _no_rank
    scale: Callable[[float | None, int, Shapes], float] = alpha_over_rank
    when: Callable[[Shapes], bool] = _always
    optional: frozenset[str] = frozenset()
    parameter: str = "weight"
    needs_base: bool = False
    shares_scale: bool = False
    norm: Callable[[Factors, float], "Tensor"] | None = None
    beside: tuple["Kind", ...] = ()
    whole_numbers: frozenset[str] = frozenset()
    by_row: frozenset[str] = frozenset()
    product: Product | None = None
    thin: Thin | None = None
