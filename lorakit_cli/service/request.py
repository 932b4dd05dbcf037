"""What `generate` is asked for, checked against base and adapters before anything heavy is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.block_scales import BlockScales
from lorakit_cli.core.few_steps import FewSteps
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.loading import Loading
from lorakit_cli.core.picture_names import PictureNames
from lorakit_cli.core.picture_spec import PictureSpec
from lorakit_cli.core.plan import Plan
from lorakit_cli.core.prompt_file import read_prompts
from lorakit_cli.core.prompt_reading import require_readable
from lorakit_cli.core.recipe import Recipe, RecipeBase
from lorakit_cli.core.seeds import choose_seeds, require_not_too_many
from lorakit_cli.errors import OptionError
from lorakit_cli.service.base_configs import find_configs, is_single_file, remark_on
from lorakit_cli.service.default_adapters import Choice, choose_adapters
from lorakit_cli.service.few_step_names import planned_few_steps
from lorakit_cli.service.few_step_settings import Asked, Suited, remarks, suit
from lorakit_cli.service.planning import Planned, make_plan
from lorakit_cli.service.prompt_lines import PromptLine, Triggers, plan_warnings, read_line, require_text
from lorakit_cli.sources.library import Library, open_library

# What a guided model draws is taken for what two runs would give.
_WITHOUT_NEGATIVE = ("FluxPipeline",)


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A request for pictures, as the user wrote it.

    Prompts are one `prompt`, those of `prompt_file`, or that of the picture `again`, which is made once more: what is
    given beside it wins. `changed` lets base and adapters be others than the picture's. `literal`
    takes prompts as they stand; None: unless they have weights, or are too long. `auto_scheduler` takes what suits an
    adapter for few steps where nothing else is asked for. `scaled`: the scale is asked for, even if it is 1.
    """

    prompt: str | None = None
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
    prompt_file: str | None = None
    again: Path | None = None
    changed: bool = False
    add_triggers: bool = False
    literal: bool | None = None
    quality: int | None = None
    auto_scheduler: bool = False
    scaled: bool = False


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of a picture that is made again.

    Its base where that is the one it was, what its adapters were asked for by, and its recipe, which says on what it
    was made.
    """

    base: RecipeBase | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    recipe: Recipe | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """What the weights are to be for some pictures: a plan, the scale in it, what its adapters were asked for by.

    `few_steps` holds those adapters that are made for few steps.
    """

    plan: Plan
    scale: float
    sources: Mapping[str, str]
    few_steps: Mapping[str, FewSteps] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is known to be possible: what to draw, with what, and where to.

    Each picture has those of the `weights` that `weights_of` counts to. `warnings` are what may be wrong, `notes` what
    was done unasked. `asked` are the settings before they were settled.
    """

    request: GenerateRequest
    weights: tuple[Weights, ...]
    pictures: tuple[PictureSpec, ...]
    weights_of: tuple[int, ...]
    names: PictureNames
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    before: Before = field(default_factory=Before)
    asked: Asked = field(default_factory=lambda: Asked(Settings()))

    @property
    def plan(self) -> Plan:
        """The plan of the first picture, of most requests the only one."""
        return self.weights[0].plan

    def on(self, base: BaseIndex) -> "Prepared":
        """Give the same request on a base with the same tensors, such as the copy of one on the Hub."""
        if base is self.plan.base:
            return self
        # What a copy says about pictures was not read where only headers were.
        weights = tuple(replace(each, plan=replace(each.plan, base=base)) for each in self.weights)
        moved = replace(self, weights=weights)
        return moved.with_settings(moved.suited())

    def suited(self) -> list[Suited]:
        """Settle the settings for each of the weights. Raises LorakitError."""
        return [suit(self.asked, each.plan, each.scale, each.few_steps) for each in self.weights]

    def with_settings(self, suited: Sequence[Suited]) -> "Prepared":
        """Give the same pictures with the settings for their weights."""
        pairs = zip(self.pictures, self.weights_of, strict=True)
        pictures = tuple(replace(picture, settings=suited[number].settings) for picture, number in pairs)
        return replace(self, pictures=pictures)


def prepare(request: GenerateRequest) -> Prepared:
    """Plan a request from headers and configs alone. Raises LorakitError for all that is wrong with it."""
    prepared = prepare_unsuited(request)
    suited = prepared.suited()
    notes, warnings = remarks(suited)
    return replace(
        prepared.with_settings(suited),
        warnings=(*prepared.warnings, *warnings),
        notes=(*prepared.notes, *notes),
    )


def prepare_unsuited(request: GenerateRequest) -> Prepared:
    """Do what `prepare` does, but for the settings, which depend on weights: they are what was asked for.

    Raises LorakitError.
    """
    require_text("negative prompt", request.negative or "")
    if request.changed and not request.again:
        raise OptionError("--allow-changed goes with --from, and no picture is made again here")
    library = open_library()
    lines, before, fixed = _prompts(request), Before(), None
    told: tuple[str, ...] = ()
    given = request.settings
    if request.again:
        # Only what reads pictures needs to know how.
        from lorakit_cli.service.remade_request import as_before

        request, before, told, fixed = as_before(request, lines, library)
        lines = lines or [PromptLine(request.prompt or "", ())]
    request.loading.check()
    chosen = [fixed or _chosen(request, line, library) for line in lines]
    planned: dict[tuple[AdapterSpec, ...], Planned] = {}
    for choice in chosen:
        if choice.specs not in planned:
            planned[choice.specs] = _planned(request, choice)
    scales = {choice.specs: choice.scale for choice in chosen}
    base = planned[chosen[0].specs].plan.base
    assumed = _assumed(request, base)
    triggers = Triggers(request.add_triggers)
    prompts = [
        triggers.look_over(line.text, planned[choice.specs], choice.scale)
        for line, choice in zip(lines, chosen, strict=True)
    ]
    if not request.literal:
        require_readable([*prompts, request.negative or ""], base.class_name)
    seeds = choose_seeds(request.seeds, request.count)
    require_not_too_many(len(seeds) * len(prompts))
    numbers = {specs: number for number, specs in enumerate(planned)}
    return Prepared(
        replace(request, scale=chosen[0].scale),
        tuple(
            Weights(each.plan, scales[specs], _sources(specs, before), planned_few_steps(each))
            for specs, each in planned.items()
        ),
        tuple(
            PictureSpec(prompt, request.negative, seed, request.settings, request.literal)
            for prompt in prompts
            for seed in seeds
        ),
        tuple(numbers[choice.specs] for choice in chosen for _ in seeds),
        _names(request, lines, seeds),
        (*told, *_unheard(request, base), *plan_warnings(tuple(planned.values())), *triggers.warnings(len(lines))),
        (*next(iter(planned.values())).notes, *assumed, *triggers.notes()),
        before,
        Asked(given, request.settings if request.again else None, auto=request.auto_scheduler),
    )


def _assumed(request: GenerateRequest, base: BaseIndex) -> tuple[str, ...]:
    """Hold a single file against the configurations it is to have; say what is assumed of it. Raises LorakitError."""
    loading = request.loading
    single = is_single_file(base)
    if loading.config is not None or (single and not request.dry_run):
        find_configs(base, loading.config, ("vae",) if loading.vae else ())
    remark = remark_on(base, request.settings) if single and loading.config is None else None
    return (remark,) if remark else ()


def _unheard(request: GenerateRequest, base: BaseIndex) -> tuple[str, ...]:
    if request.negative and base.class_name in _WITHOUT_NEGATIVE:
        return (f"--negative changes nothing: a {base.class_name} draws from the prompt alone",)
    return ()


def _names(request: GenerateRequest, lines: Sequence[PromptLine], seeds: Sequence[int]) -> PictureNames:
    prompts = [line.text for line in lines]
    return PictureNames.choose_all(request.out, prompts, seeds, overwrite=request.overwrite, quality=request.quality)


def _sources(specs: Sequence[AdapterSpec], before: Before) -> dict[str, str]:
    return {spec.name: spec.source for spec in specs} | dict(before.sources)


def _prompts(request: GenerateRequest) -> list[PromptLine]:
    """Read the prompts that are asked for, none where they are a picture's. Raises OptionError."""
    if request.prompt_file is not None:
        if request.prompt is not None:
            raise OptionError("both PROMPT and --prompt-file are given; leave one out")
        return [read_line(prompt) for prompt in read_prompts(request.prompt_file)]
    if request.prompt is not None:
        return [read_line(request.prompt)]
    if request.again is None:
        raise OptionError("there is nothing to draw: give PROMPT, --prompt-file FILE or --from PICTURE")
    return []


def _chosen(request: GenerateRequest, line: PromptLine, library: Library) -> Choice:
    choice = choose_adapters(request.base, [*request.adapters, *line.tagged], request.scale, library)
    return replace(choice, specs=tuple(choice.specs))


def _planned(request: GenerateRequest, choice: Choice) -> Planned:
    return make_plan(
        request.base,
        choice.specs,
        scale=choice.scale,
        block_scales=request.block_scales,
        strict=request.strict,
        allow_pickle=request.allow_pickle,
        variant=request.variant,
        library=choice.library,
    )
