"""Which layers of an adapter a layout cannot hold, and why."""

from collections.abc import Iterator, Sequence

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.match import Match
from lorakit_cli.core.new_layer import has_row_magnitude
from lorakit_cli.core.target_layout import TargetLayout

_DORA = "dora"


def unheld(base: BaseIndex, matches: Sequence[Match], target: TargetLayout) -> Iterator[tuple[Match, str]]:
    """Give the layers that a layout cannot hold, each with the reason.

    peft's form keeps a magnitude for each row, and has either all layers of a component DoRA or none.
    """
    kinds: dict[str, dict[str, Match]] = {}
    for match in matches:
        kinds.setdefault(component_of(match), {}).setdefault(match.layer.kind.name, match)
    for match in matches:
        layer, component = match.layer, component_of(match)
        if layer.kind.name not in target.kinds:
            held = ", ".join(sorted(target.kinds))
            yield match, f"cannot hold {layer.kind.name}, which {layer.stem} is; it holds {held}"
        elif layer.kind.name == _DORA and not target.alpha:
            other = next((known for name, known in kinds[component].items() if name != _DORA), None)
            if not has_row_magnitude(layer, base.components[component].shape(match.parameters[0])):
                yield match, f"cannot hold DoRA with a magnitude for each column, which {layer.stem} has, only by row"
            elif other:
                yield (
                    match,
                    f"cannot hold DoRA beside other layers of one component, and {layer.stem} is DoRA but "
                    f"{other.layer.stem} is not",
                )


def component_of(match: Match) -> str:
    """Name the component that a match is in."""
    return match.component


def is_matrix(match: Match) -> bool:
    """Tell whether a layer changes a matrix or convolution, which factors can stand for, and not a vector."""
    return len(match.layer.delta_shape) > 1
