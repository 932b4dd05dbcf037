"""The embedded model: a Stable Diffusion of the smallest kind."""

from collections.abc import Mapping

from lorakit_cli.architectures.unet import MARKS, UNCHANGED, native
from lorakit_cli.core.architecture import Architecture, Shape
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.demo import BASE

NAME = "lorakit demo"


def _parameters() -> Mapping[str, Mapping[str, Mapping[str, Shape]]]:
    """Read the sizes off the model itself."""
    files = {"unet": "diffusion_pytorch_model", "text_encoder": "model"}
    return {
        NAME: {
            name: {key: info.shape for key, info in read_header(BASE / name / f"{stem}.safetensors").tensors.items()}
            for name, stem in files.items()
        }
    }


DEMO = Architecture(
    name=NAME,
    denoiser="unet",
    classes=frozenset(),
    marks=MARKS,
    native=native,
    parameters=_parameters,
    variants={},
    published=False,
    unchanged=UNCHANGED,
)
