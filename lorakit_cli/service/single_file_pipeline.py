"""Open a checkpoint in one file as a diffusers pipeline, configurations from a folder, nothing from the network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor, nn

from lorakit_cli.core.base_index import BaseComponent, BaseIndex
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.errors import BaseModelError
from lorakit_cli.service.base_configs import VAE, VAE_PREFIXES, BaseConfigs, scheduler_marks
from lorakit_cli.service.pipeline import told_by_diffusers
from lorakit_cli.service.tensors import TensorReader

# OpenCLIP's models pad with the first of all tokens.
_PADDING = {"tokenizer_2": "!"}


def open_single_file(
    base: BaseIndex, configs: BaseConfigs, device: torch.device, dtype: torch.dtype, **parts: Any
) -> Any:
    """Load a single file in a dtype. `parts` are components that take the place of its own, by their names.

    Raises BaseModelError for a file that the configurations do not fit, or with diffusers' reason.
    """
    loaded = dict.fromkeys(configs.left_out) | parts
    with told_by_diffusers(base):
        loaded |= _from_file(base, configs, dtype, loaded)
        if not configs.tokenizers:
            # Whoever opens a folder of its own needs no merges.
            from lorakit_cli.service.clip_tokenizer import clip_tokenizer

            names = [name for name, (_, kind) in configs.index.items() if kind == "CLIPTokenizer"]
            loaded |= {name: clip_tokenizer(_PADDING.get(name)) for name in names}
        kind = getattr(diffusers, base.class_name)
        pipeline = kind.from_pretrained(
            str(configs.folder), dtype=dtype, use_safetensors=True, local_files_only=True, **loaded
        )
        if marks := scheduler_marks(base):
            pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **marks)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _from_file(
    base: BaseIndex, configs: BaseConfigs, dtype: torch.dtype, others: Mapping[str, Any]
) -> dict[str, nn.Module]:
    """Make the components that are in a file of its tensors, but for `others`."""
    assert isinstance(base.path, Path)
    loaded: dict[str, nn.Module] = {}
    with TensorReader(torch.device("cpu")) as reader:
        for name, component in base.components.items():
            if name in others:
                continue
            library, class_name = configs.index[name]
            # Those of transformers may keep some of them in another precision; the others are held once only.
            first = dtype if library == "diffusers" else None
            values = {
                component.live_name(parameter): _value(reader, component, parameter).to(first)
                for parameter in component.places or {}
            }
            try:
                loaded[name] = _made(library, class_name, values, configs.folder, name, dtype)
            except Exception as error:
                # Whatever was raised, it is for the reason that they do not fit, if they do not.
                if difference := _difference(_empty(library, class_name, configs.folder, name), values):
                    raise BaseModelError(
                        f"{base.path} does not fit the configurations in {configs.folder}: its {name} {difference}"
                    ) from error
                raise
        if VAE not in others and VAE not in configs.lacking:
            names = [name for name in read_header(base.path).tensors if name.startswith(VAE_PREFIXES)]
            values = {name: reader.read(base.path, name).to(dtype) for name in names}
            loaded[VAE] = _made(*configs.index[VAE], values, configs.folder, VAE, dtype)
    return loaded


def _made(
    library: str, class_name: str, values: dict[str, Tensor], folder: Path, name: str, dtype: torch.dtype
) -> nn.Module:
    """Make a component of its values by their names in the module, an autoencoder's by those in the file."""
    module: nn.Module
    if library == "diffusers":
        options = {"config": str(folder), "subfolder": name, "local_files_only": True}
        module = getattr(diffusers, class_name).from_single_file(values, dtype=dtype, **options)
        missing = [text for text, value in module.state_dict().items() if value.is_meta]
    else:
        kind = getattr(transformers, class_name)
        config = kind.config_class.from_pretrained(str(folder / name), local_files_only=True)
        module, report = kind.from_pretrained(
            None, config=config, state_dict=values, dtype=dtype, output_loading_info=True
        )
        # transformers makes up what is missing.
        missing = [*report["missing_keys"], *report["unexpected_keys"]]
    if missing:
        raise ValueError(f"{name} is incomplete: {min(missing)} is missing")
    return module


def _empty(library: str, class_name: str, folder: Path, name: str) -> nn.Module:
    """Build a component as it is configured, without values."""
    kind = getattr(diffusers if library == "diffusers" else transformers, class_name)
    module: nn.Module
    with torch.device("meta"):
        if library == "diffusers":
            module = kind.from_config(kind.load_config(str(folder), subfolder=name, local_files_only=True))
        else:
            module = kind(kind.config_class.from_pretrained(str(folder / name), local_files_only=True))
    return module


def _difference(module: nn.Module, values: Mapping[str, Tensor]) -> str | None:
    """Say in what a module and values differ, None where they fit."""
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for name, value in values.items():
        if name not in shapes:
            return f"has {name}, which they have not"
        if shapes[name] != tuple(value.shape):
            return f"has {name} of the shape {list(value.shape)}, and theirs is {list(shapes[name])}"
    missing = next((name for name in shapes if name not in values), None)
    return f"has no {missing}" if missing else None


def _value(reader: TensorReader, component: BaseComponent, parameter: str) -> Tensor:
    """Read a parameter from its place."""
    place = component.place(parameter)
    assert place is not None
    value = reader.read(component.tensors[place.tensor].local_file, place.tensor, place.rows)
    if place.swapped:
        value = torch.cat(value.chunk(2)[::-1])
    return value.T.contiguous() if place.transposed else value
