"""Show what `inspect` found about one file to a person."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lorakit_cli.commands._output import printable, size_text
from lorakit_cli.core.shown import shown

if TYPE_CHECKING:
    from lorakit_cli.service.inspect_report import Amount, BaseMatch, FileHashes, InspectReport, KeyPlace
    from lorakit_cli.service.scanning import ScanReport
    from lorakit_cli.service.strength import StrengthReport

_MOST_LISTED = 10
_MOST_PROBLEMS = 40
_LABEL = 11
_WIDTH = 110
# What is a sentence or a name gets a line of its own.
_SENTENCES = ("name", "author", "license", "description", "usage_hint", "comment")

_Row = tuple[str, str]


def file_lines(report: "InspectReport") -> list[str]:
    """Write all that is known about one file."""
    lines = [printable(shown(report.path, 1000))]
    for label, text in _rows(report):
        if text:
            lines.append(f"  {label:<{_LABEL}}{printable(text)}")
    for match in report.match:
        lines += _match_lines(match)
    lines += [f"  {'problem':<{_LABEL}}{printable(problem)}" for problem in report.problems[:_MOST_PROBLEMS]]
    if len(report.problems) > _MOST_PROBLEMS:
        lines.append(f"  {'':<{_LABEL}}… and {len(report.problems) - _MOST_PROBLEMS} more; --json lists all")
    if report.strength:
        lines += _strength_lines(report.strength)
    return lines + [_key_line(place) for place in report.keys or ()]


def _rows(report: "InspectReport") -> Iterator[_Row]:
    yield "made for", f"{report.architecture or 'unknown'} ({report.confidence})"
    for reason in report.reasons:
        yield "", reason
    for statement in report.stated_architectures:
        yield "", f"{statement.source} says {statement.text}"
    yield "layout", _counted(report.layouts) if len(report.layouts) > 1 else report.dialect
    yield "algorithm", _counted(report.algorithms)
    yield "layers", f"{report.layers}: {_counted(report.components)}"
    yield "rank", _amounts(report.ranks)
    yield "alpha", _amounts(report.alphas)
    yield "scale", _amounts(report.scales)
    yield "size", f"{size_text(report.size)}, {_counted(report.dtypes, 'tensors')}"
    yield "embeddings", _listed(report.embeddings)
    yield "few steps", report.few_step or ""
    yield from _trigger_rows(report)
    yield from _training_rows(report)
    yield "merged from", ", ".join(report.merge_history.merged_from)
    yield "merged by", report.merge_history.method or ""
    for note in report.merge_history.notes:
        yield "note", note
    yield "beside it", ", ".join(report.beside)
    yield from _hash_rows(report.hashes)
    if report.scan:
        yield "scan", _scan_text(report.scan)


def _trigger_rows(report: "InspectReport") -> Iterator[_Row]:
    """Give the words of each source a line, those that are only suggested by the training data last."""
    sources: dict[tuple[str, bool], list[str]] = {}
    for word in report.triggers_detail.words:
        sources.setdefault((word.source, word.guessed), []).append(word.text)
    for (source, guessed), words in sources.items():
        yield "may listen" if guessed else "triggers", f"{', '.join(words)} ({source})"
    tags = ", ".join(f"{tag.text} {tag.count}" for tag in report.triggers_detail.tags[:_MOST_LISTED])
    more = report.triggers_detail.distinct - _MOST_LISTED
    yield "tags", tags + (f", … {more} more" if more > 0 else "")


def _training_rows(report: "InspectReport") -> Iterator[_Row]:
    facts = report.training.facts()
    for name in _SENTENCES:
        yield name.replace("_", " "), shown(facts.pop(name, ""))
    facts |= {f"network {name}": text for name, text in report.training.network_args.items()}
    label = "training"
    for line in _wrapped([f"{name.replace('_', ' ')} {shown(text)}" for name, text in facts.items()]):
        yield label, line
        label = ""


def _wrapped(parts: Sequence[str]) -> Iterator[str]:
    """Fill lines with parts, none of which is broken."""
    line = ""
    for part in parts:
        if line and len(line) + len(part) + 2 > _WIDTH - _LABEL:
            yield line + ","
            line = part
        else:
            line = f"{line}, {part}" if line else part
    yield line


def _hash_rows(hashes: "FileHashes") -> Iterator[_Row]:
    yield "sha256", hashes.sha256 or ""
    short = {"AutoV1": hashes.auto_v1, "AutoV2": hashes.auto_v2, "AutoV3": hashes.auto_v3}
    yield "", ", ".join(f"{name} {text}" for name, text in short.items() if text)
    yield "", f"sshs_model_hash {hashes.sshs_model_hash}" if hashes.sshs_model_hash else ""
    yield "", f"sshs_legacy_hash {hashes.sshs_legacy_hash}" if hashes.sshs_legacy_hash else ""
    for stated in hashes.stated:
        state = "" if stated.matches is None else " (right)" if stated.matches else " (wrong)"
        yield "states", f"{stated.key} {stated.text}{state}"


def _scan_text(scan: "ScanReport") -> str:
    found = {
        "tensors with NaN or infinity": len(scan.non_finite),
        "layers of zeros": len(scan.zero),
        "too large for fp16": len(scan.too_large),
    }
    text = ", ".join(f"{count} {what}" for what, count in found.items() if count) or "all finite, none of them dead"
    rest = f"; {scan.unjudged} layers follow from the base's values" if scan.unjudged else ""
    return f"{scan.tensors} tensors of {scan.layers} layers: {text}{rest}"


def _match_lines(match: "BaseMatch") -> Iterator[str]:
    yield f"  {'base':<{_LABEL}}{printable(match.base)} ({match.architecture})"
    counts = f": {_counted(match.components)}" if match.components else ""
    yield f"  {'':<{_LABEL}}{'fits' if match.fits else 'does not fit'}: {printable(match.verdict)}"
    yield f"  {'':<{_LABEL}}matched {match.matched} of {match.total} layers{counts}"
    if match.needs_base:
        yield f"  {'':<{_LABEL}}what {match.needs_base} of them change depends on the base's own values"
    for part in match.unmatched[:_MOST_LISTED]:
        near = f" (nearest: {shown(part.nearest)})" if part.nearest else ""
        yield f"  {'':<{_LABEL}}  {printable(shown(part.key))}: {printable(part.reason + near)}"
    if len(match.unmatched) > _MOST_LISTED:
        yield f"  {'':<{_LABEL}}  … and {len(match.unmatched) - _MOST_LISTED} more; --json lists all"


def _strength_lines(strength: "StrengthReport") -> list[str]:
    from lorakit_cli.commands._bars import bars

    what = f"relative to {strength.base}" if strength.base else "Frobenius norms at weight 1"
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    plain = not encoding.lower().startswith("utf")
    width = shutil.get_terminal_size((100, 24)).columns
    return [f"  {'strength':<{_LABEL}}{printable(what)}", *bars(strength.blocks, width, plain=plain)]


def _key_line(place: "KeyPlace") -> str:
    where = f"{shown(place.layer)} ({place.role})" if place.layer else place.role or "no part of an adapter"
    return f"  {printable(shown(place.key))} {place.dtype} {list(place.shape)}: {printable(shown(where))}"


def _counted(counts: Mapping[str, int], unit: str = "") -> str:
    return ", ".join(f"{name} {count}{' ' + unit if unit else ''}" for name, count in counts.items())


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(map(shown, names[:_MOST_LISTED])) + (f", … {more} more" if more > 0 else "")


def _amounts(amounts: Sequence["Amount"]) -> str:
    """Write one value plainly, several each with its number of layers."""
    texts = ["missing" if amount.value is None else f"{amount.value:g}" for amount in amounts]
    if len(texts) == 1:
        return texts[0]
    parts = [f"{text} ×{amount.layers}" for text, amount in zip(texts, amounts, strict=True)]
    more = len(parts) - _MOST_LISTED
    return ", ".join(parts[:_MOST_LISTED]) + (f", … {more} more values" if more > 0 else "")
