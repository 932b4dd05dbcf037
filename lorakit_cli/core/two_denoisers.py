"""Say which denoiser an adapter goes to in a pipeline of two: Wan 2.2 has one for much noise and one for little."""

from collections.abc import Sequence

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.match import Match

_FIRST, _SECOND = "transformer", "transformer_2"


def only_the_first(base: BaseIndex, matches: Sequence[Match]) -> str | None:
    """Say that an adapter changes the first of a base's two denoisers alone, None where that is not so.

    Which of them it was trained for does not show: most layouts name neither, and diffusers' converters call every
    denoiser by the first one's name.
    """
    if not {_FIRST, _SECOND} <= base.components.keys():
        return None
    layers = {match.component: match.layer for match in matches}
    if _FIRST not in layers or _SECOND in layers:
        return None
    named = f"only {_FIRST}" if layers[_FIRST].components == (_FIRST,) else "neither"
    return f"the base has two denoisers, {_FIRST} and {_SECOND}; this adapter's keys name {named}: applied to {_FIRST}"
