"""The prompts of a request: their tags taken out, what they have in common planned once, trigger words looked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.prompt_tags import split_tags
from lorakit_cli.core.shown import shown
from lorakit_cli.core.trigger_words import has_any, with_words
from lorakit_cli.core.triggers import read_triggers
from lorakit_cli.core.two_denoisers import only_the_first
from lorakit_cli.errors import OptionError
from lorakit_cli.service.planning import Planned
from lorakit_cli.sources.sidecar import read_side_files


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One prompt without its tags, and the adapters of these."""

    text: str
    tagged: tuple[AdapterSpec, ...]


def read_line(prompt: str) -> PromptLine:
    """Take the tags out of a prompt. Raises OptionError for text that no file can hold, AdapterSpecError."""
    require_text("prompt", prompt)
    text, specs = split_tags(prompt)
    return PromptLine(text, tuple(specs))


def require_text(name: str, text: str) -> None:
    """Raise OptionError for half a character, which a shell makes of bytes that are no UTF-8."""
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise OptionError(f"the {name} is not valid UTF-8 text")


@dataclass(slots=True)
class Triggers:
    """Look prompts over for the trigger words of their adapters; put missing ones in front, or say which miss them."""

    add: bool
    _missing: dict[tuple[str, tuple[str, ...]], int] = field(default_factory=dict)
    _added: dict[str, None] = field(default_factory=dict)
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def look_over(self, prompt: str, planned: Planned, scale: float) -> str:
        """Give the prompt as it is to be used."""
        add: list[str] = []
        for adapter, words in self._stated(planned).items():
            # Who acts against its training need not be called.
            if scale * _weight(planned, adapter) <= 0 or has_any(", ".join([*add, prompt]), words):
                continue
            if self.add:
                add += words
                self._added |= dict.fromkeys(words)
            else:
                key = adapter, words
                self._missing[key] = self._missing.get(key, 0) + 1
        return with_words(prompt, add) if add else prompt

    def warnings(self, prompts: int) -> list[str]:
        """Say of which adapters all trigger words are missing."""
        who = "the prompt has" if prompts == 1 else "in {} of {} prompts there is"
        return [
            f"{who.format(count, prompts)} no trigger word of {name}: {', '.join(words)}; --add-triggers puts them in"
            for (name, words), count in self._missing.items()
        ]

    def notes(self) -> list[str]:
        """Say what was put in."""
        return [f"added to the prompt: {', '.join(self._added)}"] if self._added else []

    def _stated(self, planned: Planned) -> Mapping[str, tuple[str, ...]]:
        """Give the trigger words of the adapters that act."""
        found = {}
        for adapter, source in zip(planned.plan.adapters, planned.found, strict=True):
            key = f"{adapter.name} {adapter.file.path}"
            if key not in self._known:
                # Words that training data only suggest are no reason to warn.
                stated = read_triggers(adapter.file.metadata, read_side_files(adapter.file.path)).stated
                self._known[key] = tuple(source.triggers or stated)
            if self._known[key] and adapter.weight:
                found[adapter.name] = self._known[key]
        return found


def _weight(planned: Planned, name: str) -> float:
    return next(adapter.weight for adapter in planned.plan.adapters if adapter.name == name)


def plan_warnings(planned: Sequence[Planned]) -> list[str]:
    """Say which parts of adapters are without effect."""
    found: list[str] = []
    for each in planned:
        for adapter in each.plan.adapters:
            missed = [part for part in each.plan.unmatched if part.adapter == adapter.name]
            if missed:
                first = f"{shown(missed[0].stem)}: {missed[0].reason}"
                applied = sum(each.plan.matched(adapter.name).values())
                found.append(
                    f"{len(missed)} layers or keys of {adapter.name} have no effect on this base, {applied} have; "
                    f"first {first}; --dry-run lists them, --strict refuses"
                )
            remark = only_the_first(each.plan.base, each.plan.matches[adapter.name])
            if remark:
                found.append(f"{adapter.name}: {remark}")
    return list(dict.fromkeys(found))
