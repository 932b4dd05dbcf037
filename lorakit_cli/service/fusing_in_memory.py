"""The other way to bake: load the pipeline, add the plan to its weights in memory, and let diffusers save it."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from lorakit_cli.core.base_index import BaseComponent, BaseIndex, BaseTensor
from lorakit_cli.core.match import Target
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.core.tensor_info import SHORT_NAMES
from lorakit_cli.core.weights_file import Piece, WeightsFile
from lorakit_cli.errors import OutputError, UnsupportedError
from lorakit_cli.service.applying import FusedWeights
from lorakit_cli.service.devices import arithmetic, choose_device
from lorakit_cli.service.dtypes import TORCH_DTYPES
from lorakit_cli.service.fuse_request import PreparedFuse
from lorakit_cli.service.memory import enough_memory
from lorakit_cli.service.pipeline import open_pipeline
from lorakit_cli.service.quiet import hushed


def fuse_in_memory(prepared: PreparedFuse, folder: Path) -> dict[str, str]:
    """Write a fused pipeline into a folder; give what decides the bits of its sums.

    Raises BaseModelError for what diffusers cannot load, LoraFileError where a sum is not finite, UnsupportedError
    for an output that is no folder.
    """
    request, plan = prepared.request, prepared.plan
    if prepared.as_file:
        raise UnsupportedError("--engine pipeline writes a folder; --engine stream writes single files")
    device = choose_device(request.device)
    dtypes = {name: _dtype(component, request.dtype) for name, component in plan.base.components.items()}
    with hushed(), enough_memory():
        pipeline = open_pipeline(plan.base, device, dtypes)
        FusedWeights(pipeline, plan.base).apply(plan)
        size = {} if prepared.most is None else {"max_shard_size": prepared.most}
        pipeline.save_pretrained(str(folder), safe_serialization=True, **size)
    return arithmetic(device)


def written_files(base: BaseIndex, stored: Mapping[Target, BaseTensor], folder: Path) -> tuple[WeightsFile, ...]:
    """Describe the files of weights in a folder that diffusers wrote: which base tensor each of theirs is.

    Raises OutputError where one is none of the base's, or one of the base's is missing.
    """
    files: list[WeightsFile] = []
    missing = set(stored)
    for component in base.components.values():
        for path in sorted((folder / component.name).glob("*.safetensors")):
            header = read_header(path)
            pieces: list[Piece] = []
            for name, info in header.tensors.items():
                spellings = (Target(component.name, text) for text in component.spellings(name))
                target = next((target for target in spellings if target in stored), None)
                if target is None:
                    raise OutputError(f"the output has {component.name}.{name}, which the base has not")
                wanted = stored[target].info.shape
                if info.shape != wanted:
                    said = f"{list(info.shape)}, in the base {list(wanted)}"
                    raise OutputError(f"{component.name}.{name} of the output has the shape {said}")
                if target not in missing:
                    raise OutputError(f"the output has {component.name}.{name} twice, also in {path.name}")
                pieces.append(Piece(target, info.dtype, info.begin))
                missing.discard(target)
            with path.open("rb") as file:
                start = min((piece.begin for piece in pieces), default=header.size)
                text = file.read(start)
            ordered = tuple(sorted(pieces, key=lambda piece: piece.begin))
            files.append(WeightsFile(path.relative_to(folder).as_posix(), text, ordered, header.size))
    if missing:
        first = min(missing)
        raise OutputError(f"the output has no {first.component}.{first.tensor}, which the base has")
    return tuple(files)


def _dtype(component: BaseComponent, asked: str | None) -> torch.dtype:
    """Give the dtype asked for, else the one that most of a component's floating values are stored in."""
    if asked:
        return TORCH_DTYPES[SHORT_NAMES[asked]]
    sizes: Counter[str] = Counter()
    for tensor in component.tensors.values():
        if TORCH_DTYPES[tensor.info.dtype].is_floating_point:
            sizes[tensor.info.dtype] += tensor.info.end - tensor.info.begin
    return TORCH_DTYPES[sizes.most_common(1)[0][0]] if sizes else torch.float32
