"""Make pictures: a prepared request to files that say how they were made."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from PIL.Image import Image

from lorakit_cli.core.output_file import new_file
from lorakit_cli.errors import OutputError
from lorakit_cli.service.fetching import fetched
from lorakit_cli.service.picture_file import save_picture
from lorakit_cli.service.picture_record import UsedAdapter, call_facts, picture_record, used_adapters
from lorakit_cli.service.pipeline import enough_memory
from lorakit_cli.service.quiet import hushed
from lorakit_cli.service.request import Prepared
from lorakit_cli.service.session import Session

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that was written."""

    path: str
    seed: int


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
    """Load the base, put the plan in, and write one picture per seed; a base on the Hub is downloaded first.

    Raises LorakitError.
    """
    begin = time.monotonic()
    prepared = prepared.on(fetched(prepared.plan.base))
    plan = prepared.plan
    adapters = used_adapters(plan)
    with hushed(verbose=verbose), enough_memory():
        session = Session(plan.base, prepared.request.loading)
        session.put_in(plan)
        pictures = [_make(session, prepared, index, adapters, progress) for index in range(len(prepared.pictures))]
        facts = call_facts(session, prepared.pictures[0])
    return GenerateReport(
        pictures=tuple(
            Picture(str(path), spec.seed) for path, spec in zip(prepared.names.paths, prepared.pictures, strict=True)
        ),
        base=plan.base.label,
        adapters=adapters,
        scale=prepared.request.scale,
        attached=session.attached,
        width=pictures[0].width,
        height=pictures[0].height,
        device=str(session.pipeline.device),
        seconds=round(time.monotonic() - begin, 2),
        warnings=prepared.warnings,
        **facts,
    )


def _make(
    session: Session, prepared: Prepared, index: int, adapters: tuple[UsedAdapter, ...], progress: Progress | None
) -> Image:
    """Draw and write one picture."""
    spec, path = prepared.pictures[index], prepared.names.paths[index]
    steps = session.options(spec)["num_inference_steps"]

    def count(step: int) -> None:
        if progress:
            progress(index * steps + step, len(prepared.pictures) * steps)

    picture = session.draw(spec, count)
    made_with = picture_record(session, prepared.plan, spec, picture, adapters, prepared.request.scale)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {path.parent}: {error.strerror}") from error
    with new_file(path, overwrite=prepared.names.overwrite) as file:
        save_picture(picture, file, made_with)
    return picture
