"""The files of weights that a base is written to again: laid out as they were, in another dtype, or in other shards."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lorakit_cli.core.base_index import BaseComponent, BaseIndex, BaseTensor
from lorakit_cli.core.match import Target
from lorakit_cli.core.new_tensor import NewTensor, header_of, places
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.core.tensor_info import BIT_SIZES, FLOATS, TensorInfo
from lorakit_cli.core.weights_file import Piece, WeightsFile
from lorakit_cli.errors import UnsupportedError

# What is in a checkpoint beside the components that adapters change: its autoencoder, and what training left.
_REST = ""
_METADATA = {"format": "pt"}


def stored_tensors(base: BaseIndex) -> dict[Target, BaseTensor]:
    """Give every tensor of a base, of a single file also those of no component, under a component without name."""
    found = {
        Target(component.name, name): tensor
        for component in base.components.values()
        for name, tensor in component.tensors.items()
    }
    if isinstance(base.path, Path) and base.path.is_file():
        known = {target.tensor for target in found}
        for name, info in read_header(base.path).tensors.items():
            if name not in known:
                found[Target(_REST, name)] = BaseTensor(info, base.path)
    return found


def files_of(
    base: BaseIndex, stored: Mapping[Target, BaseTensor], *, dtype: str | None = None, most: int | None = None
) -> list[WeightsFile]:
    """Lay a folder out anew: its own files, with `dtype` all floating numbers in that, with `most` no larger than that.

    Files of a variant lose its name, so that they are found without being asked for. Raises UnsupportedError for
    floating numbers that no other dtype stands for.
    """
    if dtype is None and most is None:
        return [_as_it_was(base, path, own) for path, own in by_file(stored).items()]
    return [file for component in base.components.values() for file in _in_shards(base, component, stored, dtype, most)]


def shard_index(files: Iterable[WeightsFile]) -> dict[str, bytes]:
    """Give the index of each component whose weights are not in one file of the usual name, by its own name."""
    shards: dict[str, list[WeightsFile]] = {}
    for file in files:
        folder, _, _ = file.name.rpartition("/")
        shards.setdefault(folder, []).append(file)
    return {
        f"{folder}/{_stem(own[0].name.rpartition('/')[2])}.safetensors.index.json": _index(own)
        for folder, own in shards.items()
        if len(own) > 1 or own[0].name.rpartition("/")[2] != f"{_stem(own[0].name.rpartition('/')[2])}.safetensors"
    }


def by_file(stored: Mapping[Target, BaseTensor]) -> dict[Path, dict[Target, BaseTensor]]:
    """Part tensors by the file that each is in. Raises BaseModelError for one on the Hub."""
    files: dict[Path, dict[Target, BaseTensor]] = {}
    for target, tensor in stored.items():
        files.setdefault(tensor.local_file, {})[target] = tensor
    return files


def piece_size(piece: Piece, info: TensorInfo) -> int:
    """Give how many bytes a piece takes in its file."""
    return info.end - info.begin if piece.dtype == info.dtype else math.prod(info.shape) * BIT_SIZES[piece.dtype] // 8


def _as_it_was(base: BaseIndex, path: Path, stored: Mapping[Target, BaseTensor]) -> WeightsFile:
    with path.open("rb") as file:
        length = file.read(8)
        header = length + file.read(int.from_bytes(length, "little"))
        size = file.seek(0, 2)
    pieces = (Piece(target, tensor.info.dtype, tensor.info.begin) for target, tensor in stored.items())
    name = path.name if path == base.path else path.relative_to(base.path).as_posix()
    if base.variant:
        name = name.replace(f".{base.variant}", "")
    return WeightsFile(name, header, tuple(sorted(pieces, key=lambda piece: piece.begin)), size, path)


def _in_shards(
    base: BaseIndex,
    component: BaseComponent,
    stored: Mapping[Target, BaseTensor],
    dtype: str | None,
    most: int | None,
) -> Iterator[WeightsFile]:
    shards: list[dict[Target, BaseTensor]] = [{}]
    filled = 0
    for name in component.tensors:
        target = Target(component.name, name)
        size = piece_size(_piece(target, stored[target], dtype, 0), stored[target].info)
        if most and shards[-1] and filled + size > most:
            shards.append({})
            filled = 0
        shards[-1][target] = stored[target]
        filled += size
    path = next(iter(component.tensors.values())).local_file
    stem = _stem(path.name.replace(f".{base.variant}", "") if base.variant else path.name)
    metadata = dict(read_header(path).metadata) or _METADATA
    for number, own in enumerate(shards, 1):
        part = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        yield laid_out(f"{component.name}/{stem}{part}.safetensors", own, dtype, metadata)


def laid_out(
    name: str, stored: Mapping[Target, BaseTensor], dtype: str | None, metadata: Mapping[str, str]
) -> WeightsFile:
    """Lay tensors out one after the other, in the order of the safetensors library."""
    new: list[NewTensor] = []
    for target, tensor in stored.items():
        piece = _piece(target, tensor, dtype, 0)
        run = (0, piece_size(piece, tensor.info))
        new.append(NewTensor(target.tensor, piece.dtype, tensor.info.shape, (run,)))
    header = header_of(new, metadata)
    by_name = {target.tensor: target for target in stored}
    where = places(new)
    pieces = tuple(Piece(by_name[tensor], info.dtype, len(header) + info.begin) for tensor, info in where.items())
    return WeightsFile(name, header, pieces, len(header) + sum(tensor.size for tensor in new))


def _piece(target: Target, tensor: BaseTensor, dtype: str | None, begin: int) -> Piece:
    own = tensor.info.dtype
    if dtype is None or own == dtype or (own not in FLOATS and not own.startswith("F")):
        return Piece(target, own, begin)
    if own not in FLOATS:
        raise UnsupportedError(f"{target.component}.{target.tensor} is {own}, quantized, and cannot become {dtype}")
    return Piece(target, dtype, begin)


def _stem(name: str) -> str:
    """Give the name of a file of weights without its number among the shards."""
    bare = name.removesuffix(".safetensors")
    head, dash, count = bare.rpartition("-of-")
    return head.rpartition("-")[0] if dash and count.isdecimal() else bare


def _index(files: Iterable[WeightsFile]) -> bytes:
    names = {piece.target.tensor: file.name.rpartition("/")[2] for file in files for piece in file.pieces}
    size = sum(file.size - len(file.header) for file in files)
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(names.items()))}
    return (json.dumps(index, indent=2) + "\n").encode()
