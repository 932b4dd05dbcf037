"""Suggest the settings that adapters for few steps are made for, or take them over where that is asked for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.base_scheduler import predicts_flow, scheduler_config
from lorakit_cli.core.few_steps import LITTLE_GUIDANCE, Advice, FewSteps, advice_for, few_steps_of
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.plan import Plan
from lorakit_cli.core.schedulers import find_sampler, scheduler_words
from lorakit_cli.errors import OptionError
from lorakit_cli.service.few_step_names import base_names
from lorakit_cli.service.settling import settle

_PARTS = ("scheduler", "steps", "guidance")
# So many times the weight that an adapter is made for is said to be too much.
_TOO_MUCH = 2


@dataclass(frozen=True, slots=True)
class Suited:
    """Settings for a plan, complete, with what is to be said about them."""

    settings: Settings
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """The settings that were asked for, those of a picture that is made again in `before`; `auto` lets advice in."""

    settings: Settings
    before: Settings | None = None
    auto: bool = False

    def with_advice(self, advice: Settings | None = None) -> Settings:
        """Complete what was given from advice, then from the picture."""
        whole = self.settings if advice is None else self.settings.filled_from(advice)
        return whole if self.before is None else whole.filled_from(self.before)


def suit(asked: Asked, plan: Plan, scale: float, known: Mapping[str, FewSteps]) -> Suited:
    """Settle settings for a plan whose adapters' kinds are `known`, those without weight left out of account.

    Raises OptionError where adapters contradict each other and `auto` would have to choose, and what `settle` raises.
    """
    base, given, flow = plan.base, asked.settings, predicts_flow(plan.base)
    usual = settle(asked.with_advice(), base)
    weights = {each.name: each.weight * scale for each in plan.adapters}
    kinds = {name: known[name] for name, weight in weights.items() if name in known and weight > 0}
    of_base = few_steps_of(base_names(base), base=True)
    if not kinds and of_base:
        kinds = {"the base": of_base}
    steps = given.steps if asked.auto else None
    advised = {name: advice_for(kind, flow=flow, steps=steps) for name, kind in kinds.items()}
    wanted = {name: advice for name, advice in advised.items() if advice}
    told = {name: _told(name, kinds[name]) for name in wanted}
    suited = _suited(asked, usual, told, wanted, kinds, base)
    strong = [
        f"{told[name]}: it is made for a weight of {advice.weight:g}, and has more here"
        for name, advice in wanted.items()
        if advice.weight and weights.get(name, 0.0) > _TOO_MUCH * advice.weight
    ]
    return replace(suited, warnings=(*suited.warnings, *strong))


def _suited(
    asked: Asked,
    usual: Settings,
    told: Mapping[str, str],
    wanted: Mapping[str, Advice],
    kinds: Mapping[str, FewSteps],
    base: BaseIndex,
) -> Suited:
    """Take the advice that is wanted, or say what it is; `usual` are the settings without."""
    given, flow = asked.settings, predicts_flow(base)
    if not wanted:
        none = "no adapter here is known to be for few steps; --auto-scheduler changes nothing"
        return Suited(usual, (none,) if asked.auto else ())
    (name, advice), *rest = wanted.items()
    open_ = [part for part in _PARTS if getattr(given, part) is None]
    others = [other for other, needs in rest if any(_part(needs, part) != _part(advice, part) for part in open_)]
    if others:
        needs = "; ".join(f"{told[each]}: {_options(wanted[each])}" for each in (name, *others))
        text = f"adapters for few steps that need different settings: {needs}"
        if asked.auto:
            options = ", ".join(f"--{part}" for part in open_)
            raise OptionError(f"{text}; leave one out, or choose with {options}")
        return Suited(usual, warnings=(f"{text}; leave one out",))
    if asked.auto:
        filled = asked.with_advice(_as_settings(advice, given, flow=flow))
        applied = _options(advice, [part for part in open_ if _part(advice, part) is not None])
        done = f"--auto-scheduler takes {applied}" if applied else "--auto-scheduler changes nothing that is given"
        return Suited(settle(filled, base), (f"{told[name]}: {done}",))
    if not _differs(usual, advice, kinds[name], base, flow=flow):
        return Suited(usual)
    return Suited(usual, (f"{told[name]}: {_options(advice)} suits it; --auto-scheduler applies it",))


def remarks(suited: Iterable[Suited]) -> tuple[list[str], list[str]]:
    """Give the notes and the warnings of several, each once."""
    all_of = list(suited)
    notes = dict.fromkeys(note for each in all_of for note in each.notes)
    warnings = dict.fromkeys(warning for each in all_of for warning in each.warnings)
    return list(notes), list(warnings)


def _told(name: str, kind: FewSteps) -> str:
    what = "base" if name == "the base" else "adapter"
    return f"{name} is a few-step {what} ({kind.kind}, by {kind.where})"


def _part(advice: Advice, part: str) -> Any:
    return (advice.scheduler, dict(advice.options)) if part == "scheduler" else getattr(advice, part)


def _options(advice: Advice, parts: Sequence[str] = _PARTS) -> str:
    """Write some parts of advice as options of the command line."""
    scheduler, options = (advice.scheduler, advice.options) if "scheduler" in parts else (None, {})
    steps, guidance = (getattr(advice, part) if part in parts else None for part in ("steps", "guidance"))
    return " ".join(scheduler_words(scheduler, options, steps, guidance))


def _as_settings(advice: Advice, given: Settings, *, flow: bool) -> Settings:
    """Give advice as settings, its scheduler by the name that was given for the same one."""
    scheduler, options = advice.scheduler, advice.options
    if given.scheduler is not None:
        same = scheduler is not None and _class(given.scheduler, flow=flow) == _class(scheduler, flow=flow)
        scheduler, options = given.scheduler, options if same else {}
    return Settings(steps=advice.steps, guidance=advice.guidance, scheduler=scheduler, scheduler_options=options)


def _class(name: str, *, flow: bool) -> str:
    return find_sampler(name, flow=flow).class_name


def _differs(settings: Settings, advice: Advice, kind: FewSteps, base: BaseIndex, *, flow: bool) -> bool:
    """Tell whether settings are others than those of the advice, as far as that matters."""
    config = scheduler_config(base) or {}
    if advice.scheduler is not None:
        own = config.get("_class_name")
        used = own if settings.scheduler is None else _class(settings.scheduler, flow=flow)
        options = config | dict(settings.scheduler_options)
        if used != _class(advice.scheduler, flow=flow) or any(
            options.get(name, value) != value for name, value in advice.options.items()
        ):
            return True
    steps, guidance = settings.steps, settings.guidance
    if steps is None or (steps != kind.steps if kind.steps else steps > 2 * advice.steps):
        return True
    if advice.guidance is None:
        return False
    return guidance is None or (advice.guidance <= LITTLE_GUIDANCE < guidance)
