"""What `generate` is asked for, checked against base and adapters before anything heavy is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lorakit_cli.core import generation
from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.block_scales import BlockScales
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.picture_names import PictureNames
from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.core.plan import Plan
from lorakit_cli.core.prompt_tags import split_tags
from lorakit_cli.core.seeds import choose_seeds
from lorakit_cli.core.shown import shown
from lorakit_cli.core.triggers import read_triggers
from lorakit_cli.core.two_denoisers import only_the_first
from lorakit_cli.errors import OptionError
from lorakit_cli.service.default_adapters import choose_adapters
from lorakit_cli.service.planning import Planned, make_plan
from lorakit_cli.sources.library import open_library
from lorakit_cli.sources.sidecar import read_side_files


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A request for pictures, as the user wrote it."""

    prompt: str
    base: str | None = None
    adapters: Sequence[AdapterSpec] = ()
    scale: float = 1.0
    block_scales: Mapping[str, BlockScales] = field(default_factory=dict)
    negative: str | None = None
    settings: Settings = field(default_factory=Settings)
    seeds: Sequence[str] = ()
    count: int | None = None
    loading: Loading = field(default_factory=Loading)
    variant: str | None = None
    out: str | None = None
    overwrite: bool = False
    strict: bool = False
    allow_pickle: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is known to be possible: what to draw, with what, and where to."""

    request: GenerateRequest
    plan: Plan
    pictures: tuple[PictureSpec, ...]
    names: PictureNames
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def on(self, base: BaseIndex) -> "Prepared":
        """Give the same request on a base with the same tensors, such as the copy of one on the Hub."""
        if base is self.plan.base:
            return self
        # What a copy says about pictures was not read where only headers were.
        said = self.request.settings.filled_from(generation.defaults_of(base))
        generation.check(said, base)
        pictures = tuple(replace(picture, settings=said) for picture in self.pictures)
        return replace(self, plan=replace(self.plan, base=base), pictures=pictures)


def prepare(request: GenerateRequest) -> Prepared:
    """Plan a request from headers and configs alone. Raises LorakitError for all that is wrong with it."""
    for name, text in (("prompt", request.prompt), ("negative prompt", request.negative or "")):
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise OptionError(f"the {name} is not valid UTF-8 text")
    request.loading.check()
    prompt, tagged = split_tags(request.prompt)
    library = open_library()
    chosen = choose_adapters(request.base, [*request.adapters, *tagged], request.scale, library)
    request = replace(request, scale=chosen.scale)
    seeds = tuple(choose_seeds(request.seeds, request.count))
    planned = make_plan(
        request.base,
        chosen.specs,
        scale=request.scale,
        block_scales=request.block_scales,
        strict=request.strict,
        allow_pickle=request.allow_pickle,
        to_load=not request.dry_run,
        variant=request.variant,
        library=chosen.library,
    )
    base = planned.plan.base
    settings = request.settings.filled_from(generation.defaults_of(base))
    generation.check(settings, base)
    names = PictureNames.choose(request.out, prompt, seeds, overwrite=request.overwrite)
    pictures = tuple(PictureSpec(prompt, request.negative, seed, settings) for seed in seeds)
    return Prepared(request, planned.plan, pictures, names, tuple(_warnings(planned, prompt)), planned.notes)


def _warnings(planned: Planned, prompt: str) -> list[str]:
    """Say what the user would want to know: parts without effect, and trigger words that are missing."""
    found: list[str] = []
    for adapter, source in zip(planned.plan.adapters, planned.found, strict=True):
        missed = [part for part in planned.plan.unmatched if part.adapter == adapter.name]
        if missed:
            first = f"{shown(missed[0].stem)}: {missed[0].reason}"
            found.append(
                f"{len(missed)} layers or keys of {adapter.name} have no effect on this base, first {first}; "
                "--dry-run lists them, --strict refuses"
            )
        remark = only_the_first(planned.plan.base, planned.plan.matches[adapter.name])
        if remark:
            found.append(f"{adapter.name}: {remark}")
        file = adapter.file
        # Words that training data only suggest are no reason to warn.
        triggers = source.triggers or read_triggers(file.metadata, read_side_files(file.path)).stated
        if triggers and adapter.weight and not any(word.lower() in prompt.lower() for word in triggers):
            found.append(f"the prompt has no trigger word of {adapter.name}: {', '.join(triggers)}")
    return found
