"""What `save` is asked for, checked before anything is written, and in which layout each adapter can be kept."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.conversion import convert_layers
from lorakit_cli.core.held import unheld
from lorakit_cli.core.new_layer import NewLayer
from lorakit_cli.core.plan import Plan, PlannedAdapter
from lorakit_cli.errors import OptionError, UnsupportedError
from lorakit_cli.formats.targets import TARGETS
from lorakit_cli.service.output_request import OutputRequest, PreparedOutput, prepare_output, require_output_place

LAYOUT = TARGETS["diffusers"]


@dataclass(frozen=True, slots=True)
class SaveRequest(OutputRequest):
    """A request for a folder with base and adapters, as the user wrote it; `adapters_only` leaves the base out."""

    adapters_only: bool = False


@dataclass(frozen=True, slots=True)
class KeptAdapter:
    """An adapter on its way into the folder: its layers in diffusers' layout, or why it stays in its own."""

    adapter: PlannedAdapter
    layers: tuple[NewLayer, ...]
    reason: str | None = None

    @property
    def layout(self) -> str:
        """The layout that it will be in."""
        return self.adapter.file.formats[0].name if self.reason else LAYOUT.name


@dataclass(frozen=True, slots=True)
class PreparedSave(PreparedOutput):
    """A request for a folder that is known to be possible."""

    request: SaveRequest
    kept: tuple[KeptAdapter, ...]

    def on(self, base: BaseIndex) -> "PreparedSave":
        """Give the same request on a base with the same tensors, such as the copy of one on the Hub."""
        return replace(self, plan=replace(self.plan, base=base))


def prepare_save(request: SaveRequest) -> PreparedSave:
    """Plan a request from headers alone. Raises LorakitError for all that is wrong with it."""
    if request.out is None and not request.dry_run:
        raise OptionError("--out says where to, a folder; --dry-run works without")
    made = prepare_output(request, again="save it with the original base")
    plan = made.plan
    _require_distinct(plan)
    if not request.adapters_only:
        _require_folder(plan)
    kept = tuple(_kept(plan, adapter) for adapter in plan.adapters)
    warnings = (*made.warnings, *_warnings(kept))
    if request.out is not None:
        require_output_place(request, plan, folder=True)
    return PreparedSave(
        request, plan, made.found, made.specs, made.scale, made.earlier, warnings, kept, notes=made.notes
    )


def _require_distinct(plan: Plan) -> None:
    """Refuse names that some file systems cannot tell apart; each becomes a file."""
    names: dict[str, str] = {}
    for adapter in plan.adapters:
        other = names.setdefault(adapter.name.lower(), adapter.name)
        if other != adapter.name:
            raise OptionError(
                f"the adapters {other} and {adapter.name} would be one file where capitals do not count; give one "
                "another name, NAME=SOURCE:WEIGHT"
            )


def _require_folder(plan: Plan) -> None:
    base = plan.base
    if isinstance(base.path, Path) and not base.path.is_dir():
        raise UnsupportedError(
            f"{base.label} is a single file, and a pipeline folder is needed to copy it; --adapters-only keeps the "
            "adapters and refers to it"
        )


def _kept(plan: Plan, adapter: PlannedAdapter) -> KeptAdapter:
    matches = plan.matches[adapter.name]
    for _, reason in unheld(plan.base, matches, LAYOUT):
        return KeptAdapter(adapter, (), f"the {LAYOUT.name} layout {reason}")
    try:
        return KeptAdapter(adapter, convert_layers(adapter.file, plan.base, matches, LAYOUT))
    except UnsupportedError as error:
        return KeptAdapter(adapter, (), str(error))


def _warnings(kept: tuple[KeptAdapter, ...]) -> Iterator[str]:
    for each in kept:
        if each.reason:
            yield f"{each.adapter.name} is kept as it is, for lorakit and not for diffusers: {each.reason}"
        lost = [key for keys in each.adapter.file.embeddings.values() for key in keys] if not each.reason else []
        if lost:
            yield f"{each.adapter.name}: {len(lost)} keys of textual inversions are left out, such as {lost[0]:.200}"
