"""Make pictures: a prepared request to PNG files that say how they were made."""

import hashlib
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

from lorakit_cli import __version__
from lorakit_cli.core.output_file import new_file
from lorakit_cli.errors import OptionError, OutputError
from lorakit_cli.service.applying import FusedWeights
from lorakit_cli.service.picture_file import save_picture
from lorakit_cli.service.pipeline import choose_device, choose_dtype, open_pipeline
from lorakit_cli.service.request import Prepared

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that was written."""

    path: str
    seed: int


@dataclass(frozen=True, slots=True)
class UsedAdapter:
    """An adapter that took part; `layers` counts what matched."""

    name: str
    file: str
    sha256: str
    weight: float
    layers: int


@dataclass(frozen=True, slots=True)
class GenerateReport:
    """What was made, and with what."""

    pictures: tuple[Picture, ...]
    prompt: str
    negative_prompt: str
    base: str
    adapters: tuple[UsedAdapter, ...]
    scale: float
    attached: bool
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    device: str
    dtype: str
    seconds: float
    warnings: tuple[str, ...]


def generate(prepared: Prepared, progress: Progress | None = None) -> GenerateReport:
    """Load the base, put the plan in, and write one picture per seed. Raises LorakitError."""
    request, plan = prepared.request, prepared.plan
    device = choose_device(request.device)
    dtype = choose_dtype(request.dtype, device, plan.base)
    begin = time.monotonic()
    pipeline = open_pipeline(plan.base, device, dtype)
    if request.attach:
        from lorakit_cli.service.attaching import attach

        attach(pipeline, plan)
    else:
        FusedWeights(pipeline, plan.base).apply(plan)
    options = _options(pipeline, prepared)
    adapters = tuple(
        UsedAdapter(
            adapter.name,
            adapter.file.path.name,
            _sha256(adapter.file.path),
            adapter.weight,
            sum(plan.matched(adapter.name).values()),
        )
        for adapter in plan.adapters
    )
    pictures: list[Picture] = []
    facts: dict[str, Any] = {}
    total = options["num_inference_steps"] * len(prepared.seeds)
    for index, (seed, path) in enumerate(zip(prepared.seeds, prepared.names.paths, strict=True)):
        picture = _draw(pipeline, options, seed, _counter(progress, index * options["num_inference_steps"], total))
        facts = {
            "prompt": prepared.prompt,
            "negative_prompt": request.negative or "",
            "base": plan.base.path.name,
            "width": picture.width,
            "height": picture.height,
            "steps": options["num_inference_steps"],
            "guidance": options["guidance_scale"],
            "scheduler": type(pipeline.scheduler).__name__,
        }
        made_with = facts | {
            "seed": seed,
            "scale": request.scale,
            "adapters": [{"name": a.name, "file": a.file, "sha256": a.sha256, "weight": a.weight} for a in adapters],
            "block_scales": _block_scales(prepared),
            "attached": request.attach,
            "device": device.type,
            "dtype": str(dtype).removeprefix("torch."),
            "lorakit": __version__,
            "diffusers": diffusers.__version__,
            "torch": torch.__version__,
        }
        _write(path, picture, made_with, overwrite=prepared.names.overwrite)
        pictures.append(Picture(str(path), seed))
    return GenerateReport(
        pictures=tuple(pictures),
        adapters=adapters,
        scale=request.scale,
        attached=request.attach,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        seconds=round(time.monotonic() - begin, 2),
        warnings=prepared.warnings,
        **(facts | {"base": str(plan.base.path)}),
    )


def _options(pipeline: Any, prepared: Prepared) -> dict[str, Any]:
    """Fill the pipeline's call, its own defaults where neither user nor base said anything."""
    known = inspect.signature(pipeline.__call__).parameters
    settings = prepared.settings
    wanted = {
        "prompt": prepared.prompt,
        "negative_prompt": prepared.request.negative,
        "width": settings.width,
        "height": settings.height,
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance,
    }
    refused = [name for name, value in wanted.items() if value is not None and name not in known]
    if refused:
        raise OptionError(f"{type(pipeline).__name__} takes no {refused[0]}")
    options = {name: value for name, value in wanted.items() if value is not None}
    for name in ("num_inference_steps", "guidance_scale"):
        if name not in options:
            options[name] = known[name].default if name in known else 1
    return options


def _draw(pipeline: Any, options: dict[str, Any], seed: int, count: Callable[[int], None] | None) -> Any:
    """Draw one picture; alone in its batch and on a generator of its own, so that its neighbours do not matter."""

    def on_step(_pipeline: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if count:
            count(step + 1)
        return tensors

    generator = torch.Generator("cpu").manual_seed(seed)
    return pipeline(**options, generator=generator, callback_on_step_end=on_step).images[0]


def _counter(progress: Progress | None, done: int, total: int) -> Callable[[int], None] | None:
    return (lambda step: progress(done + step, total)) if progress else None


def _write(path: Path, picture: Any, made_with: dict[str, Any], *, overwrite: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {path.parent}: {error.strerror}") from error
    with new_file(path, overwrite=overwrite) as file:
        save_picture(picture, file, made_with)


def _block_scales(prepared: Prepared) -> dict[str, Any]:
    return {name: scales.as_json() for name, scales in prepared.request.block_scales.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
