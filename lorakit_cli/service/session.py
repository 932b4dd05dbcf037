"""A session: a base that is loaded once, into which adapters are put and out of which pictures come."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL.Image import Image

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.core.plan import Plan
from lorakit_cli.errors import OptionError, UnsupportedError
from lorakit_cli.service.applying import FusedWeights
from lorakit_cli.service.devices import choose_device
from lorakit_cli.service.pipeline import choose_dtype, open_pipeline

OnStep = Callable[[int], None]
"""Called with the number of denoising steps that are done."""

_NEEDED = ("prompt", "num_inference_steps", "generator", "callback_on_step_end", "output_type")


class Session:
    """A loaded pipeline, its adapters changed at will: only the tensors that differ from picture to picture.

    Raises LorakitError where the base cannot be loaded, or where it is no pipeline from text to pictures.
    """

    def __init__(self, base: BaseIndex, loading: Loading) -> None:
        device = choose_device(loading.device)
        self.dtype = choose_dtype(loading.dtype, device, base)
        self.pipeline = open_pipeline(base, device, self.dtype)
        self.attached = loading.attach
        self._weights = FusedWeights(self.pipeline, base)
        self._known = inspect.signature(self.pipeline.__call__).parameters
        for needed in _NEEDED:
            if needed not in self._known:
                what = type(self.pipeline).__name__
                raise UnsupportedError(f"{what} is no pipeline from text to pictures: no {needed}")

    def put_in(self, plan: Plan) -> None:
        """Make the weights those of the base with a plan, whatever was in them before."""
        if self.attached:
            # peft takes a second to import.
            from lorakit_cli.service.attaching import attach
            from lorakit_cli.service.detaching import detach

            detach(self.pipeline)
            attach(self.pipeline, plan)
        else:
            self._weights.apply(plan)

    def options(self, spec: PictureSpec) -> dict[str, Any]:
        """Fill the pipeline's call, its own defaults where neither user nor base said anything. Raises OptionError."""
        wanted = {
            "prompt": spec.prompt,
            "negative_prompt": spec.negative,
            "width": spec.settings.width,
            "height": spec.settings.height,
            "num_inference_steps": spec.settings.steps,
            "guidance_scale": spec.settings.guidance,
        }
        options = {name: value for name, value in wanted.items() if value is not None}
        for name in options:
            if name not in self._known:
                raise OptionError(f"{type(self.pipeline).__name__} takes no {name}")
        for name in ("num_inference_steps", "guidance_scale"):
            if name not in options and name in self._known:
                options[name] = self._known[name].default
        return options

    def draw(self, spec: PictureSpec, on_step: OnStep | None = None) -> Image:
        """Draw one picture: alone in its batch and on a generator of its own, so that its neighbours do not matter.

        Raises UnsupportedError where a value on the way is not finite.
        """

        def step_done(_pipeline: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if on_step:
                on_step(step + 1)
            return tensors

        generator = torch.Generator("cpu").manual_seed(spec.seed)
        values = self.pipeline(
            **self.options(spec), generator=generator, callback_on_step_end=step_done, output_type="pt"
        ).images
        # diffusers makes a black picture of NaN.
        if not torch.isfinite(values).all():
            raise UnsupportedError(
                f"seed {spec.seed} gave no picture: a value on the way does not fit {values.dtype}; "
                "try --dtype float32 or smaller weights"
            )
        picture: Image = VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(values))[0]
        return picture
