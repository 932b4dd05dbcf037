"""Write converted layers into a file: as their layout wants it, read back and compared before anybody sees it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.new_layer import NewLayer
from lorakit_cli.core.new_tensor import NewTensor, header_of, write_tensors
from lorakit_cli.core.source import Source
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.errors import OutputError
from lorakit_cli.service.carried_metadata import carried, states_hashes, with_hashes
from lorakit_cli.service.conversion_check import require_same


def by_component(layers: Sequence[NewLayer]) -> dict[str, list[NewLayer]]:
    """Part layers by component."""
    components: dict[str, list[NewLayer]] = {}
    for layer in layers:
        components.setdefault(layer.component, []).append(layer)
    return components


def write_adapter(
    out: BinaryIO,
    path: Path,
    target: TargetLayout,
    base: BaseIndex,
    layers: Sequence[NewLayer],
    metadata: Mapping[str, str],
    source: Source,
) -> int:
    """Write a file of one layout with the settings that belong into it, and give its size.

    `path` is what messages call it, `metadata` that of the adapter that it is made from, `source` the bytes of that.
    Raises OutputError where it does not read back as what it was to become.
    """
    return write_checked(out, path, base, layers, header_metadata(target, base, layers, metadata), source)


def header_metadata(
    target: TargetLayout, base: BaseIndex, layers: Sequence[NewLayer], metadata: Mapping[str, str]
) -> dict[str, str]:
    """Give the metadata of a file of one layout: what is carried on, and the settings that the layout has there."""
    kept = carried(metadata)
    if not target.alpha:
        from lorakit_cli.core.peft_config import diffusers_metadata

        kept |= diffusers_metadata(by_component(layers), base.components)
    return kept


def write_checked(
    out: BinaryIO,
    path: Path,
    base: BaseIndex,
    layers: Sequence[NewLayer],
    metadata: Mapping[str, str],
    source: Source,
) -> int:
    """Write a file with this very metadata, but for hashes of itself, and give its size. Raises OutputError."""
    tensors = _distinct(layers)
    size = _write_hashed(out, tensors, metadata, source)
    out.flush()
    require_same(path, Path(out.name), base, layers, source)
    return size


def _write_hashed(out: BinaryIO, tensors: Sequence[NewTensor], metadata: Mapping[str, str], source: Source) -> int:
    """Write a file; hashes of it that its metadata states are reckoned meanwhile and put in their places."""
    if not states_hashes(metadata):
        return write_tensors(out, tensors, metadata, source)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(with_hashes, tensors, metadata, source)
        size = write_tensors(out, tensors, metadata, source)
        out.seek(0)
        out.write(header_of(tensors, hashed.result()))
    return size


def _distinct(layers: Sequence[NewLayer]) -> list[NewTensor]:
    """List the tensors of layers; those of one module share its alpha. Raises OutputError where two would be one."""
    tensors: dict[str, NewTensor] = {}
    for layer in layers:
        for tensor in layer.tensors:
            other = tensors.setdefault(tensor.name, tensor)
            if other != tensor:
                raise OutputError(f"two layers would both be called {tensor.name}; the layout cannot tell them apart")
    return list(tensors.values())
