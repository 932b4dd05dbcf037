"""What the guides of diffusers work with: a base of each family, two adapters, and the latents of both sides."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from lorakit_cli.service.session import Session
from tests.originals import build
from tests.whole_flux import build_whole_flux

PROMPT = "toy_face of a hacker, pixel art"
SIZE, STEPS, SEED = 16, 2, 0
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]


def build_base(family: str) -> DiffusionPipeline:
    """Build a whole pipeline of a family, with layers enough for every example."""
    return build_whole_flux(2, 3) if family == "flux" else build(family)


def save_adapter(folder: Path, name: str, family: str, number: int, *, text: bool = True) -> Path:
    """Write an adapter of all attention as diffusers' training scripts do; with `text` of the text encoders too."""
    torch.manual_seed(number)
    pipeline = build_base(family)
    layers = {}
    for part in ("unet", "transformer", *(("text_encoder", "text_encoder_2") if text else ())):
        model = getattr(pipeline, part, None)
        if model is None or (family == "flux" and part == "text_encoder_2"):
            continue
        targets = _TEXT if part.startswith("text") else _ATTENTION
        # Rank and alpha are one number: what diffusers makes of others is not what the guides say.
        model.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False), name)
        state = get_peft_model_state_dict(model, adapter_name=name)
        layers[f"{part}_lora_layers"] = {key: value * 2 for key, value in state.items()}
    type(pipeline).save_lora_weights(folder, weight_name=f"{name}.safetensors", **layers)
    return folder / f"{name}.safetensors"


def draw(pipeline: DiffusionPipeline, seed: int = SEED, **options: Any) -> Tensor:
    """Call a pipeline as the guides do; give the latents."""
    settings = {"prompt": PROMPT, "width": SIZE, "height": SIZE, "num_inference_steps": STEPS, "output_type": "latent"}
    return pipeline(**settings | options, generator=torch.Generator("cpu").manual_seed(seed)).images.detach()


@contextmanager
def watched_latents(monkeypatch: Any) -> Iterator[list[Tensor]]:
    """Collect the latents behind every picture that a command draws in this process: of the same session."""
    values: Callable[..., Tensor] = Session.values
    seen: list[Tensor] = []

    def watch(self: Session, spec: Any, on_step: Any = None, *, output: str = "pt") -> Tensor:
        seen.append(values(self, spec, output="latent").detach().clone())
        return values(self, spec, on_step, output=output)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "values", watch)
        yield seen


def apart(one: Tensor, other: Tensor) -> float:
    """Give the largest difference, as a part of the largest value."""
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max())


class Guide:
    """A base with two adapters, `toy` and `pixel`, and both ways to draw with them. Its pipelines are of the guides."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.folder, self.base = family, folder, folder / "base"
        self.denoiser = "transformer" if family == "flux" else "unet"
        build_base(family).save_pretrained(self.base)
        self.toy, self.pixel = (save_adapter(folder, name, family, n) for n, name in enumerate(("toy", "pixel"), 1))
        self._drawn: dict[str, Tensor] = {}

    def pipeline(self, *names: str, folder: Path | None = None) -> DiffusionPipeline:
        """Load the base, or the pipeline of a folder, and these adapters as the guides do."""
        pipeline = DiffusionPipeline.from_pretrained(folder or self.base, local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        for name in names:
            pipeline.load_lora_weights(self.folder, weight_name=f"{name}.safetensors", adapter_name=name)
        return pipeline

    def bare(self) -> Tensor:
        """Give the latents of the base alone, drawn once."""
        if "" not in self._drawn:
            self._drawn[""] = draw(self.pipeline())
        return self._drawn[""]


def assert_same(ours: Tensor, guides: Tensor, bare: Tensor, limit: float = 2e-5) -> None:
    """Require the guide's latents up to the rounding of float32, and that the example does something."""
    assert apart(ours, guides) < limit
    assert apart(guides, bare) > 1e-2
