"""Prove an output later, from its recipe: base and adapters are found again, and every sum is made again."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.bytes_done import BytesDone, Progress
from lorakit_cli.core.tensor_info import FLOATS, SHORT_NAMES
from lorakit_cli.core.user_path import user_path
from lorakit_cli.core.weights_file import WeightsFile
from lorakit_cli.errors import OutputError, RecipeError
from lorakit_cli.service.baking import Output
from lorakit_cli.service.devices import arithmetic, choose_device, is_present
from lorakit_cli.service.fuse_request import FULL, PreparedFuse, prepare_fuse
from lorakit_cli.service.fusing_in_memory import written_files
from lorakit_cli.service.output_layout import OutputLayout, lay_out
from lorakit_cli.service.output_texts import text_problems
from lorakit_cli.service.recalling import Recalled, open_recipe, recall
from lorakit_cli.service.streaming import Baking
from lorakit_cli.service.verify_report import Deviation, VerifyReport
from lorakit_cli.service.verifying import verify_files
from lorakit_cli.sources.library import open_library

_JSON = ".json"


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """An output to be proved; `base` and `adapters` say where these are now, if not where they were."""

    path: Path
    base: str | None = None
    adapters: Sequence[AdapterSpec] = ()
    level: str = FULL
    device: str = "auto"
    allow_pickle: bool = False


def verify(request: VerifyRequest, progress: Progress | None = None) -> VerifyReport:
    """Hold an output against what its recipe says.

    Raises RecipeError where it has none, or where an adapter is not there or not the one it was. A base that is not
    the one it was is a problem in the report.
    """
    begin = time.monotonic()
    path = user_path(str(request.path))
    recipe, beside = open_recipe(path)
    if recipe.verb != "fuse" or (path.suffix == _JSON and path.is_file()):
        raise RecipeError(f"{path} is no fused pipeline; `lorakit verify` takes the folder or file that `fuse` wrote")
    recalled = recall(
        recipe,
        beside,
        open_library(),
        base=request.base,
        adapters=request.adapters,
        changed_base=True,
        allow_pickle=request.allow_pickle,
    )
    prepared = prepare_fuse(recalled.request(None, allow_pickle=request.allow_pickle))
    prepared = replace(prepared, request=replace(prepared.request, out=path))
    recorded = recipe.arithmetic.get("device", "auto")
    device = recorded if request.device == "auto" and is_present(recorded) else request.device
    # Where nothing was added up, nothing can have come out otherwise.
    exact = not recipe.arithmetic or recipe.arithmetic == arithmetic(choose_device(device))
    problems = [f"the base has changed: {name} is not what it was" for name in recalled.base_differs]
    try:
        layout = _layout(prepared)
    except OutputError as error:
        return _unsound(request.level, [*problems, str(error)], time.monotonic() - begin)
    outputs = [Output(file, path if path.is_file() else path / file.name) for file in layout.files]
    plan = prepared.plan
    baking = Baking(plan.base, layout.stored, dict(plan.changes()), ())
    done = BytesDone(layout.size, progress)
    report = verify_files(baking, outputs, request.level, device, done, exact=exact)
    problems += [*report.problems, *_other_dtypes(prepared, layout)]
    # diffusers writes configs of its own.
    if path.is_dir() and recipe.engine == "stream":
        problems += text_problems(path, plan.base, layout.files)
    return replace(
        report,
        sound=not problems and not report.deviations,
        problems=tuple(problems),
        deviations=tuple(_explained(report, recalled)),
        seconds=round(time.monotonic() - begin, 2),
    )


def _layout(prepared: PreparedFuse) -> OutputLayout:
    """Find which base tensor every stretch of the output is. Raises OutputError for what is not the base's."""
    out = prepared.request.out
    assert out is not None
    expected = lay_out(prepared, {})
    if out.is_dir():
        return expected._replace(files=written_files(prepared.plan.base, expected.stored, out))
    return expected._replace(files=tuple(_moved(file, out) for file in expected.files))


def _moved(file: WeightsFile, path: Path) -> WeightsFile:
    """Look for pieces behind the header that a file really has: its recipe may be longer or shorter."""
    with path.open("rb") as opened:
        shift = 8 + int.from_bytes(opened.read(8), "little") - len(file.header)
    return file._replace(pieces=tuple(piece._replace(begin=piece.begin + shift) for piece in file.pieces))


def _other_dtypes(prepared: PreparedFuse, layout: OutputLayout) -> Iterator[str]:
    """Name the first tensor of each file that is not in the dtype it should be."""
    asked = SHORT_NAMES.get(prepared.request.dtype or "")
    for file in layout.files:
        for piece in file.pieces:
            own = layout.stored[piece.target].info.dtype
            wanted = asked if asked and own in FLOATS else own
            if piece.dtype != wanted:
                target = piece.target
                yield f"{file.name}: {target.component}.{target.tensor} is {piece.dtype}, not {wanted}"
                break


def _explained(report: VerifyReport, recalled: Recalled) -> Iterator[Deviation]:
    """Say of tensors in files of the base that changed that this may be why."""
    for deviation in report.deviations:
        component = deviation.tensor.partition(".")[0]
        changed = any(name.partition("/")[0] == component or "/" not in name for name in recalled.base_differs)
        yield replace(deviation, reason=f"{deviation.reason}; the base has changed") if changed else deviation


def _unsound(level: str, problems: Sequence[str], seconds: float) -> VerifyReport:
    return VerifyReport(level, False, True, 0, 0, 0, 0, (), tuple(problems), (), round(seconds, 2))
