"""Numbers that come from people and files: finite, or refused."""

import math


def finite(value: object) -> float:
    """Give a number as a float. Raises ValueError for anything that is no finite number."""
    if not isinstance(value, bool) and isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    text = repr(value)
    raise ValueError(f"must be a finite number, not {text if len(text) <= 40 else text[:40] + '…'}")
