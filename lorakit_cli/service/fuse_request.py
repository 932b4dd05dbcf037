"""What `fuse` is asked for, checked against base, adapters and the place for the output before anything is written."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.plan import Plan
from lorakit_cli.core.recipe import Recipe
from lorakit_cli.core.tensor_info import SHORT_NAMES
from lorakit_cli.errors import OptionError, OutputError, RecipeError
from lorakit_cli.service.hashing import sha256_of
from lorakit_cli.service.output_request import OutputRequest, PreparedOutput, prepare_output, require_output_place

ENGINES = ("auto", "stream", "pipeline")
OFF, SAMPLE, FULL = "off", "sample", "full"
CHECKS = (OFF, SAMPLE, FULL)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]i?B)", re.IGNORECASE)
_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SINGLE_FILE = ".safetensors"


@dataclass(frozen=True, slots=True)
class FuseRequest(OutputRequest):
    """A request for a fused pipeline, as the user wrote it. `check`: how much of the result is looked at again.

    `recipe`: it is of what that says, which the output is to say again.
    """

    components: Sequence[str] = ()
    dtype: str | None = None
    max_shard_size: str | None = None
    engine: str = "auto"
    device: str = "auto"
    check: str = SAMPLE
    again: bool = False
    recipe: Recipe | None = None


@dataclass(frozen=True, slots=True)
class PreparedFuse(PreparedOutput):
    """A request for a fused pipeline that is known to be possible."""

    request: FuseRequest

    @property
    def as_file(self) -> bool:
        """Whether the output is a single file."""
        return self.request.out is not None and self.request.out.suffix.lower() == SINGLE_FILE

    @property
    def most(self) -> int | None:
        """The size above which files of weights are parted, None: they are as large as the base's."""
        return _bytes(self.request.max_shard_size)

    def on(self, base: BaseIndex) -> "PreparedFuse":
        """Give the same request on a base with the same tensors, such as the copy of one on the Hub."""
        return replace(self, plan=replace(self.plan, base=base))


def prepare_fuse(request: FuseRequest) -> PreparedFuse:
    """Plan a request from headers alone. Raises LorakitError for all that is wrong with it."""
    for option, value, known in (
        ("--dtype", request.dtype, SHORT_NAMES),
        ("--engine", request.engine, ENGINES),
        ("--verify", request.check, CHECKS),
    ):
        if value is not None and value not in known:
            raise OptionError(f"{option} {value}: choose one of {', '.join(known)}")
    _bytes(request.max_shard_size)
    if request.out is None and not request.dry_run:
        raise OptionError("--out says where to, a folder or a file in .safetensors; --dry-run works without")
    again = None if request.again else "fuse into the original base, or add it once more with --again"
    made = prepare_output(request, components=request.components, again=again, recipe=request.recipe)
    prepared = PreparedFuse(
        request, made.plan, made.found, made.specs, made.scale, made.earlier, made.warnings, notes=made.notes
    )
    if not request.again:
        _require_once(prepared.plan)
    if request.out is not None:
        _require_place(prepared)
    return prepared


def _require_once(plan: Plan) -> None:
    """Raise RecipeError for an adapter that is asked for twice, under two names."""
    sizes = Counter(adapter.file.size for adapter in plan.adapters)
    known: dict[str, str] = {}
    # Files of different sizes need not be read to be told apart.
    for adapter in (adapter for adapter in plan.adapters if sizes[adapter.file.size] > 1):
        first = known.setdefault(sha256_of(adapter.file.path), adapter.name)
        if first != adapter.name:
            raise RecipeError(
                f"{first} and {adapter.name} are one adapter, which would be in it twice; give it once, or with --again"
            )


def _require_place(prepared: PreparedFuse) -> None:
    request, base = prepared.request, prepared.plan.base
    assert request.out is not None
    if request.engine == "pipeline" and prepared.as_file:
        raise OptionError("--engine pipeline writes a folder; single files are streamed")
    if request.max_shard_size and prepared.as_file:
        raise OptionError("--max-shard-size is for a folder; a single file is not parted")
    single = isinstance(base.path, Path) and base.path.is_file()
    if single and not prepared.as_file:
        raise OutputError(
            f"{base.label} is a single file and becomes one: --out {request.out}{SINGLE_FILE} or another name in "
            f"{SINGLE_FILE}"
        )
    require_output_place(request, prepared.plan, folder=not prepared.as_file)


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if not size:
        raise OptionError(f"--max-shard-size {text}: write a size such as 5GB or 800MB")
    return size
