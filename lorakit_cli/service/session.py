"""A session: a base that is loaded once, into which adapters are put and out of which pictures come."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL.Image import Image

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.core.plan import Plan
from lorakit_cli.errors import OptionError, UnsupportedError
from lorakit_cli.service.applying import FusedWeights
from lorakit_cli.service.autoencoder import open_vae
from lorakit_cli.service.base_configs import BaseConfigs, find_configs, is_single_file
from lorakit_cli.service.calling import Call, with_pictures
from lorakit_cli.service.devices import choose_device
from lorakit_cli.service.offloading import disable_offload, enable_offload, require_accelerator
from lorakit_cli.service.pipeline import choose_dtype, open_pipeline
from lorakit_cli.service.prompt_encoding import PromptEncoder
from lorakit_cli.service.quantized import quantized_components
from lorakit_cli.service.scheduling import make_scheduler
from lorakit_cli.service.single_file_pipeline import open_single_file

OnStep = Callable[[int], None]
"""Called with the number of denoising steps that are done."""

_DENOISERS = ("unet", "transformer", "transformer_2")


class Session:
    """A loaded pipeline, its adapters changed at will: only the tensors that differ from picture to picture.

    Raises LorakitError where the base cannot be loaded, or where it is no pipeline from text to pictures.
    """

    def __init__(self, base: BaseIndex, loading: Loading) -> None:
        self.loading = loading
        self.device = choose_device(loading.device)
        self.dtype = choose_dtype(loading.dtype, self.device, base)
        # Nothing can be added to packed weights.
        self.attached = loading.attach or bool(quantized_components(base))
        if loading.offload:
            require_accelerator(loading.offload, self.device)
        configs = _configs(base, loading)
        parts = {"vae": open_vae(loading.vae, base, self.dtype, configs)} if loading.vae else {}
        where = torch.device("cpu") if loading.offload else self.device
        if configs:
            self.pipeline = open_single_file(base, configs, where, self.dtype, **parts)
        else:
            self.pipeline = open_pipeline(base, where, self.dtype, **parts)
        self._replaced = set(parts)
        self._scheduler = self.pipeline.scheduler
        self._pipelines = {"": self.pipeline}
        self._calls = {"": Call(self.pipeline)}
        self._offloaded: Any = None
        self._compiled = False
        # Before anything is offloaded, which takes the parameters out of their modules.
        self._weights = FusedWeights(self.pipeline, base)
        self.prompts = PromptEncoder(self.pipeline)
        if loading.low_memory:
            _save_memory(self.pipeline)

    def put_in(self, plan: Plan) -> None:
        """Make the weights those of the base with a plan, whatever was in them before."""
        for target in plan.terms:
            if target.component in self._replaced:
                raise UnsupportedError(
                    f"an adapter changes the {target.component}, which --{target.component} replaces"
                )
        if self.attached:
            # peft takes a second to import.
            from lorakit_cli.service.attaching import attach, detach

            self._bring_back()
            detach(self.pipeline)
            attach(self.pipeline, plan)
        else:
            self._weights.apply(plan)

    def options(self, spec: PictureSpec) -> dict[str, Any]:
        """Say what the pipeline is called with, its own defaults filled in, pictures as paths. Raises OptionError."""
        return self._calls[self._kind(spec.settings)].options(spec)

    def draw(self, spec: PictureSpec, on_step: OnStep | None = None) -> Image:
        """Draw one picture: alone in its batch and on a generator of its own, so that its neighbours do not matter.

        Raises UnsupportedError where a value on the way is not finite.
        """
        values = self.values(spec, on_step)
        # diffusers makes a black picture of NaN.
        if not torch.isfinite(values).all():
            wider = "" if self.dtype is torch.float32 else "--dtype float32 or "
            raise UnsupportedError(
                f"seed {spec.seed} gave no picture: a value on the way does not fit {values.dtype}; "
                f"try {wider}smaller weights"
            )
        picture: Image = VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(values))[0]
        return picture

    def values(self, spec: PictureSpec, on_step: OnStep | None = None, *, output: str = "pt") -> torch.Tensor:
        """Compute a picture's values from 0 to 1 as `[1, 3, height, width]`, or with `latent` as output its latents."""
        kind = self._kind(spec.settings)
        pipeline = self._ready(kind)
        options = self._calls[kind].options(spec)
        steps = options["num_inference_steps"]

        def step_done(running: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if on_step:
                # Some schedulers go over a step twice, and a picture to begin from saves some.
                on_step((step + 1) * steps // max(getattr(running, "num_timesteps", steps), step + 1))
            return tensors

        pipeline.scheduler = self.pipeline.scheduler = make_scheduler(spec.settings, self._scheduler)
        if "clip_skip" in options:
            _show_text_model(pipeline)
        values: torch.Tensor = pipeline(
            **with_pictures(self.prompts.call(spec, options), (spec.settings.width, spec.settings.height)),
            generator=torch.Generator("cpu").manual_seed(spec.seed),
            callback_on_step_end=step_done,
            output_type=output,
        ).images
        return values

    def _kind(self, settings: Settings) -> str:
        """Name the task of settings, and make the pipeline for it, of the same components, where there is none yet."""
        kind = "mask" if settings.mask else "picture" if settings.init_image else ""
        if kind not in self._pipelines:
            # They load every pipeline there is, and speak while they do.
            from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

            family = AutoPipelineForInpainting if kind == "mask" else AutoPipelineForImage2Image
            try:
                pipeline = family.from_pipe(self.pipeline)
            except ValueError as error:
                option = "--mask" if kind == "mask" else "--init-image"
                raise OptionError(f"{option}: diffusers knows no such pipeline for {_name(self.pipeline)}") from error
            pipeline.set_progress_bar_config(disable=True)
            self._calls[kind] = Call(pipeline)
            self._pipelines[kind] = pipeline
        return kind

    def _ready(self, kind: str) -> Any:
        """Give the pipeline of a task, compiled and offloaded where that was asked for, with the adapters inside."""
        pipeline = self._pipelines[kind]
        if self.loading.compiled and not self._compiled:
            for name in _DENOISERS:
                if getattr(pipeline, name, None) is not None:
                    getattr(pipeline, name).compile()
            self._compiled = True
        how = self.loading.offload
        # Hooks on whole models belong to a pipeline, those on layers to whoever runs them.
        if how and (self._offloaded is None or (how == "model" and self._offloaded is not pipeline)):
            enable_offload(pipeline, how, self.device)
            self._offloaded = pipeline
        return pipeline

    def _bring_back(self) -> None:
        if self.loading.offload and self._offloaded is not None:
            disable_offload(self._offloaded, self.loading.offload)
            self._offloaded = None


def _configs(base: BaseIndex, loading: Loading) -> BaseConfigs | None:
    if loading.config is None and not is_single_file(base):
        return None
    return find_configs(base, loading.config, ("vae",) if loading.vae else ())


def _save_memory(pipeline: Any) -> None:
    """Attend and decode in parts: less memory at once, a little more time, and the last digits differ."""
    if hasattr(pipeline, "enable_attention_slicing"):
        pipeline.enable_attention_slicing()
    vae = getattr(pipeline, "vae", None)
    for way in ("enable_slicing", "enable_tiling"):
        if hasattr(vae, way):
            getattr(vae, way)()


def _show_text_model(pipeline: Any) -> None:
    """Let diffusers find the last norm of a text encoder where it was before transformers 5."""
    encoder = pipeline.text_encoder
    if not hasattr(encoder, "text_model") and hasattr(encoder, "final_layer_norm"):
        # No part of it, which a module would become by being set.
        encoder.__dict__["text_model"] = encoder


def _name(pipeline: Any) -> str:
    return type(pipeline).__name__
