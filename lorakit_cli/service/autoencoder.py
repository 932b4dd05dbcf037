"""An autoencoder that takes the place of the base's: a folder that diffusers wrote, or one file of weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.pipeline_folder import json_object
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import BaseModelError
from lorakit_cli.service.base_configs import BaseConfigs
from lorakit_cli.service.memory import is_out_of_memory

_CONFIG = "config.json"


def open_vae(text: str, base: BaseIndex, dtype: torch.dtype, configs: BaseConfigs | None = None) -> Any:
    """Load an autoencoder for a base, from a folder, a pipeline's folder or a .safetensors file.

    A file is taken for one of the base's own kind. `configs` has the configuration of a base that is a file. Raises
    BaseModelError for what is no autoencoder, or one whose latents are not the base's.
    """
    path = user_path(text)
    own = _own(base, configs)
    if path.is_dir():
        folder = path if (path / _CONFIG).is_file() else path / "vae"
        config = _config(folder, text)
        vae = _loaded(_class(config, text), "from_pretrained", folder, text, dtype, variant=_variant(folder))
    elif path.suffix.lower() == ".safetensors" and path.is_file():
        if own is None:
            raise BaseModelError(f"--vae {text}: a file needs the configuration of the base's own; give a folder")
        options = {"config": str(configs.folder if configs else base.path), "subfolder": "vae"}
        vae = _loaded(_class(own, text), "from_single_file", path, text, dtype, **options)
    else:
        raise BaseModelError(f"--vae {text} is neither a folder nor a .safetensors file")
    wanted = own.get("latent_channels") if own else None
    given = vae.config.get("latent_channels")
    if wanted is not None and given != wanted:
        raise BaseModelError(f"--vae {text} has latents of {given} channels, those of this base have {wanted}")
    return vae


def _own(base: BaseIndex, configs: BaseConfigs | None) -> Mapping[str, Any] | None:
    """Give the configuration of the base's own autoencoder, with its class."""
    if configs:
        kind = configs.index.get("vae")
        return {**configs.config("vae"), "_class_name": kind[1]} if kind else None
    own = base.components.get("vae")
    return {**own.config, "_class_name": own.class_name} if own and isinstance(base.path, Path) else None


def _config(folder: Path, text: str) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        raise BaseModelError(f"--vae {text} holds no {_CONFIG}; give the folder of an autoencoder or of a pipeline")
    return json_object(path, path)


def _class(config: Mapping[str, Any], text: str) -> Any:
    name = str(config.get("_class_name"))
    kind = getattr(diffusers, name, None)
    if kind is None or not hasattr(kind, "decode"):
        raise BaseModelError(f"--vae {text} is no autoencoder that diffusers knows; its class is {name}")
    return kind


def _variant(folder: Path) -> str | None:
    """Name the variant of weights that have no plain form."""
    if (folder / "diffusion_pytorch_model.safetensors").is_file():
        return None
    found = sorted(path.name.split(".")[1] for path in folder.glob("diffusion_pytorch_model.*.safetensors"))
    return found[0] if found else None


def _loaded(kind: Any, way: str, path: Path, text: str, dtype: torch.dtype, **options: Any) -> Any:
    quiet = {"use_safetensors": True} if way == "from_pretrained" else {}
    try:
        return getattr(kind, way)(str(path), dtype=dtype, local_files_only=True, **quiet, **options)
    except Exception as error:
        # As with a base, whatever diffusers stumbles over is the file's.
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(f"--vae {text}: diffusers cannot load it: {reason}") from error
