"""What threads find while they look at an output, gathered."""

from collections.abc import Mapping
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

from lorakit_cli.service.verify_report import Deviation, Survival, VerifyReport

_UNTOUCHED = "no adapter changes it, yet it is not the base's"


class Kept(NamedTuple):
    """Of one adapter's deltas: their squared norm, and what rounding added along them (a negative number: took)."""

    delta: float = 0.0
    rounded: float = 0.0


class Findings:
    """Deviations and sums; any thread may add to them."""

    def __init__(self, *, exact: bool) -> None:
        self.exact = exact
        self.problems: list[str] = []
        self.tensors = self.unchanged = self._replayed = self._values = 0
        self._deviations: dict[str, Deviation] = {}
        self._kept: dict[str, Kept] = {}
        self._lock = Lock()

    def untouched(self, tensor: str, differing: int, size: int) -> None:
        """Note that bytes of a tensor differ that should be the base's."""
        with self._lock:
            known = self._deviations.get(tensor, Deviation(tensor, 0, 0, None, _UNTOUCHED))
            self._deviations[tensor] = replace(known, differing=known.differing + differing, values=known.values + size)

    def replayed(self, values: int, deviation: Deviation | None, kept: Mapping[str, Kept]) -> None:
        """Note what came of the sums of one tensor."""
        with self._lock:
            self._replayed += values > 0
            self._values += values
            if deviation:
                self._deviations[deviation.tensor] = deviation
            for name, own in kept.items():
                known = self._kept.get(name, Kept())
                self._kept[name] = Kept(known.delta + own.delta, known.rounded + own.rounded)

    def report(self, level: str, seconds: float) -> VerifyReport:
        """Give it all as a report."""
        deviations = sorted(self._deviations.values(), key=lambda found: found.tensor)
        return VerifyReport(
            level=level,
            sound=not deviations and not self.problems,
            exact=self.exact,
            tensors=self.tensors,
            unchanged=self.unchanged,
            replayed=self._replayed,
            values=self._values,
            deviations=tuple(deviations),
            problems=tuple(self.problems),
            survival=tuple(
                Survival(name, 1 + own.rounded / own.delta) for name, own in self._kept.items() if own.delta
            ),
            seconds=round(seconds, 2),
        )
