"""What a pipeline is called with to draw one picture."""

import inspect
from collections.abc import Mapping
from typing import Any

from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.errors import OptionError, UnsupportedError
from lorakit_cli.service.init_picture import read_mask, read_picture

_NEEDED = ("prompt", "num_inference_steps", "generator", "callback_on_step_end", "output_type")
# What a pipeline has a value of its own for, and reports are to name.
_REPORTED = ("num_inference_steps", "guidance_scale", "strength")


class Call:
    """The call of a pipeline: what it takes, and how it is filled."""

    def __init__(self, pipeline: Any) -> None:
        """Raises UnsupportedError for what is no pipeline from text to pictures."""
        self._name = type(pipeline).__name__
        self._takes: Mapping[str, inspect.Parameter] = inspect.signature(pipeline.__call__).parameters
        # These leave out the last layer of their text encoders as it is.
        self._left_out = 1 if hasattr(pipeline, "text_encoder_2") else 0
        for needed in _NEEDED:
            if needed not in self._takes:
                raise UnsupportedError(f"{self._name} is no pipeline from text to pictures: no {needed}")

    def options(self, spec: PictureSpec) -> dict[str, Any]:
        """Fill the call, its own defaults where neither user nor base said anything; pictures are given as paths.

        Raises OptionError for what the pipeline does not take.
        """
        settings = spec.settings
        wanted = {
            "prompt": spec.prompt,
            "negative_prompt": spec.negative,
            "width": settings.width,
            "height": settings.height,
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance,
            "clip_skip": self._clip_skip(settings.clip_skip),
            "image": settings.init_image,
            "mask_image": settings.mask,
            "strength": settings.strength,
        }
        options: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
        if settings.init_image is not None:
            # Some take the size from the picture, which has it.
            options = {name: options[name] for name in options if name not in ("width", "height") or self.takes(name)}
        for name in options:
            if not self.takes(name):
                raise OptionError(f"{self._name} takes no {name}")
        for name in _REPORTED:
            if self.takes(name):
                options.setdefault(name, self._takes[name].default)
        if "strength" in options and int(options["num_inference_steps"] * options["strength"]) < 1:
            raise OptionError(
                f"{options['num_inference_steps']} steps at a strength of {options['strength']}, which is that of "
                f"{self._name}, are no whole step; take more --steps or a higher --strength"
            )
        return options

    def takes(self, name: str) -> bool:
        """Tell whether the call has a parameter."""
        return name in self._takes

    def _clip_skip(self, counted: int | None) -> int | None:
        """Count as diffusers does: from what the pipeline does anyway, None where that is asked for."""
        if counted is None:
            return None
        if not self.takes("clip_skip"):
            raise OptionError(f"--clip-skip: {self._name} does not know it")
        return max(counted - 1 - self._left_out, 0) or None


def with_pictures(options: Mapping[str, Any], size: tuple[int | None, int | None]) -> dict[str, Any]:
    """Read the pictures of a call. Raises OptionError for one that cannot be read."""
    filled = dict(options)
    width, height = size
    if "image" in options:
        assert width is not None
        assert height is not None
        filled["image"] = read_picture(options["image"], (width, height))
        if "mask_image" in options:
            filled["mask_image"] = read_mask(options["mask_image"], (width, height))
    return filled
