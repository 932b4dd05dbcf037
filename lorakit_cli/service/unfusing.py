"""Undo a fused pipeline: its base copied, where that is at hand, else the adapters subtracted."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lorakit_cli.core.base_files import files_of, stored_tensors
from lorakit_cli.core.base_index import BaseTensor
from lorakit_cli.core.bytes_done import BytesDone, Progress
from lorakit_cli.core.disk_space import require_space
from lorakit_cli.core.file_copy import copy_file
from lorakit_cli.core.file_digest import digest_files
from lorakit_cli.core.header_metadata import with_metadata
from lorakit_cli.core.match import Target
from lorakit_cli.core.output_file import new_file
from lorakit_cli.core.output_folder import new_folder
from lorakit_cli.core.recipe import RECIPE_FILE, RECIPE_KEY, settings_text
from lorakit_cli.core.weights_file import WeightsFile
from lorakit_cli.errors import RecipeError
from lorakit_cli.service.baking import Baked, Output, bake_files
from lorakit_cli.service.output_texts import copy_texts
from lorakit_cli.service.unfuse_report import ErrorBound, UnfuseReport
from lorakit_cli.service.unfuse_request import PreparedUnfuse

Remark = Callable[[str], None]
_Stored = Mapping[Target, BaseTensor]


def unfuse(prepared: PreparedUnfuse, progress: Progress | None = None, remark: Remark | None = None) -> UnfuseReport:
    """Write the base. Raises LorakitError; the output then is as it was before."""
    begin = time.monotonic()
    request = prepared.request
    stored = stored_tensors(prepared.index)
    files = _files(prepared, stored)
    size = sum(file.size for file in files)
    require_space(request.out.parent, size)
    done = BytesDone(size, progress)
    if prepared.is_folder:
        with new_folder(request.out, overwrite=request.overwrite, parents=True, remark=remark) as folder:
            bound = _write(prepared, stored, [Output(file, folder / file.name) for file in files], done)
            _write_texts(folder, prepared, files)
    else:
        with new_file(request.out, overwrite=request.overwrite, parents=True, remark=remark) as made:
            bound = _write(prepared, stored, [Output(file, Path(made.name), made.fileno()) for file in files], done)
    return UnfuseReport(
        source=str(request.source),
        out=str(request.out),
        base=prepared.recipe.base.source if prepared.plan else prepared.index.label,
        exact=prepared.plan is None,
        adapters=tuple(adapter.name for adapter in prepared.recipe.adapters),
        files=len(files),
        size=size,
        error_bound=bound,
        seconds=round(time.monotonic() - begin, 2),
        warnings=prepared.warnings,
    )


def _files(prepared: PreparedUnfuse, stored: _Stored) -> list[WeightsFile]:
    """Lay the files out; a single file that is no copy of the base loses the recipe that undoing takes away."""
    files = files_of(prepared.index, stored)
    if prepared.is_folder or prepared.plan is None:
        return files
    earlier = prepared.recipe.base.recipe
    return [with_metadata(file, RECIPE_KEY, earlier.text() if earlier else None) for file in files]


def _write(prepared: PreparedUnfuse, stored: _Stored, outputs: Sequence[Output], done: BytesDone) -> ErrorBound | None:
    """Write the files of weights; say how near they come to the base's, None: they are its own."""
    changes = dict(prepared.plan.changes()) if prepared.plan else {}
    # Nothing but sums on the same kind of device is the same to the last bit.
    device = "cpu" if prepared.recipe.arithmetic.get("device") == "cpu" else "auto"
    baked = bake_files(prepared.index, stored, changes, outputs, device, done)
    if prepared.plan is None:
        _require_same(prepared, stored, baked)
        return None
    # What is only copied needs no torch.
    from lorakit_cli.service.rounding import error_bound

    paths = {piece.target: output.path for output in outputs for piece in output.file.pieces}
    return error_bound(stored, changes, paths, rounded_whole=prepared.recipe.dtype is not None)


def _require_same(prepared: PreparedUnfuse, stored: _Stored, baked: Baked) -> None:
    """Raise RecipeError where what was copied is not what was found: somebody has written to it meanwhile."""
    copied = digest_files(stored, baked.digests, dict.fromkeys(tensor.local_file for tensor in stored.values()))
    if sorted(copied.values()) != sorted(prepared.recipe.base.files.values()):
        raise RecipeError(f"{prepared.index.path} has changed since it was held against the recipe; try again")


def _write_texts(folder: Path, prepared: PreparedUnfuse, files: Sequence[WeightsFile]) -> None:
    """Write all that is no weights; of what a base says about itself that which it said before."""
    source = prepared.index.path
    assert isinstance(source, Path)
    copy_texts(folder, prepared.index, files)
    earlier = prepared.recipe.base.recipe
    # The adapters that were saved beside a base are not given back with it.
    if earlier and earlier.verb == "save":
        earlier = earlier.base.recipe
    elif prepared.plan is None and (source / RECIPE_FILE).is_file():
        copy_file(source / RECIPE_FILE, folder / RECIPE_FILE)
        return
    if earlier or prepared.recipe.generate:
        said = earlier.text() if earlier else settings_text(prepared.recipe.generate)
        (folder / RECIPE_FILE).write_text(said, encoding="utf-8")
