"""What is written into a picture about how it was made."""

import math
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from PIL.Image import Image

from lorakit_cli import __version__
from lorakit_cli.core.picture_recipe import VERB, PictureRecipe
from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.core.plan import Plan, PlannedAdapter
from lorakit_cli.core.recipe import Recipe, RecipeAdapter, RecipeBase
from lorakit_cli.core.scales_digest import scales_digest
from lorakit_cli.service.adapter_digests import auto_v3_of, digest_of
from lorakit_cli.service.base_digests import base_digests
from lorakit_cli.service.devices import arithmetic
from lorakit_cli.service.option_files import option_files
from lorakit_cli.service.public_source import public_source
from lorakit_cli.service.session import Session
from lorakit_cli.sources.local import EMBEDDED, is_embedded

_SHA256 = re.compile(r"[0-9a-f]{64}")


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


def recorded_base(plan: Plan) -> RecipeBase:
    """Say which base it is, its files by their digests, without where on this machine it lies."""
    base = plan.base
    source = EMBEDDED if is_embedded(base.path) else base.remote or base.path.name
    return RecipeBase(source, base.class_name, base.remote, base.variant, base_digests(base))


def picture_record(
    session: Session,
    plan: Plan,
    spec: PictureSpec,
    picture: Image,
    adapters: tuple[UsedAdapter, ...],
    scale: float,
    *,
    base: RecipeBase | None = None,
    sources: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Give everything that made one picture, without paths of this machine.

    `base` spares finding out what it is, which `recorded_base` does; `sources` say what adapters were asked for by.
    """
    facts = call_facts(session, spec)
    record = PictureRecipe(
        recipe=_recipe(session, plan, spec, adapters, scale, base, sources or {}),
        prompt=spec.prompt,
        negative=spec.negative,
        seed=spec.seed,
        settings=replace(spec.settings, steps=facts["steps"], guidance=facts["guidance"]),
        # Another device would choose another one.
        loading=replace(session.loading, dtype=facts["dtype"]),
        literal=session.prompts.is_literal(spec),
        files=option_files(spec.settings, session.loading),
        facts={
            **{name: facts[name] for name in ("steps", "guidance", "scheduler", "dtype")},
            "width": picture.width,
            "height": picture.height,
            "scheduler_options": _options(session.pipeline.scheduler),
            "device": session.device.type,
            "model_hash": _model_hash(plan),
            "auto_v3": {adapter.name: auto_v3_of(adapter.file.path) for adapter in plan.adapters},
        },
    )
    return record.as_json()


def _recipe(
    session: Session,
    plan: Plan,
    spec: PictureSpec,
    adapters: tuple[UsedAdapter, ...],
    scale: float,
    base: RecipeBase | None,
    sources: Mapping[str, str],
) -> Recipe:
    machine = {"processor": _processor(), "threads": str(torch.get_num_threads())}
    return Recipe(
        verb=VERB,
        base=base or recorded_base(plan),
        adapters=tuple(
            _recorded(adapter, used, sources.get(adapter.name, ""))
            for adapter, used in zip(plan.adapters, adapters, strict=True)
        ),
        scale=scale,
        engine="attached" if session.attached else "fused",
        arithmetic=arithmetic(session.device) | machine,
        versions={
            "lorakit": __version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            **session.prompts.versions(spec),
        },
    )


def _used(plan: Plan, adapter: PlannedAdapter) -> UsedAdapter:
    path = adapter.file.path
    return UsedAdapter(
        adapter.name, path.name, digest_of(path), adapter.weight, sum(plan.matched(adapter.name).values())
    )


def _recorded(adapter: PlannedAdapter, used: UsedAdapter, source: str) -> RecipeAdapter:
    return RecipeAdapter(
        name=adapter.name,
        source=public_source(source) or used.file,
        file=used.file,
        sha256=used.sha256,
        weight=adapter.weight,
        block_scales=adapter.block_scales.as_json() if adapter.block_scales else None,
        size=adapter.file.path.stat().st_size,
        scales=scales_digest(adapter.file),
    )


def _options(scheduler: Any) -> dict[str, Any]:
    """Give what a scheduler was configured with, as far as JSON can say it."""
    options = {name: value for name, value in scheduler.config.items() if isinstance(value, bool | int | float | str)}
    # JSON has no infinity.
    return {name: value for name, value in options.items() if name[0] != "_" and value not in (math.inf, -math.inf)}


def _model_hash(plan: Plan) -> str | None:
    """Give the AutoV2 hash of a single-file base where the Hub's cache, which names files by theirs, knows it."""
    path = plan.base.path
    if not isinstance(path, Path) or not path.is_file():
        return None
    name = path.resolve().name
    return name[:10] if _SHA256.fullmatch(name) else None


def _processor() -> str:
    """Give what the system calls its processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*: (.{1,100})$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()
