"""Save a base and adapters side by side, unfused: a folder that loads like any other and carries on where it was."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from lorakit_cli.core.base_files import files_of, stored_tensors
from lorakit_cli.core.base_index import BaseTensor
from lorakit_cli.core.bytes_done import BytesDone, Progress
from lorakit_cli.core.disk_space import require_space
from lorakit_cli.core.families import base_family
from lorakit_cli.core.file_digest import FileDigest, digest_files, digest_tensors
from lorakit_cli.core.match import Target
from lorakit_cli.core.output_folder import new_folder
from lorakit_cli.core.recipe import Recipe
from lorakit_cli.core.user_path import user_path
from lorakit_cli.core.weights_file import WeightsFile
from lorakit_cli.service.adapter_files import write_kept
from lorakit_cli.service.baking import Output, bake_files
from lorakit_cli.service.fetching import fetched
from lorakit_cli.service.hashing import sha256_of
from lorakit_cli.service.model_card import model_card
from lorakit_cli.service.output_texts import copy_texts, write_recipe
from lorakit_cli.service.recipes import make_recipe
from lorakit_cli.service.save_report import SavedAdapter, SaveReport
from lorakit_cli.service.save_request import PreparedSave
from lorakit_cli.sources.config import FILE_NAME
from lorakit_cli.sources.config_text import config_text
from lorakit_cli.sources.library import LibraryEntry
from lorakit_cli.sources.local import EMBEDDED, is_embedded
from lorakit_cli.sources.saved_folder import ADAPTERS, VERB, adapter_source

_THREADS = 4
# The base beside the adapters, for a lorakit.toml in the same folder.
_HERE = "."

Remark = Callable[[str], None]


def save(prepared: PreparedSave, progress: Progress | None = None, remark: Remark | None = None) -> SaveReport:
    """Write the folder; a base on the Hub that is to be in it is downloaded first.

    Raises LorakitError; what was there is then as it was before.
    """
    begin = time.monotonic()
    request = prepared.request
    if not request.adapters_only:
        prepared = prepared.on(fetched(prepared.plan.base))
    base, out = prepared.plan.base, request.out
    assert out is not None
    stored = stored_tensors(base) if base.is_local else {}
    files = [] if request.adapters_only else files_of(base, stored)
    size = sum(file.size for file in files) + sum(each.adapter.file.size for each in prepared.kept)
    require_space(out.parent, size)
    done = BytesDone(size, progress)
    with new_folder(out, overwrite=request.overwrite, parents=True, remark=remark) as folder:
        adapters, written = _write_adapters(prepared, folder, done)
        digests = _write_base(prepared, stored, files, folder, done)
        recipe = _recipe(prepared, adapters, digests)
        _write_texts(prepared, recipe, folder)
    return SaveReport(
        out=str(out),
        base=base.label,
        architecture=base_family(base),
        adapters=adapters,
        scale=prepared.scale,
        adapters_only=request.adapters_only,
        files=len(files) + len(adapters),
        size=sum(file.size for file in files) + written,
        seconds=round(time.monotonic() - begin, 2),
        warnings=prepared.warnings,
    )


def _write_adapters(prepared: PreparedSave, folder: Path, done: BytesDone) -> tuple[tuple[SavedAdapter, ...], int]:
    """Write the adapters, and tell what they are now and how many bytes that takes."""
    (folder / ADAPTERS).mkdir()
    saved: list[SavedAdapter] = []
    size = 0
    for each in prepared.kept:
        name = each.adapter.name
        path = folder / adapter_source(name)
        size += write_kept(each, prepared.plan.base, path)
        layers = prepared.plan.matched(name)
        saved.append(
            SavedAdapter(
                name, adapter_source(name), sha256_of(path), each.adapter.weight, each.layout, layers, each.reason
            )
        )
        done(each.adapter.file.size)
    return tuple(saved), size


def _write_base(
    prepared: PreparedSave,
    stored: Mapping[Target, BaseTensor],
    files: Sequence[WeightsFile],
    folder: Path,
    done: BytesDone,
) -> dict[Path, FileDigest]:
    """Copy the base unless it is only referred to, and tell its files from all others."""
    base = prepared.plan.base
    if files:
        outputs = [Output(file, folder / file.name) for file in files]
        digests = bake_files(base, stored, {}, outputs, "cpu", done).digests
        copy_texts(folder, base, files)
    else:
        digests = _digests(stored)
    return digest_files(stored, digests, dict.fromkeys(tensor.local_file for tensor in stored.values()))


def _digests(stored: Mapping[Target, BaseTensor]) -> dict[Target, bytes]:
    files: dict[Path, dict[Target, BaseTensor]] = {}
    for target, tensor in stored.items():
        files.setdefault(tensor.local_file, {})[target] = tensor
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(digest_tensors, files.keys(), files.values())
        return {target: digest for part in parts for target, digest in part.items()}


def _recipe(prepared: PreparedSave, adapters: Sequence[SavedAdapter], digests: Mapping[Path, FileDigest]) -> Recipe:
    hashes = dict.fromkeys((found.path for found in prepared.found), "")
    recipe = make_recipe(VERB, prepared, hashes, digests, engine="copy")
    # What counts from here on is the file in the folder.
    own = tuple(
        replace(adapter, source=saved.file, file=Path(saved.file).name, sha256=saved.sha256)
        for adapter, saved in zip(recipe.adapters, adapters, strict=True)
    )
    return replace(recipe, adapters=own)


def _write_texts(prepared: PreparedSave, recipe: Recipe, folder: Path) -> None:
    base = _reference(prepared) if prepared.request.adapters_only else _HERE
    entries = [
        LibraryEntry(
            adapter.name,
            adapter_source(adapter.name),
            "",
            # Alone, without the recipe, it is to act as strongly as with it.
            adapter.weight * prepared.scale,
            found.triggers,
            base,
            adapter.block_scales,
        )
        for adapter, found in zip(prepared.plan.adapters, prepared.found, strict=True)
    ]
    (folder / FILE_NAME).write_text(config_text(base, entries), encoding="utf-8")
    loaded = [each.adapter.name for each in prepared.kept if not each.reason]
    write_recipe(folder, recipe, model_card(recipe, loaded, elsewhere=prepared.request.adapters_only))


def _reference(prepared: PreparedSave) -> str:
    """Write a base for a lorakit.toml in the folder: a path as absolute or relative as it was given."""
    base, out = prepared.plan.base, prepared.request.out
    assert out is not None
    if is_embedded(base.path):
        return EMBEDDED
    if base.remote or not isinstance(base.path, Path):
        return base.label
    whole = base.path.resolve()
    asked = prepared.request.base
    if asked is None or user_path(asked).is_absolute():
        return whole.as_posix()
    try:
        return Path(os.path.relpath(whole, out.resolve())).as_posix()
    except ValueError:
        # On another drive.
        return whole.as_posix()
