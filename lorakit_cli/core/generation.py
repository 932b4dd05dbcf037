"""What a base says about making pictures with it: sizes, steps and guidance. Read from configs, without torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.numbers import finite
from lorakit_cli.core.recipe import RECIPE_FILE
from lorakit_cli.errors import BaseModelError, OptionError

# diffusers' image pipelines refuse other multiples, whatever the autoencoder could do.
_PIPELINE_MULTIPLE = 8
# Beyond any model and any memory; past it sizes overflow inside torch.
_LARGEST_SIDE = 32768


@dataclass(frozen=True, slots=True)
class Settings:
    """How pictures are made; None leaves a value to the pipeline."""

    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None

    def filled_from(self, other: "Settings") -> "Settings":
        """Take what is None here from other settings."""
        return replace(
            self,
            width=other.width if self.width is None else self.width,
            height=other.height if self.height is None else self.height,
            steps=other.steps if self.steps is None else self.steps,
            guidance=other.guidance if self.guidance is None else self.guidance,
        )


def defaults_of(base: BaseIndex) -> Settings:
    """Read the size a UNet was trained at, and what the base's own lorakit.json says under `generate`."""
    unet = base.components.get("unet")
    size = unet.config.get("sample_size") if unet else None
    side = size * autoencoder_factor(base) if isinstance(size, int) else None
    return _said(base).filled_from(Settings(side, side))


def autoencoder_factor(base: BaseIndex) -> int:
    """Give how many pixels one latent stands for along a side."""
    vae = base.components.get("vae")
    channels = vae.config.get("block_out_channels") if vae else None
    return int(2 ** (len(channels) - 1)) if isinstance(channels, list) and channels else _PIPELINE_MULTIPLE


def check(settings: Settings, base: BaseIndex) -> None:
    """Raise OptionError for settings that cannot work with this base."""
    multiple = math.lcm(autoencoder_factor(base), _PIPELINE_MULTIPLE)
    for name, value in (("--width", settings.width), ("--height", settings.height)):
        if value is not None and (value < multiple or value % multiple):
            below = max(value // multiple, 1) * multiple
            raise OptionError(
                f"{name} {value}: this base makes pictures in multiples of {multiple} pixels; "
                f"the nearest are {below} and {below + multiple}"
            )
        if value is not None and value > _LARGEST_SIDE:
            raise OptionError(f"{name} {value}: {_LARGEST_SIDE} pixels are the most")
    if settings.steps is not None and settings.steps < 1:
        raise OptionError(f"--steps {settings.steps}: at least one step is needed")
    if settings.guidance is not None and not math.isfinite(settings.guidance):
        raise OptionError(f"--guidance {settings.guidance} is not a finite number")


def said_by(base: BaseIndex) -> dict[str, Any]:
    """Give what a base's own lorakit.json says under `generate`, unchecked. Raises BaseModelError."""
    path = base.path / RECIPE_FILE
    # A base on the Hub has no folder to look in.
    if not isinstance(path, Path) or not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).get("generate") or {})
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}") from error


def _said(base: BaseIndex) -> Settings:
    path = base.path / RECIPE_FILE
    said = said_by(base)
    try:
        width, height, steps = (_whole(said, name) for name in ("width", "height", "steps"))
        guidance = said.get("guidance")
        return Settings(width, height, steps, None if guidance is None else finite(guidance))
    except (ValueError, TypeError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}") from error


def _whole(said: Mapping[str, object], name: str) -> int | None:
    value = said.get(name)
    if value is not None and type(value) is not int:
        raise ValueError(f"generate.{name} is {value!r}, not a whole number")
    return value
