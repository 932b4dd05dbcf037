"""What may stand behind an adapter's weight: the web UIs' weight of everything but text encoders, and block weights.

In `toy:0.5:1:lbw=MIDD` text encoders have 0.5 and all else 1; `te=` and `unet=` say the same by name.
"""

from lorakit_cli.core.block_weights import BlockWeights, number_text, parse_block_weights
from lorakit_cli.errors import AdapterSpecError, BlockScalesError


def read_tail(
    spec: str, first: float | None, second: float | None, named: str
) -> tuple[float | None, BlockWeights | None]:
    """Give the weight of an adapter and what differs from it, from its two numbers and what is said by name.

    As there, the second number is the first where it is missing. Raises AdapterSpecError.
    """
    try:
        weights = parse_block_weights(f"adapter {spec!r}", named) if named else BlockWeights()
    except BlockScalesError as error:
        raise AdapterSpecError(str(error)) from error
    marks = {item.partition("=")[0] for item in named.split(":")}
    te = weights.te if "te" in marks else first
    unet = weights.unet if "unet" in marks else te if second is None else second
    if te is None and unet is not None:
        te = 1.0
    if te != unet:
        return 1.0, weights._replace(te=te, unet=unet)
    alike = weights._replace(te=1.0, unet=1.0)
    return te, alike if alike.numbers or alike.preset else None


def tail_text(weight: float | None, weights: BlockWeights) -> str:
    """Write a weight and what differs from it."""
    if weights.te == weights.unet:
        number = "" if weight is None else f":{weight!r}"
        return f"{number}:lbw={weights.text}"
    te, unet = (number_text((1.0 if weight is None else weight) * own) for own in (weights.te, weights.unet))
    listed = weights.numbers or weights.preset
    return f":{te}:{unet}" + (f":lbw={weights._replace(te=1.0, unet=1.0).text}" if listed else "")
