"""What a base says about making pictures with it: sizes, steps and guidance. Read from configs, without torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.base_scheduler import predicts_flow
from lorakit_cli.core.numbers import finite
from lorakit_cli.core.recipe import RECIPE_FILE, RECIPE_KEY
from lorakit_cli.core.schedulers import find_sampler
from lorakit_cli.core.stacks import stack_of
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.errors import BaseModelError, OptionError

# diffusers' image pipelines refuse other multiples, whatever the autoencoder could do.
_PIPELINE_MULTIPLE = 8
# Beyond any model and any memory; past it sizes overflow inside torch.
_LARGEST_SIDE = 32768


@dataclass(frozen=True, slots=True)
class Settings:
    """How pictures are made, in values that JSON knows; None leaves one to the pipeline.

    `scheduler` is a name as `find_sampler` takes it, `scheduler_options` are for it or for the base's own. `clip_skip`
    is counted as A1111 does: 1 reads the last layer, 2 the one before. `init_image` and `mask` are paths.
    """

    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    scheduler_options: Mapping[str, Any] = field(default_factory=dict)
    clip_skip: int | None = None
    init_image: str | None = None
    mask: str | None = None
    strength: float | None = None

    def filled_from(self, other: "Settings") -> "Settings":
        """Take what is None here from other settings, and options of a scheduler that is not chosen here."""
        missing = {each.name: getattr(other, each.name) for each in fields(self) if getattr(self, each.name) is None}
        theirs = other.scheduler_options if self.scheduler in (None, other.scheduler) else {}
        return replace(self, **missing, scheduler_options={**theirs, **self.scheduler_options})


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


def multiple_of(base: BaseIndex) -> int:
    """Give what width and height must be a multiple of, in pixels."""
    return math.lcm(autoencoder_factor(base), _PIPELINE_MULTIPLE)


def check(settings: Settings, base: BaseIndex) -> None:
    """Raise OptionError for settings that cannot work with this base."""
    multiple = multiple_of(base)
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
    if settings.scheduler is not None:
        find_sampler(settings.scheduler, flow=predicts_flow(base))
    if settings.clip_skip is not None:
        _check_clip_skip(settings.clip_skip, base)
    _check_start(settings)


def _check_clip_skip(counted: int, base: BaseIndex) -> None:
    if counted < 1:
        raise OptionError(f"--clip-skip {counted}: 1 reads the last layer, 2 the one before, and so on")
    for name, component in base.components.items():
        stacks = [stack_of(name, module) for module in component.modules] if component.is_clip else []
        layers = 1 + max((stack[1] for stack in stacks if stack), default=counted)
        if counted > layers:
            raise OptionError(f"--clip-skip {counted}: the {name} of this base has {layers} layers")


def _check_start(settings: Settings) -> None:
    for name, value in (("--strength", settings.strength), ("--mask", settings.mask)):
        if value is not None and settings.init_image is None:
            raise OptionError(f"{name} says how a picture is changed; give that picture with --init-image")
    strength, steps = settings.strength, settings.steps
    if strength is not None and not 0 < strength <= 1:
        raise OptionError(f"--strength {strength}: above 0, which changes nothing, up to 1, which keeps nothing")
    if strength is not None and steps is not None and int(steps * strength) < 1:
        least = math.ceil(1 / strength)
        raise OptionError(
            f"--strength {strength} of {steps} steps is no whole step; take --steps {least} or a higher --strength"
        )


def said_by(base: BaseIndex) -> dict[str, Any]:
    """Give what a base's own lorakit.json says under `generate`, unchecked; a single file has it in its header.

    Raises BaseModelError.
    """
    path = base.path
    try:
        if isinstance(path, Path) and path.is_file():
            text = read_header(path).metadata.get(RECIPE_KEY)
        else:
            path = path / RECIPE_FILE
            # A base on the Hub has no folder to look in.
            text = path.read_text(encoding="utf-8") if isinstance(path, Path) and path.is_file() else None
        return dict(json.loads(text).get("generate") or {}) if text else {}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise BaseModelError(f"what {path} says about pictures cannot be read: {error}") from error


def _said(base: BaseIndex) -> Settings:
    path = base.path / RECIPE_FILE
    said = said_by(base)
    try:
        width, height, steps = (_whole(said, name) for name in ("width", "height", "steps"))
        guidance = said.get("guidance")
        scheduler, options = said.get("scheduler"), said.get("scheduler_options", {})
        if not isinstance(scheduler, str | None) or not isinstance(options, dict):
            raise ValueError("generate.scheduler is a name, and generate.scheduler_options an object")
        return Settings(width, height, steps, None if guidance is None else finite(guidance), scheduler, options)
    except (ValueError, TypeError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}") from error


def _whole(said: Mapping[str, object], name: str) -> int | None:
    value = said.get(name)
    if value is not None and type(value) is not int:
        raise ValueError(f"generate.{name} is {value!r}, not a whole number")
    return value
