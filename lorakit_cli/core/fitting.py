"""Whether the shape of a change is that of a parameter."""

import math
from functools import lru_cache

from lorakit_cli.core.kind import ANY, Shape


@lru_cache(maxsize=4096)
def fits(delta: Shape, base: Shape) -> bool:
    """Tell whether a change of one shape can be added to a parameter of another.

    A linear layer and a 1x1 convolution stand for each other, and a change may come flattened to two dimensions.
    """
    ours, theirs = _squeezed(delta), _squeezed(base)
    if len(ours) == 2 and len(theirs) > 2:
        theirs = (theirs[0], math.prod(theirs[1:]))
    return _same(ours, theirs) or _same(delta, base)


def _same(delta: Shape, base: Shape) -> bool:
    return len(delta) == len(base) and all(a in (ANY, b) for a, b in zip(delta, base, strict=True))


def _squeezed(shape: Shape) -> Shape:
    return shape[:2] if len(shape) > 2 and set(shape[2:]) == {1} else shape
