"""Say whether an adapter fits a base, and if not, what is the matter."""

from collections.abc import Sequence
from typing import NamedTuple

from lorakit_cli.core.base_index import BaseIndex
from lorakit_cli.core.families import adapter_family, base_family, wrong_base
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.match import Match
from lorakit_cli.core.matching import Unmatched
from lorakit_cli.core.shown import shown


class Verdict(NamedTuple):
    """Whether every layer fits; `wrong`: whether the base is plainly another model than the adapter's."""

    fits: bool
    wrong: bool
    text: str


def judge(base: BaseIndex, file: LoraFile, matches: Sequence[Match], unmatched: Sequence[Unmatched]) -> Verdict:
    """Judge how the layers of an adapter came out against a base."""
    mistake = wrong_base(file, base)
    if mistake:
        return Verdict(False, True, mistake)
    missed = [part for part in unmatched if not part.loose]
    total = len(matches) + len(missed)
    first = f"{shown(missed[0].stem)}: {missed[0].reason}" if missed else "it has no layers"
    if not matches:
        family = adapter_family(file)
        made_for = f"this adapter is for {family}; the base is {base_family(base)}; " if family else ""
        return Verdict(False, True, f"{made_for}nothing matches ({first})")
    conflicts = sum(part.reason.startswith("wrong shape") for part in missed)
    if conflicts >= len(matches):
        text = f"{conflicts} of its {total} layers have other shapes than the base's; this is another size ({first})"
        return Verdict(False, True, text)
    if missed:
        return Verdict(False, False, f"{len(missed)} of its {total} layers do not fit, first {first}")
    return Verdict(True, False, f"all {total} layers fit")
