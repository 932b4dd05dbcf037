"""A pipeline's folder whose weights are pickled, seen as one of safetensors: their tensors alone, copied on request."""

import itertools
import json
import shutil
from pathlib import Path

from lorakit_cli.core.new_tensor import NewTensor, write_tensors
from lorakit_cli.core.pipeline_folder import MODEL_INDEX
from lorakit_cli.core.private_folder import private_folder
from lorakit_cli.core.source import Source
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.core.weight_files import is_plain, weight_file
from lorakit_cli.errors import BaseModelError, OutputError
from lorakit_cli.service.unpickling import unpickled

# What diffusers and transformers call a file of weights, pickled and not.
_NAMES = {
    "diffusion_pytorch_model.bin": "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin": "model.safetensors",
}
_numbers = itertools.count()


def unpickled_base(folder: Path) -> Path:
    """Give the folder, or where weights of it are only pickled, one like it with safetensors, until the process ends.

    No code of the pickles is run. Raises BaseModelError for weights that are pickled in parts, LorakitError for what is
    no pickle of tensors.
    """
    pickled = {component: names for component in _components(folder) if (names := _pickled(component))}
    if not pickled:
        return folder
    try:
        view = private_folder() / f"base-{next(_numbers)}"
        view.mkdir()
        for entry in folder.iterdir():
            if entry not in pickled:
                _link(entry, view / entry.name)
        for component, (source, target) in pickled.items():
            inside = view / component.name
            inside.mkdir()
            for entry in component.iterdir():
                if entry.name != source:
                    _link(entry, inside / entry.name)
            _write(unpickled(component / source), inside / target)
    except OSError as error:
        raise OutputError(f"{folder} cannot be unpacked: {error.strerror}") from error
    return view


def _write(source: Path, target: Path) -> None:
    """Write a file of tensors again as one for torch, which transformers before 5 asks for."""
    tensors = read_header(source).tensors
    new = [NewTensor(name, info.dtype, info.shape, ((info.begin, info.end),)) for name, info in tensors.items()]
    with target.open("xb") as file, Source(source) as values:
        write_tensors(file, new, {"format": "pt"}, values)
    source.unlink()


def _components(folder: Path) -> list[Path]:
    """List the folders of components, none where that does not show: whoever indexes the folder says what is wrong."""
    try:
        entries = json.loads((folder / MODEL_INDEX).read_text(encoding="utf-8"))
        names = [name for name, entry in entries.items() if isinstance(entry, list) and is_plain(name)]
        return [folder / name for name in names if (folder / name).is_dir()]
    except (OSError, ValueError, AttributeError, RecursionError):
        return []


def _pickled(component: Path) -> tuple[str, str] | None:
    """Name the pickled file of weights of a component that has no other, and what it is as safetensors."""
    names = {entry.name for entry in component.iterdir() if entry.is_file()}
    if weight_file(names, None) or any(name.endswith(".safetensors") for name in names):
        return None
    found = next(((source, target) for source, target in _NAMES.items() if source in names), None)
    if found is None and any(name.endswith(".bin.index.json") for name in names):
        raise BaseModelError(
            f"{component} has pickled weights in parts, which are not read; loading the base with diffusers and saving "
            "it again converts it"
        )
    return found


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    except OSError:
        # Where links are not for everybody.
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
