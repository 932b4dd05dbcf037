"""Bases as an index alone, made of the shapes of published models."""

from collections.abc import Iterable
from pathlib import Path

from lorakit_cli.architectures import ARCHITECTURES
from lorakit_cli.core.architecture import expand
from lorakit_cli.core.base_index import BaseComponent, BaseIndex, BaseTensor
from lorakit_cli.core.tensor_info import TensorInfo

CLASSES = {"FLUX.1": "FluxTransformer2DModel", "Wan": "WanTransformer3DModel"}


def component(name: str, parameters: Iterable[str], class_name: str = "") -> BaseComponent:
    """Make a component of these parameters."""
    tensor = BaseTensor(TensorInfo("F16", (1,), 0, 2), Path("x"))
    return BaseComponent(name, class_name, {}, dict.fromkeys(parameters, tensor))


def index(*components: BaseComponent) -> BaseIndex:
    """Make a base of these components."""
    return BaseIndex(Path("base"), "Pipeline", {own.name: own for own in components})


def published(size: str) -> BaseIndex:
    """Make the base of a published size."""
    known = next(known for known in ARCHITECTURES if size in known.parameters())
    tables = known.parameters()[size]
    parts = {name: CLASSES.get(known.name, "") if name == known.denoiser else "CLIPTextModel" for name in tables}
    return index(*(component(name, expand(table), parts[name]) for name, table in tables.items()))
