"""Bake adapters into a base: a prepared request to a pipeline that loads anywhere and carries its own proof."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorakit_cli.core.base_files import by_file
from lorakit_cli.core.block_names import block_of, block_order
from lorakit_cli.core.bytes_done import BytesDone, Progress
from lorakit_cli.core.disk_space import require_space
from lorakit_cli.core.families import base_family
from lorakit_cli.core.file_digest import FileDigest, digest_files, digest_tensors
from lorakit_cli.core.header_recipe import with_recipe
from lorakit_cli.core.leftovers import recover
from lorakit_cli.core.match import Target
from lorakit_cli.core.output_file import new_file
from lorakit_cli.core.output_folder import new_folder
from lorakit_cli.core.positional import write_at
from lorakit_cli.core.recipe import Recipe
from lorakit_cli.errors import VerificationError
from lorakit_cli.service.baking import Baked, Output, bake_files
from lorakit_cli.service.fetching import fetched
from lorakit_cli.service.fuse_report import BlockChange, FusedAdapter, FuseReport
from lorakit_cli.service.fuse_request import OFF, PreparedFuse
from lorakit_cli.service.hashing import sha256_of
from lorakit_cli.service.model_card import model_card
from lorakit_cli.service.output_layout import OutputLayout, lay_out
from lorakit_cli.service.output_texts import copy_texts, write_recipe
from lorakit_cli.service.recipes import fuse_recipe
from lorakit_cli.service.verify_report import VerifyReport

Remark = Callable[[str], None]


def fuse(prepared: PreparedFuse, progress: Progress | None = None, remark: Remark | None = None) -> FuseReport:
    """Write the fused pipeline, look at it again, and only then let it appear; a base on the Hub is downloaded first.

    Raises LorakitError; what was at the output's place is then as it was. VerificationError: what was written is not
    what base and adapters come to.
    """
    begin = time.monotonic()
    prepared = prepared.on(fetched(prepared.plan.base))
    request = prepared.request
    assert request.out is not None
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(_hashes, prepared)
        layout = lay_out(prepared, hashing.result() if prepared.as_file else {})
        # What a killed run left takes room.
        recover(request.out, remark)
        require_space(request.out.parent, layout.size)
        done = BytesDone(layout.size * (1 if request.check == OFF else 2), progress)
        with _output(prepared, layout, remark) as place:
            baked, outputs = _bake(prepared, layout, place, done)
            hashes = hashing.result()
            facts = {"arithmetic": baked.arithmetic, "engine": engine_of(prepared)}
            recipe = fuse_recipe(prepared, hashes, _digests(layout, baked), **facts)
            if remark and request.recipe and request.recipe.arithmetic != recipe.arithmetic:
                remark(
                    f"the recipe's sums were made on {_machine(request.recipe)}, these on {_machine(recipe)}; some "
                    "values may differ by one unit in the last place"
                )
            _write_texts(prepared, layout, place, outputs, recipe)
            check = _check(prepared, layout, outputs, done)
    return _report(prepared, layout, baked, hashes, check, round(time.monotonic() - begin, 2))


def _machine(recipe: Recipe) -> str:
    return f"{recipe.arithmetic.get('kind')} with torch {recipe.arithmetic.get('torch')}"


def _hashes(prepared: PreparedFuse) -> dict[Path, str]:
    return {path: sha256_of(path) for path in (adapter.file.path for adapter in prepared.plan.adapters)}


@contextmanager
def _output(prepared: PreparedFuse, layout: OutputLayout, remark: Remark | None) -> Iterator[Path | Output]:
    """Make the output, a folder or an open file, that appears when all is well."""
    request = prepared.request
    assert request.out is not None
    options: Any = {"overwrite": request.overwrite, "parents": True, "remark": remark}
    if prepared.as_file:
        with new_file(request.out, **options) as file:
            yield Output(layout.files[0], Path(file.name), file.fileno())
        return
    with new_folder(request.out, **options) as folder:
        yield folder


def _bake(
    prepared: PreparedFuse, layout: OutputLayout, place: Path | Output, done: BytesDone
) -> tuple[Baked, list[Output]]:
    """Write the weights; give what came of it, and the files that were written."""
    plan = prepared.plan
    if engine_of(prepared) == "pipeline":
        from lorakit_cli.service.fusing_in_memory import fuse_in_memory, written_files

        assert isinstance(place, Path)
        arithmetic = fuse_in_memory(prepared, place)
        found = written_files(plan.base, layout.stored, place)
        digests: dict[Target, bytes] = {}
        for path, own in by_file(layout.stored).items():
            digests |= digest_tensors(path, own)
        return Baked(digests, arithmetic=arithmetic), [Output(file, place / file.name) for file in found]
    outputs = [place] if isinstance(place, Output) else [Output(file, place / file.name) for file in layout.files]
    baked = bake_files(plan.base, layout.stored, dict(plan.changes()), outputs, prepared.request.device, done)
    return baked, outputs


def engine_of(prepared: PreparedFuse) -> str:
    """Name the engine of a request: files are streamed unless a loaded pipeline is asked for."""
    return "pipeline" if prepared.request.engine == "pipeline" else "stream"


def _digests(layout: OutputLayout, baked: Baked) -> dict[Path, FileDigest]:
    return digest_files(layout.stored, baked.digests, by_file(layout.stored))


def _write_texts(
    prepared: PreparedFuse, layout: OutputLayout, place: Path | Output, outputs: Sequence[Output], recipe: Recipe
) -> None:
    """Write the recipe, and into a folder all else that is no weights."""
    if isinstance(place, Output):
        assert layout.draft is not None
        assert place.opened is not None
        write_at(place.opened, memoryview(with_recipe(place.file.header, layout.draft, recipe)), 0)
        return
    if engine_of(prepared) == "stream":
        copy_texts(place, prepared.plan.base, [output.file for output in outputs])
    write_recipe(place, recipe, model_card(recipe))


def _check(
    prepared: PreparedFuse, layout: OutputLayout, outputs: Sequence[Output], done: BytesDone
) -> VerifyReport | None:
    """Look at what was written again. Raises VerificationError."""
    level = prepared.request.check
    if level == OFF:
        return None
    from lorakit_cli.service.streaming import Baking
    from lorakit_cli.service.verifying import verify_files

    plan = prepared.plan
    baking = Baking(plan.base, layout.stored, dict(plan.changes()), ())
    report = verify_files(baking, outputs, level, prepared.request.device, done)
    if not report.sound:
        first = next((f"{one.tensor}: {one.reason}" for one in report.deviations), *report.problems[:1])
        raise VerificationError(
            f"what was written to {prepared.request.out} is not what it should be ({first}), and was removed; are the "
            "disk and the memory of this machine sound?"
        )
    return report


def _report(
    prepared: PreparedFuse,
    layout: OutputLayout,
    baked: Baked,
    hashes: Mapping[Path, str],
    check: VerifyReport | None,
    seconds: float,
) -> FuseReport:
    plan = prepared.plan
    changed: dict[str, int] = {}
    for target, _ in plan.changes():
        changed[target.component] = changed.get(target.component, 0) + 1
    return FuseReport(
        out=str(prepared.request.out),
        base=plan.base.label,
        architecture=base_family(plan.base),
        adapters=tuple(
            FusedAdapter(
                adapter.name,
                adapter.file.path.name,
                hashes[adapter.file.path],
                adapter.weight,
                plan.matched(adapter.name),
            )
            for adapter in plan.adapters
        ),
        scale=prepared.scale,
        changed=changed,
        blocks=tuple(_blocks(baked)),
        files=len(layout.files),
        size=layout.size,
        dtype=prepared.request.dtype,
        engine=engine_of(prepared),
        seconds=seconds,
        check=check,
        warnings=prepared.warnings,
    )


def _blocks(baked: Baked) -> Iterator[BlockChange]:
    """Give how much each block was changed, in the order in which a model runs through them."""
    sums: dict[tuple[str, str], tuple[float, float]] = {}
    for target, amount in baked.amounts.items():
        place = target.component, block_of(target.component, target.tensor)
        base, delta = sums.get(place, (0.0, 0.0))
        sums[place] = base + amount.base, delta + amount.delta
    for component, block in sorted(sums, key=lambda place: block_order(*place)):
        base, delta = sums[component, block]
        yield BlockChange(component, block, (delta / base) ** 0.5 if base else float("inf"))
