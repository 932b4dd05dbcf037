"""Which files of weights an output has, and where in them every tensor of the base stands."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lorakit_cli.architectures.original_checkpoint import original_checkpoint
from lorakit_cli.core.base_files import files_of, laid_out, stored_tensors
from lorakit_cli.core.base_index import BaseIndex, BaseTensor
from lorakit_cli.core.file_digest import FileDigest
from lorakit_cli.core.header_recipe import metadata_with_room
from lorakit_cli.core.local_folder import LocalFolder
from lorakit_cli.core.match import Target
from lorakit_cli.core.recipe import Recipe
from lorakit_cli.core.tensor_file import read_header
from lorakit_cli.core.tensor_info import SHORT_NAMES
from lorakit_cli.core.weights_file import WeightsFile
from lorakit_cli.service.fuse_request import PreparedFuse
from lorakit_cli.service.recipes import fuse_recipe

_SCHEDULER = "scheduler/scheduler_config.json"
# As long as a real one.
_NO_DIGEST = FileDigest(10**18, "0" * 32)


class OutputLayout(NamedTuple):
    """Every tensor of the base, and the files that are written from them.

    `draft` is the recipe that a single file has room for in its header, None for a folder.
    """

    stored: Mapping[Target, BaseTensor]
    files: tuple[WeightsFile, ...]
    draft: Recipe | None = None

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)


def lay_out(prepared: PreparedFuse, sha256: Mapping[Path, str]) -> OutputLayout:
    """Lay the output of a request out. Raises UnsupportedError for a base that no single file holds."""
    base = prepared.plan.base
    stored = stored_tensors(base)
    dtype = SHORT_NAMES.get(prepared.request.dtype or "")
    if not prepared.as_file:
        return OutputLayout(stored, tuple(files_of(base, stored, dtype=dtype, most=prepared.most)))
    assert prepared.request.out is not None
    name = prepared.request.out.name
    digests = dict.fromkeys((tensor.local_file for tensor in stored.values()), _NO_DIGEST)
    draft = prepared.request.recipe or fuse_recipe(prepared, sha256, digests)
    if isinstance(base.path, Path) and base.path.is_dir():
        file = original_checkpoint(base, name, metadata_with_room({"format": "pt"}, draft), dtype, _scheduler(base))
    else:
        metadata = metadata_with_room(read_header(Path(base.path)).metadata, draft)
        file = laid_out(name, stored, dtype, metadata)
    return OutputLayout(stored, (file,), draft)


def _scheduler(base: BaseIndex) -> Mapping[str, object]:
    folder = LocalFolder(Path(base.path))
    return folder.json(_SCHEDULER) if (folder.path / _SCHEDULER).is_file() else {}
