"""The block scales of the adapters of a request, whether said in an option or behind a weight."""

from collections.abc import Mapping, Sequence

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import BlockScales
from lorakit_cli.errors import BlockScalesError, did_you_mean


def adapter_scales(specs: Sequence[AdapterSpec], given: Mapping[str, BlockScales]) -> dict[str, BlockScales]:
    """Give the block scales that were said of adapters, by name.

    Raises BlockScalesError for scales of an adapter that is not there, and for those that are said twice.
    """
    said = {spec.name: BlockScales({}, spec.block_weights) for spec in specs if spec.block_weights}
    for name in said:
        if name in given:
            raise BlockScalesError(f"block scales of {name} are given twice, in --block-scales and behind its weight")
    names = [spec.name for spec in specs]
    for name in given:
        if name not in names:
            near = did_you_mean(name, names) or "."
            known = f"The adapters are {', '.join(names)}" if names else "No adapter is active"
            if names and len(given) == 1:
                known += f"; scales of one adapter are written {names[0]}=…"
            raise BlockScalesError(f"block scales name the adapter {name!r}{near} {known}")
    return {**given, **said}
