"""What the guides of diffusers work with: a base of each family, two adapters, and the latents of both sides."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import PeftAdapterMixin
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from lorakit_cli.service.session import Session
from tests.originals import build
from tests.whole_flux import build_whole_flux

PROMPT = "toy_face of a hacker, pixel art"
SIZE, STEPS, SEED = 16, 1, 0
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]


def build_base(family: str) -> DiffusionPipeline:
    """Build a whole pipeline of a family, with no more layers than the examples need."""
    if family == "flux":
        return build_whole_flux(2, 3)
    pipeline = build(family)
    config = dict(pipeline.unet.config)
    if family == "sdxl":
        config["transformer_layers_per_block"] = 1
    else:
        # The last two of four levels: of the two going up one has no attention.
        for key in ("block_out_channels", "down_block_types", "up_block_types"):
            config[key] = config[key][2:] if key.startswith(("block", "down")) else config[key][:2]
    torch.manual_seed(6)
    unet = UNet2DConditionModel.from_config(config)
    for value in unet.parameters():
        value.data += 0.1 * torch.randn_like(value)
    pipeline.register_modules(unet=unet)
    return pipeline


def save_adapter(pipeline: DiffusionPipeline, path: Path, number: int, *, text: bool = True) -> Path:
    """Write an adapter of all attention as diffusers' training scripts do; with `text` of the text encoders too."""
    pipeline = copy.deepcopy(pipeline)
    torch.manual_seed(number)
    layers = {}
    for part in ("unet", "transformer", *(("text_encoder", "text_encoder_2") if text else ())):
        model = getattr(pipeline, part, None)
        if not isinstance(model, PeftAdapterMixin | CLIPTextModel | CLIPTextModelWithProjection):
            continue
        targets = _TEXT if part.startswith("text") else _ATTENTION
        # Rank and alpha are one number: what diffusers makes of others is not what the guides say.
        model.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False), "it")
        state = get_peft_model_state_dict(model, adapter_name="it")
        layers[f"{part}_lora_layers"] = {name: 2 * value for name, value in state.items()}
    type(pipeline).save_lora_weights(path.parent, weight_name=path.name, **layers)
    return path


def draw(pipeline: DiffusionPipeline, seed: int = SEED, **options: Any) -> Tensor:
    """Call a pipeline as the guides do; give the latents."""
    settings = {"prompt": PROMPT, "width": SIZE, "height": SIZE, "num_inference_steps": STEPS, "output_type": "latent"}
    return pipeline(**settings | options, generator=torch.Generator("cpu").manual_seed(seed)).images.detach()


@contextmanager
def watched_latents(monkeypatch: Any) -> Iterator[list[Tensor]]:
    """Collect the latents behind every picture that a command draws in this process; they are all that is computed."""
    values: Callable[..., Tensor] = Session.values
    seen: list[Tensor] = []

    def watch(self: Session, spec: Any, on_step: Any = None, *, output: str = "pt") -> Tensor:
        seen.append(values(self, spec, on_step, output="latent").detach().clone())
        # A picture is written, but nobody looks at it.
        return torch.zeros(1, 3, spec.settings.height, spec.settings.width)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "values", watch)
        yield seen


def apart(one: Tensor, other: Tensor) -> float:
    """Give the largest difference, as a part of the largest value."""
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max())


class Guide:
    """A base with two adapters, `toy` and `pixel`, and the pipelines of the guides with them."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.folder, self.base = family, folder, folder / "base"
        self.denoiser = "transformer" if family == "flux" else "unet"
        build_base(family).save_pretrained(self.base)
        self._loaded = {(): self._load(self.base)}
        self.toy, self.pixel = (self.adapter(name, number) for number, name in enumerate(("toy", "pixel"), 1))
        self.bare = draw(self._loaded[()])

    def adapter(self, name: str, number: int, *, text: bool = True) -> Path:
        """Write one more adapter."""
        return save_adapter(self._loaded[()], self.folder / f"{name}.safetensors", number, text=text)

    def pipeline(self, *names: str, folder: Path | str | None = None) -> DiffusionPipeline:
        """Give the base, or the pipeline of a folder, with these adapters loaded as the guides do."""
        if folder:
            return self._load(folder)
        if names not in self._loaded:
            # A copy is made in half the time.
            pipeline = self.pipeline(*names[:-1])
            pipeline.load_lora_weights(self.folder, weight_name=f"{names[-1]}.safetensors", adapter_name=names[-1])
            self._loaded[names] = pipeline
        return copy.deepcopy(self._loaded[names])

    def _load(self, folder: Path | str) -> DiffusionPipeline:
        pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def assert_same(ours: Tensor, guides: Tensor, bare: Tensor, limit: float = 2e-5) -> None:
    """Require the guide's latents up to the rounding of float32, and that the example does something."""
    assert apart(ours, guides) < limit
    assert apart(guides, bare) > 20 * limit
