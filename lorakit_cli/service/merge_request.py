"""What to merge: the adapters found and read, options checked, before anything is computed."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.block_scales import BlockScales
from lorakit_cli.core.merge_method import MergeSettings
from lorakit_cli.core.merge_slots import Merged
from lorakit_cli.core.rank_rule import RankRule
from lorakit_cli.core.target_layout import TargetLayout
from lorakit_cli.errors import OptionError
from lorakit_cli.service.adapter_digests import digest_of
from lorakit_cli.service.adapter_scales import adapter_scales
from lorakit_cli.service.new_layouts import layout_for
from lorakit_cli.service.reading import open_adapter
from lorakit_cli.service.written_adapter import require_adapter_place
from lorakit_cli.sources.library import open_library
from lorakit_cli.sources.local import find_adapters


class MergeRequest(NamedTuple):
    """Which adapters to merge, how, and where to; `out` None only looks at them."""

    specs: Sequence[AdapterSpec]
    out: Path | None
    settings: MergeSettings
    rule: RankRule
    block_scales: Mapping[str, BlockScales]
    to: str | None = None
    dtype: str | None = None
    base: str | None = None
    overwrite: bool = False
    allow_pickle: bool = False


class MergeInput(NamedTuple):
    """One adapter with its trigger words and, as soon as it has been read, the sha256 of its file."""

    adapter: Merged
    triggers: tuple[str, ...]
    digest: "Future[str] | None"


class PreparedMerge(NamedTuple):
    """A request with the adapters read and the layout chosen."""

    request: MergeRequest
    inputs: tuple[MergeInput, ...]
    target: TargetLayout

    @property
    def adapters(self) -> list[Merged]:
        """The adapters."""
        return [each.adapter for each in self.inputs]


def prepare_merge(request: MergeRequest) -> PreparedMerge:
    """Find and read the adapters; their files are hashed while other work goes on.

    Raises LorakitError for all that is wrong with the request.
    """
    if not request.specs:
        raise OptionError("name the adapters to merge, for example --lora toy:0.8 --lora pixel:0.5")
    scales = adapter_scales(request.specs, request.block_scales)
    found = find_adapters(request.specs, open_library(), allow_pickle=request.allow_pickle)
    if not any(adapter.weight for adapter in found):
        raise OptionError("all weights are 0, so that nothing would be left")
    adapters = [
        Merged(
            adapter.name,
            open_adapter(adapter.path, allow_pickle=request.allow_pickle),
            adapter.weight,
            scales.get(adapter.name, adapter.block_scales),
            (),
        )
        for adapter in found
    ]
    target = layout_for(adapters[0].file, request.to, request.out)
    digests: list[Future[str] | None] = [None] * len(found)
    if request.out is not None:
        paths = [adapter.path for adapter in found]
        require_adapter_place(request.out, target.name, paths, request.base, overwrite=request.overwrite)
        pool = ThreadPoolExecutor(1)
        digests = [pool.submit(digest_of, adapter.path) for adapter in found]
        pool.shutdown(wait=False)
    inputs = [
        MergeInput(adapter, where.triggers, digest)
        for adapter, where, digest in zip(adapters, found, digests, strict=True)
    ]
    return PreparedMerge(request, tuple(inputs), target)
