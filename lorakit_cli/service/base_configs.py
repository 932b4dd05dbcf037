"""Where the configurations and tokenizers of a single-file base come from, which the file does not hold."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.pipeline_folder import MODEL_INDEX, json_object
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import BaseModelError, OptionError, UnsupportedError
from lorakit_cli.sources.hub_snapshot import hub_snapshot
from lorakit_cli.sources.local import EMBEDDED_FOLDER

VAE = "vae"
VAE_PREFIXES = ("first_stage_model.", "vae.")
"""What the names of an autoencoder's tensors begin with in a single file, which alone has no place in its index."""

_SHIPPED = Path(__file__).parent.parent / "architectures" / "pipelines"
# Pipeline class and width of the text features -> a folder that is shipped.
_FOLDERS = {
    ("StableDiffusionPipeline", 96): EMBEDDED_FOLDER,
    ("StableDiffusionPipeline", 768): _SHIPPED / "sd1",
    ("StableDiffusionPipeline", 1024): _SHIPPED / "sd2",
    ("StableDiffusionXLPipeline", 2048): _SHIPPED / "sdxl",
}
_FLUX = ("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell")
# By these tensors, which hold nothing, an SDXL says that it predicts velocity, and that its noise ends at all.
_VELOCITY, _FULL_NOISE = "v_pred", "ztsnr"


@dataclass(frozen=True, slots=True)
class BaseConfigs:
    """A pipeline's folder, and what is taken from it beside configurations.

    `lacking` are the components whose weights the file has not and the folder has; `left_out` those that nobody has and
    that can be missing. `tokenizers` is false where the folder has none and CLIP's is meant.
    """

    folder: Path
    lacking: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    tokenizers: bool = True

    def config(self, component: str) -> dict[str, Any]:
        """Read the configuration of a component. Raises BaseModelError."""
        path = self.folder / component / "config.json"
        return json_object(path, path)

    @property
    def index(self) -> dict[str, tuple[str, str]]:
        """The library and the class of each component. Raises BaseModelError."""
        path = self.folder / MODEL_INDEX
        entries = json_object(path, path).items()
        return {name: (entry[0], entry[1]) for name, entry in entries if isinstance(entry, list) and all(entry)}


def is_single_file(base: BaseIndex) -> bool:
    """Tell a checkpoint in one file of this machine from a folder."""
    return isinstance(base.path, Path) and base.path.is_file()


def find_configs(base: BaseIndex, asked: str | None, replaced: Collection[str] = ()) -> BaseConfigs:
    """Find what a single file lacks: in the folder asked for, shipped with lorakit, or in the cache of the Hub.

    `replaced` are components that come from elsewhere. Raises BaseModelError for a folder that is no such pipeline or
    has not what the file lacks, UnsupportedError where there is none, OptionError where the base is a folder.
    """
    if not is_single_file(base):
        raise OptionError(f"--config goes with a base that is a single file, and {base.label} has its own")
    if asked is not None:
        return _complete(base, _given(base, asked), f"--config {asked}", replaced)
    unet = base.components.get("unet")
    width = unet.config.get("cross_attention_dim") if unet else None
    folder = _FOLDERS.get((base.class_name, width or 0))
    if folder is None and base.class_name == "FluxPipeline":
        folder = _cached(base)
    if folder is None:
        raise UnsupportedError(
            f"{base.path} is for a {base.class_name}, whose configurations and tokenizers lorakit does not bring; "
            "--config FOLDER names a pipeline like it to take them from, and --dry-run works without"
        )
    return _complete(base, folder, None, replaced)


def remark_on(base: BaseIndex, settings: Settings) -> str | None:
    """Say what is assumed of a single file that no file says. Only where no folder was asked for."""
    unet = base.components.get("unet")
    if not unet or _FOLDERS.get((base.class_name, unet.config.get("cross_attention_dim") or 0)) != _SHIPPED / "sd2":
        return None
    if "prediction_type" in settings.scheduler_options:
        return None
    return (
        f"{base.path.name} does not say what it predicts; velocity is assumed, as in SD2.1 of 768 pixels. If pictures "
        "are noise, add --scheduler-option prediction_type=epsilon"
    )


def scheduler_marks(base: BaseIndex) -> dict[str, Any]:
    """Give the options of its scheduler that a single file of SDXL carries marks of. Raises CorruptFileError."""
    assert isinstance(base.path, Path)
    names = read_header(base.path).tensors
    if _VELOCITY not in names:
        return {}
    return {"prediction_type": "v_prediction"} | ({"rescale_betas_zero_snr": True} if _FULL_NOISE in names else {})


def has_vae(base: BaseIndex) -> bool:
    """Tell whether a single file holds an autoencoder. Raises CorruptFileError."""
    assert isinstance(base.path, Path)
    return any(name.startswith(VAE_PREFIXES) for name in read_header(base.path).tensors)


def _given(base: BaseIndex, asked: str) -> Path:
    folder = user_path(asked)
    if not (folder / MODEL_INDEX).is_file():
        raise BaseModelError(f"--config {asked} is no folder of a pipeline: it has no {MODEL_INDEX}")
    index = BaseConfigs(folder).index
    own = json_object(folder / MODEL_INDEX, folder / MODEL_INDEX).get("_class_name")
    if own != base.class_name:
        raise BaseModelError(
            f"--config {asked} is for another family: it is a {own}, and {base.path} is for a {base.class_name}"
        )
    for name, component in base.components.items():
        named = index.get(name, (None, None))[1]
        if named != component.class_name:
            there = f"has {named} as {name}" if named else f"has no {name}"
            raise BaseModelError(f"--config {asked} is for another family: it {there}, not {component.class_name}")
    return folder


def _complete(base: BaseIndex, folder: Path, asked: str | None, replaced: Collection[str]) -> BaseConfigs:
    """Say who has what. Raises BaseModelError where something is missing."""
    own = {*base.components, *replaced, *((VAE,) if has_vae(base) else ())}
    tokenizers = folder.parent != _SHIPPED
    lacking, left_out, missing = list[str](), list[str](), list[str]()
    for name in BaseConfigs(folder).index:
        inside = folder / name
        has_weights = any(inside.glob("*.safetensors"))
        if name in own:
            if name not in replaced and not (inside / "config.json").is_file():
                raise BaseModelError(f"{asked or folder} is incomplete: {name}/config.json is missing")
        elif name == "safety_checker" and not has_weights:
            left_out.append(name)
        elif has_weights:
            lacking.append(name)
        elif (inside / "config.json").is_file():
            missing.append(name)
        elif not inside.is_dir() and (tokenizers or not name.startswith("tokenizer")):
            # diffusers makes up an empty tokenizer for a folder that is not there.
            raise BaseModelError(f"{asked or folder} is incomplete: its {name} is missing")
    if missing:
        what = " and ".join(missing)
        there = f", and {asked} has no weights of it either" if asked else ""
        vae = "; --vae FOLDER brings one" if missing == [VAE] else ""
        whole = f"--config FOLDER names a pipeline that has {'it' if len(missing) == 1 else 'them'}"
        raise BaseModelError(f"{base.path} holds no {what}{there}{vae}; {whole}")
    return BaseConfigs(folder, tuple(lacking), tuple(left_out), tokenizers)


def _cached(base: BaseIndex) -> Path | None:
    """Find FLUX.1's own pipeline; whether it is told the guidance tells dev from schnell."""
    guided = base.components["transformer"].config.get("guidance_embeds")
    return hub_snapshot(_FLUX[0] if guided else _FLUX[1])
