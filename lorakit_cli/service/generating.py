"""Make pictures: a prepared request to files that say how they were made."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lorakit_cli.core.output_file import new_file
from lorakit_cli.core.recipe import Recipe, RecipeBase
from lorakit_cli.core.work_order import work_order
from lorakit_cli.errors import OutputError
from lorakit_cli.service.devices import choose_device
from lorakit_cli.service.fetching import fetched
from lorakit_cli.service.memory import enough_memory, saving_advice
from lorakit_cli.service.picture_file import save_picture
from lorakit_cli.service.picture_record import (
    UsedAdapter,
    call_facts,
    picture_record,
    recorded_base,
    used_adapters,
)
from lorakit_cli.service.pipeline import choose_dtype
from lorakit_cli.service.quiet import hushed
from lorakit_cli.service.request import Prepared, Weights
from lorakit_cli.service.scheduling import require_known
from lorakit_cli.service.session import Session

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that was written, and what adapters were in it at which weights."""

    path: str
    seed: int
    prompt: str
    adapters: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GenerateReport:
    """What was made, and with what; `guidance` is None for pipelines that know none.

    With several prompts, `prompt` and `adapters` are those of the first picture.
    """

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
    notes: tuple[str, ...]


def generate(prepared: Prepared, progress: Progress | None = None, *, verbose: bool = False) -> GenerateReport:
    """Load the base once, put in what the pictures need, and write each; a base on the Hub is downloaded first.

    Raises LorakitError.
    """
    begin = time.monotonic()
    prepared = prepared.on(fetched(prepared.plan.base))
    plan = prepared.plan
    loading = prepared.request.loading
    device = choose_device(loading.device)
    advice = saving_advice(loading, device, choose_dtype(loading.dtype, device, plan.base))
    with hushed(verbose=verbose), enough_memory(advice):
        for spec in prepared.pictures:
            require_known(spec.settings, plan.base)
        session = Session(plan.base, loading)
        work = _Work(session, prepared, prepared.before.base, progress)
        order = work_order([weights.plan for weights in prepared.weights], prepared.weights_of)
        for done, index in enumerate(order):
            work.make(index, done)
        facts = call_facts(session, prepared.pictures[0])
    return GenerateReport(
        pictures=tuple(
            Picture(
                str(path),
                spec.seed,
                spec.prompt,
                {adapter.name: adapter.weight for adapter in prepared.weights[number].plan.adapters},
            )
            for path, spec, number in zip(prepared.names.paths, prepared.pictures, prepared.weights_of, strict=True)
        ),
        base=plan.base.label,
        adapters=work.used[0],
        scale=prepared.request.scale,
        attached=session.attached,
        width=work.size[0],
        height=work.size[1],
        device=str(session.device),
        seconds=round(time.monotonic() - begin, 2),
        warnings=(*prepared.warnings, *session.prompts.cuts),
        notes=(*prepared.notes, *work.notes),
        **facts,
    )


@dataclass(slots=True)
class _Work:
    """A session at work on a request: what is in its weights, and what is known of what was put in."""

    session: Session
    prepared: Prepared
    base: RecipeBase | None
    progress: Progress | None
    used: dict[int, tuple[UsedAdapter, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    _inside: int | None = None

    def make(self, index: int, done: int) -> None:
        """Draw and write one picture; `done` are there already."""
        prepared, number = self.prepared, self.prepared.weights_of[index]
        spec, path, weights = prepared.pictures[index], prepared.names.paths[index], prepared.weights[number]
        if number != self._inside:
            self.session.put_in(weights.plan)
            self._inside = number
        steps = self.session.options(spec)["num_inference_steps"]

        def count(step: int) -> None:
            if self.progress:
                self.progress(done * steps + step, len(prepared.pictures) * steps)

        picture = self.session.draw(spec, count)
        made_with = picture_record(
            self.session,
            weights.plan,
            spec,
            picture,
            self._used(number, weights),
            weights.scale,
            base=self._base(weights),
            sources=weights.sources,
        )
        if not done:
            self.size = picture.size
            self.notes = differences(prepared.before.recipe, made_with["recipe"])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot create the folder {path.parent}: {error.strerror}") from error
        with new_file(path, overwrite=prepared.names.overwrite) as file:
            save_picture(picture, file, made_with, suffix=path.suffix, quality=prepared.request.quality)

    def _used(self, number: int, weights: Weights) -> tuple[UsedAdapter, ...]:
        if number not in self.used:
            self.used[number] = used_adapters(weights.plan)
        return self.used[number]

    def _base(self, weights: Weights) -> RecipeBase:
        if self.base is None:
            self.base = recorded_base(weights.plan)
        return self.base


def differences(before: Recipe | None, now: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what a picture is made on this time that is not what it was, and may be seen in it."""
    if before is None:
        return ()
    old, new = ({**recipe["versions"], **recipe["arithmetic"]} for recipe in (before.as_json(), now))
    told = [f"{name} {new[name]} instead of {value}" for name, value in old.items() if new.get(name, value) != value]
    return (f"made on {', '.join(told)}: the picture may differ in the last digits",) if told else ()
