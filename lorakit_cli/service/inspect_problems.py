"""What is wrong with an adapter file, or would surprise its user: one line each."""

from collections.abc import Iterator, Sequence

from lorakit_cli.core.audit import audit
from lorakit_cli.core.families import adapter_family
from lorakit_cli.core.lora_file import LoraFile
from lorakit_cli.core.recognition import Recognition
from lorakit_cli.core.shown import shown
from lorakit_cli.core.stated_architecture import StatedArchitecture

UNKNOWN_MODEL = "no model that lorakit knows has modules of these names and shapes; --base tells whether it fits one"


def fatal_problems(file: LoraFile) -> list[str]:
    """List what keeps a file from being applied as it is meant."""
    return [problem.text for problem in file.problems if problem.fatal]


def remarks(file: LoraFile, recognition: Recognition, stated: Sequence[StatedArchitecture]) -> Iterator[str]:
    """Say what else is the matter."""
    for problem in file.problems:
        if not problem.fatal:
            yield problem.text
    if recognition.confidence == "ambiguous":
        yield f"its keys do not tell {recognition.name} apart; --base decides"
    yield from _contradictions(recognition, stated)
    yield from _alphas(file)
    if file.unknown_keys:
        yield f"{len(file.unknown_keys)} keys are no part of an adapter, such as {shown(file.unknown_keys[0])}"
    architecture = recognition.candidates[0].architecture.name if recognition.candidates else adapter_family(file)
    yield from audit(file, architecture)


def _contradictions(recognition: Recognition, stated: Sequence[StatedArchitecture]) -> Iterator[str]:
    """Say where a statement about the model is at odds with the shapes, which alone count."""
    if recognition.confidence not in ("certain", "ambiguous"):
        return
    known = {name for candidate in recognition.candidates for name in (candidate.architecture.name, candidate.size)}
    for statement in stated:
        if statement.family and statement.family not in known:
            yield (
                f"{statement.source} says {statement.text!r}, which is {statement.family}, but its shapes are those of "
                f"{recognition.name}; the shapes count"
            )


def _alphas(file: LoraFile) -> Iterator[str]:
    scaled = [layer for layer in file.layers if layer.rank]
    zero = [layer for layer in scaled if layer.alpha == 0]
    if zero:
        yield (
            f"{len(zero)} layers have alpha 0 and so no effect, such as {shown(zero[0].stem)}; kohya's trainer reads 0 "
            "as the rank"
        )
    missing = sum(layer.alpha is None for layer in scaled)
    if 0 < missing < len(scaled):
        yield f"{missing} layers have no alpha, others do; a missing alpha is taken as rank, so scale 1"
