"""Hold an adapter against a base: how it fits, and what is to be said about the two."""

from collections import Counter
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.families import base_family
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.match import Match
from lorakit_cli.core.matching import match_layers
from lorakit_cli.core.stated import capped
from lorakit_cli.core.two_denoisers import only_the_first
from lorakit_cli.core.verdict import judge
from lorakit_cli.service.inspect_report import MOST_PROBLEM, BaseMatch
from lorakit_cli.service.unmatched_part import UnmatchedPart


class Held(NamedTuple):
    """The layers that fit a base, the report on all of them, and a remark if there is one to be made."""

    matches: tuple[Match, ...]
    report: BaseMatch
    remark: str | None


def hold(file: LoraFile, base: BaseIndex) -> Held:
    """Match the layers of a file with a base and judge the outcome."""
    found, missed = match_layers(base, "", file)
    verdict = judge(base, file, found, missed)
    report = BaseMatch(
        base=base.label,
        architecture=base_family(base),
        fits=verdict.fits,
        verdict=capped(verdict.text, MOST_PROBLEM),
        matched=sum(not match.layer.optional for match in found),
        total=sum(not layer.optional for layer in file.layers),
        needs_base=sum(match.layer.kind.needs_base for match in found),
        components=dict(Counter(match.component for match in found).most_common()),
        unmatched=tuple(UnmatchedPart("", part.stem, part.reason, part.nearest) for part in missed),
    )
    return Held(found, report, only_the_first(base, found))
