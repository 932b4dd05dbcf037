"""See at once that every layer of an adapter has its own place in a published UNet, as in most files it has.

Blocks that are alike have their names written once, with the run of their numbers in it.
"""

from collections.abc import Iterable, Iterator

from lorakit_cli.core.architecture import Shape, expand
from lorakit_cli.core.base_index import BaseComponent
from lorakit_cli.core.fitting import fits
from lorakit_cli.core.lora_file import LoraFile

# So many letters tell layouts and ways of naming apart, of which a file has one.
_START = 20
# Modules of a component that are alike and the stem that the file has them under, with their runs; their shape.
_Place = tuple[str, str, str, Shape | None]


def quick_places(components: Iterable[BaseComponent], file: LoraFile) -> tuple[str, ...] | None:
    """Name the component of each layer, given those of a UNet with the runs of their names.

    None where that takes a closer look: where not all layers fit for certain, each at a place of its own.
    """
    layers = file.layers
    stems = {layer.stem for layer in layers}
    if len(stems) < len(layers) or {layer.kind.parameter for layer in layers} != {"weight"}:
        return None
    found: dict[str, _Place] = {}
    for stem, place in _places(components, file, stems):
        names = expand({stem: place}) if "{" in stem else {stem: place}
        # Two names that are one say nothing for certain.
        if not found.keys().isdisjoint(names):
            return None
        found |= names
    stem_of: dict[tuple[str, str], str] = {}
    for layer in layers:
        if layer.stem not in found:
            return None
        component, module, stem, shape = found[layer.stem]
        if shape is None or component not in layer.components or not fits(layer.delta_shape, shape):
            return None
        # A module that the file has by two of its names may be in it twice.
        if stem_of.setdefault((component, module), stem) != stem:
            return None
    return tuple(found[layer.stem][0] for layer in layers)


def _places(components: Iterable[BaseComponent], file: LoraFile, stems: set[str]) -> Iterator[tuple[str, _Place]]:
    """Give the stems that the file may have, with their runs, and what they stand for."""
    starts = {stem[:_START] for stem in stems}
    layouts = file.formats
    for component in components:
        for layout in layouts:
            for stem, name in layout.write(component.name, component.names):
                start = stem[:_START]
                if (start in starts or "{" in start) and (stem in stems or "{" in stem):
                    (module,) = name.parts
                    shape = component.find(f"{module}.weight") or component.find(module)
                    yield stem, (component.name, module, stem, shape)
