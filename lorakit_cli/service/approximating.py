"""Approximate what is no LoRA by one: the closest of a rank, by truncated singular value decomposition."""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.delta import layer_delta
from lorakit_cli.core.held import unheld
from lorakit_cli.core.kind import ALPHA
from lorakit_cli.core.lora_file import LoraFile, read_lora_file
from lorakit_cli.core.match import Match
from lorakit_cli.core.private_folder import private_folder
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.errors import OutputError, UnsupportedError
from lorakit_cli.service.convert_report import Approximated
from lorakit_cli.service.dense_rank import left_out, truncated_svd
from lorakit_cli.service.dtypes import TORCH_DTYPES
from lorakit_cli.service.reading import READING
from lorakit_cli.service.tensors import TensorReader

_FLAT = 2


def approximate(
    file: LoraFile, base: BaseIndex, matches: Sequence[Match], target: TargetLayout, rank: int
) -> tuple[LoraFile, tuple[Approximated, ...]]:
    """Give the adapter with every layer that the layout cannot hold as a LoRA of at most that rank.

    Layers that change one parameter together are approximated together. Raises UnsupportedError for what is no matrix
    (norms, biases), or needs the values of a base that has none here.
    """
    too_much = {id(match) for match, _ in unheld(base, matches, target)}
    modules: dict[tuple[str, str], list[Match]] = {}
    for match in matches:
        modules.setdefault((match.layer.stem, match.layer.kind.parameter), []).append(match)
    tensors: dict[str, Tensor] = {}
    done: list[Approximated] = []
    with TensorReader(torch.device("cpu")) as reader:
        for (stem, _), own in modules.items():
            alpha = f"{stem}.{ALPHA}"
            if not any(id(match) in too_much for match in own):
                tensors |= {key: reader.read(file.data, key) for match in own for key in match.layer.keys.values()}
                if alpha in file.tensors:
                    tensors.setdefault(alpha, reader.read(file.data, alpha))
                continue
            delta = reduce(torch.add, (_delta(reader, file, base, match) for match in own))
            dtypes = (TORCH_DTYPES[reader.dtype(file.data, key)] for key in own[0].layer.keys.values())
            dtype = next((dtype for dtype in dtypes if dtype.is_floating_point), torch.float32)
            up, down, error = _factors(stem, delta, rank, dtype)
            tensors |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down}
            tensors[alpha] = torch.tensor(float(down.shape[0]))
            kinds = " + ".join(match.layer.kind.name for match in own)
            done.append(Approximated(stem, kinds, down.shape[0], error))
    data = private_folder() / "approximated.safetensors"
    try:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, data, dict(file.metadata))
    except SafetensorError as error:
        raise OutputError(f"cannot write {data}: {error}") from error
    # As it was given: from the file its order is another each time.
    return read_lora_file(file.path, READING, data)._replace(metadata=file.metadata), tuple(done)


def _delta(reader: TensorReader, file: LoraFile, base: BaseIndex, match: Match) -> Tensor:
    """Compute a layer's delta in fp32, in the shape of what it changes."""
    layer = match.layer
    shapes = [base.components[part.target.component].shape(part.parameter) for part in match.parts]
    if len(shapes[0]) < _FLAT:
        raise UnsupportedError(f"{layer.stem} is {layer.kind.name} on a vector, which no LoRA can stand for")
    whole = None
    if layer.kind.needs_base:
        if not all(base.components[part.target.component].tensors[part.target.tensor].info.end for part in match.parts):
            raise UnsupportedError(
                f"{layer.stem} is {layer.kind.name}, whose change depends on the base; give the base with --base"
            )
        whole = torch.cat([reader.part(base, part).float() for part in match.parts])
    delta = layer_delta(layer, reader.layer(file.data, layer), whole, torch.float32)
    return delta.reshape(match.parts[-1].stop, *shapes[0][1:])


def _factors(stem: str, delta: Tensor, rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    """Give up, down and the relative error of the closest product of that rank.

    Both are rounded to `dtype`, and the error is that of what they come to then.
    """
    matrix = delta.flatten(1)
    finite = bool(torch.isfinite(matrix).all())
    if finite:
        found = truncated_svd(matrix, RankRule(rank=min(rank, *matrix.shape)))
        up, down = (factor.to(dtype) for factor in found.balanced())
        if not found.total:
            # No file holds a LoRA of rank 0.
            up, down = up.new_zeros(matrix.shape[0], 1), down.new_zeros(1, matrix.shape[1])
        error = left_out(matrix, up, down) / math.sqrt(found.total) if found.total else 0.0
        finite = math.isfinite(error)
    if not finite:
        raise UnsupportedError(f"the change of {stem} is not finite; `lorakit inspect --scan` says where")
    ones = [1] * (delta.ndim - _FLAT)
    return up.reshape(*up.shape, *ones), down.reshape(-1, *delta.shape[1:]), error
