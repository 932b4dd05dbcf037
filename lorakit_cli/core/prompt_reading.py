"""Whether prompts can be read with weights, known from names alone."""

from collections.abc import Iterable
from importlib.util import find_spec

from lorakit_cli.core.prompt_weights import is_weighted, weighted_parts
from lorakit_cli.errors import UnsupportedError

READER = "compel"
# By how the names of pipelines begin; what FLUX begins with others begin with too.
FAMILIES = ("StableDiffusionXL", "StableDiffusion", "Flux")
_OTHERS = ("StableDiffusion3", "Flux2", "FluxControl", "StableDiffusionUpscale", "StableDiffusionLatentUpscale")
_LITERALLY = "--literal-prompt takes it as it stands"


def has_reader() -> bool:
    """Tell whether the library that reads weights is installed."""
    return find_spec(READER) is not None


def family_of(class_name: str) -> str | None:
    """Give the family of a pipeline whose prompts can have weights, None for another one."""
    if class_name.startswith(_OTHERS):
        return None
    return next((family for family in FAMILIES if class_name.startswith(family)), None)


def require_readable(prompts: Iterable[str], class_name: str) -> None:
    """Raise UnsupportedError for weights that cannot be read here, OptionError for those that are none."""
    for prompt in filter(is_weighted, prompts):
        weighted_parts(prompt)
        if family_of(class_name) is None:
            raise UnsupportedError(
                f"the prompt has weights, such as (word:1.3), which are known for Stable Diffusion 1, 2 and XL and for "
                f"FLUX.1, not for {class_name}; {_LITERALLY}"
            )
        if not has_reader():
            raise UnsupportedError(
                f"the prompt has weights, such as (word:1.3), and what reads them is not installed: pip install "
                f"'lorakit[{READER}]'; {_LITERALLY}"
            )
