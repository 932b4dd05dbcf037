"""Make pictures: a prepared request to PNG files that say how they were made."""

import inspect
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import diffusers
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL.Image import Image

from lorakit_cli import __version__
from lorakit_cli.core.output_file import new_file
from lorakit_cli.core.plan import Plan, PlannedAdapter
from lorakit_cli.errors import OptionError, OutputError, UnsupportedError
from lorakit_cli.service.applying import FusedWeights
from lorakit_cli.service.devices import choose_device
from lorakit_cli.service.hashing import sha256_of
from lorakit_cli.service.picture_file import save_picture
from lorakit_cli.service.pipeline import choose_dtype, enough_memory, open_pipeline
from lorakit_cli.service.quiet import hushed
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
    """What was made, and with what; `guidance` is None for pipelines that know none."""

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
    guidance: float | None
    scheduler: str
    device: str
    dtype: str
    seconds: float
    warnings: tuple[str, ...]


def generate(prepared: Prepared, progress: Progress | None = None, *, verbose: bool = False) -> GenerateReport:
    """Load the base, put the plan in, and write one picture per seed. Raises LorakitError."""
    begin = time.monotonic()
    request, plan = prepared.request, prepared.plan
    adapters = tuple(_used(plan, adapter) for adapter in plan.adapters)
    device = choose_device(request.device)
    dtype = choose_dtype(request.dtype, device, plan.base)
    with hushed(verbose=verbose), enough_memory():
        pipeline = open_pipeline(plan.base, device, dtype)
        _put_in(pipeline, prepared)
        options = _options(pipeline, prepared)
        facts = {
            "prompt": prepared.prompt,
            "negative_prompt": request.negative or "",
            "scale": request.scale,
            "attached": request.attach,
            "steps": options["num_inference_steps"],
            "guidance": options.get("guidance_scale"),
            "scheduler": type(pipeline.scheduler).__name__,
            "dtype": str(dtype).removeprefix("torch."),
        }
        sizes = [
            _make(pipeline, prepared, index, options, facts, adapters, progress) for index in range(len(prepared.seeds))
        ]
    return GenerateReport(
        pictures=tuple(
            Picture(str(path), seed) for path, seed in zip(prepared.names.paths, prepared.seeds, strict=True)
        ),
        base=str(plan.base.path),
        adapters=adapters,
        width=sizes[0][0],
        height=sizes[0][1],
        device=str(device),
        seconds=round(time.monotonic() - begin, 2),
        warnings=prepared.warnings,
        **facts,
    )


def _put_in(pipeline: Any, prepared: Prepared) -> None:
    if prepared.request.attach:
        # peft takes a second to import.
        from lorakit_cli.service.attaching import attach

        attach(pipeline, prepared.plan)
    else:
        FusedWeights(pipeline, prepared.plan.base).apply(prepared.plan)


def _make(
    pipeline: Any,
    prepared: Prepared,
    index: int,
    options: dict[str, Any],
    facts: dict[str, Any],
    adapters: tuple[UsedAdapter, ...],
    progress: Progress | None,
) -> tuple[int, int]:
    """Draw and write one picture; give its width and height."""
    seed, steps = prepared.seeds[index], options["num_inference_steps"]

    def count(step: int) -> None:
        if progress:
            progress(index * steps + step, len(prepared.seeds) * steps)

    picture = _draw(pipeline, options, seed, count)
    made_with = facts | {
        "seed": seed,
        "width": picture.width,
        "height": picture.height,
        "base": prepared.plan.base.path.name,
        "adapters": [
            {name: value for name, value in asdict(adapter).items() if name != "layers"} for adapter in adapters
        ],
        "block_scales": {
            adapter.name: adapter.block_scales.as_json() for adapter in prepared.plan.adapters if adapter.block_scales
        },
        "device": pipeline.device.type,
        "lorakit": __version__,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
    }
    path = prepared.names.paths[index]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {path.parent}: {error.strerror}") from error
    with new_file(path, overwrite=prepared.names.overwrite) as file:
        save_picture(picture, file, made_with)
    return picture.width, picture.height


def _draw(pipeline: Any, options: dict[str, Any], seed: int, count: Callable[[int], None]) -> Image:
    """Draw one picture; alone in its batch and on a generator of its own, so that its neighbours do not matter."""

    def on_step(_pipeline: Any, step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        count(step + 1)
        return tensors

    generator = torch.Generator("cpu").manual_seed(seed)
    values = pipeline(**options, generator=generator, callback_on_step_end=on_step, output_type="pt").images
    # diffusers makes a black picture of NaN.
    if not torch.isfinite(values).all():
        raise UnsupportedError(
            f"seed {seed} gave no picture: a value on the way does not fit {values.dtype}; "
            "try --dtype float32 or smaller weights"
        )
    picture: Image = VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(values))[0]
    return picture


def _options(pipeline: Any, prepared: Prepared) -> dict[str, Any]:
    """Fill the pipeline's call, its own defaults where neither user nor base said anything."""
    known = inspect.signature(pipeline.__call__).parameters
    for needed in ("prompt", "num_inference_steps", "generator", "callback_on_step_end", "output_type"):
        if needed not in known:
            raise UnsupportedError(f"{type(pipeline).__name__} is no pipeline from text to pictures: no {needed}")
    settings = prepared.settings
    wanted = {
        "prompt": prepared.prompt,
        "negative_prompt": prepared.request.negative,
        "width": settings.width,
        "height": settings.height,
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance,
    }
    options = {name: value for name, value in wanted.items() if value is not None}
    for name in options:
        if name not in known:
            raise OptionError(f"{type(pipeline).__name__} takes no {name}")
    for name in ("num_inference_steps", "guidance_scale"):
        if name not in options and name in known:
            options[name] = known[name].default
    return options


def _used(plan: Plan, adapter: PlannedAdapter) -> UsedAdapter:
    path = adapter.file.path
    return UsedAdapter(
        adapter.name, path.name, sha256_of(path), adapter.weight, sum(plan.matched(adapter.name).values())
    )
