"""What is written into a picture about how it was made."""

from dataclasses import asdict, dataclass
from typing import Any

import diffusers
import torch
from PIL.Image import Image

from lorakit_cli import __version__
from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.core.plan import Plan, PlannedAdapter
from lorakit_cli.service.hashing import sha256_of
from lorakit_cli.service.session import Session


@dataclass(frozen=True, slots=True)
class UsedAdapter:
    """An adapter that took part; `layers` counts what matched."""

    name: str
    file: str
    sha256: str
    weight: float
    layers: int


def used_adapters(plan: Plan) -> tuple[UsedAdapter, ...]:
    """Describe the adapters of a plan, the digests of their files among it."""
    return tuple(_used(plan, adapter) for adapter in plan.adapters)


def call_facts(session: Session, spec: PictureSpec) -> dict[str, Any]:
    """Give what the pipeline was really called with, its own defaults filled in."""
    options = session.options(spec)
    return {
        "prompt": spec.prompt,
        "negative_prompt": spec.negative or "",
        "steps": options["num_inference_steps"],
        "guidance": options.get("guidance_scale"),
        "scheduler": type(session.pipeline.scheduler).__name__,
        "dtype": str(session.dtype).removeprefix("torch."),
    }


def picture_record(
    session: Session, plan: Plan, spec: PictureSpec, picture: Image, adapters: tuple[UsedAdapter, ...], scale: float
) -> dict[str, Any]:
    """Give everything that made one picture, without paths of this machine."""
    return call_facts(session, spec) | {
        "scale": scale,
        "attached": session.attached,
        "seed": spec.seed,
        "width": picture.width,
        "height": picture.height,
        "base": plan.base.remote or plan.base.path.name,
        "adapters": [
            {name: value for name, value in asdict(adapter).items() if name != "layers"} for adapter in adapters
        ],
        "block_scales": {
            adapter.name: adapter.block_scales.as_json() for adapter in plan.adapters if adapter.block_scales
        },
        "device": session.pipeline.device.type,
        "lorakit": __version__,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
    }


def _used(plan: Plan, adapter: PlannedAdapter) -> UsedAdapter:
    path = adapter.file.path
    return UsedAdapter(
        adapter.name, path.name, sha256_of(path), adapter.weight, sum(plan.matched(adapter.name).values())
    )
