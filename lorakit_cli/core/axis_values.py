"""The values of a grid's axis as people write them: numbers and ranges, seeds, texts, adapters by pattern."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path

from lorakit_cli.core.adapter_spec import AdapterSpec
from lorakit_cli.core.seeds import parse_seeds
from lorakit_cli.core.user_path import user_path
from lorakit_cli.errors import OptionError, PathError, UnknownAdapterError, did_you_mean

MOST = 10_000
"""The most values that an axis, and the most cells that a grid may have."""
_SEPARATOR = "|"
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class AxisValue:
    """One value of an axis, and the text that stands for it."""

    text: str
    value: object


def numbers(axis: str, text: str, *, whole: bool = False) -> list[AxisValue]:
    """Read `0,0.5,1` and ranges with their step, `0:1:0.25`, both ends included. Raises OptionError."""
    found: list[AxisValue] = []
    for item in _items(axis, text):
        for number in _range(axis, item):
            if whole and number != number.to_integral_value():
                raise OptionError(f"--axis {axis}: {item} is not a whole number")
            value = int(number) if whole else float(number)
            found.append(AxisValue(f"{number.normalize():f}" if number else "0", value))
            _require_few(axis, len(found))
    return found


def seeds(axis: str, text: str) -> list[AxisValue]:
    """Read `1,2,3` and ranges such as `1-5`. Raises OptionError."""
    try:
        found = parse_seeds(_items(axis, text))
    except OptionError as error:
        raise OptionError(str(error).replace("--seed", f"--axis {axis}", 1)) from error
    return [AxisValue(str(seed), seed) for seed in found]


def words(axis: str, text: str) -> list[AxisValue]:
    """Read names with commas between them."""
    return [AxisValue(item, item) for item in _items(axis, text)]


def texts(axis: str, text: str, *, empty: bool = False) -> list[AxisValue]:
    """Read texts with `|` between them, or the lines of `@FILE` that are not blank. Raises OptionError.

    `empty`: a text may be empty where it stands between bars.
    """
    if text.startswith("@"):
        found = [line.strip() for line in _lines(axis, text[1:]) if line.strip()]
    else:
        found = [part.strip() for part in text.split(_SEPARATOR)]
    if not found or not (empty or all(found)):
        raise OptionError(f"--axis {axis}: there is an empty text; texts are written a{_SEPARATOR}b, or @FILE")
    _require_few(axis, len(found))
    return [AxisValue(part, part) for part in found]


def adapters(axis: str, text: str) -> list[AxisValue]:
    """Read adapter specs with commas between them; a path may be a pattern, whose files come in natural order.

    Raises AdapterSpecError, UnknownAdapterError for a pattern without a file.
    """
    specs = [one for item in _items(axis, text) for one in _expanded(AdapterSpec.parse(item))]
    _require_few(axis, len(specs))
    several = len({spec.name for spec in specs}) == len(specs)
    return [AxisValue(_spec_text(spec) if several else str(spec), spec) for spec in specs]


def _items(axis: str, text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise OptionError(f"--axis {axis}={text[:80]}: a value is missing; values are written {axis}=A,B,C")
    return items


def _range(axis: str, item: str) -> Iterator[Decimal]:
    parts = item.split(":")
    try:
        ends = [Decimal(part) for part in parts]
    except InvalidOperation:
        ends = []
    if len(ends) not in (1, 3) or not all(end.is_finite() and abs(end) < Decimal("1e300") for end in ends):
        raise OptionError(
            f"--axis {axis}: {item[:80]!r} is neither a number nor a range FIRST:LAST:STEP such as 0:1:0.25"
        )
    if len(ends) == 1:
        yield ends[0]
        return
    first, last, step = ends
    if not step or (last - first) / step < 0:
        raise OptionError(f"--axis {axis}: {item[:80]} never arrives; the step must lead from {first} to {last}")
    if (last - first) / step >= MOST:
        raise OptionError(f"--axis {axis}: {item[:80]} has more than {MOST} values")
    yield from (first + k * step for k in range(int((last - first) / step) + 1))


def _lines(axis: str, source: str) -> list[str]:
    try:
        return user_path(source).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise OptionError(f"--axis {axis}: {source} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise OptionError(f"--axis {axis}: {source} is not text in UTF-8") from error


def _expanded(spec: AdapterSpec) -> list[AdapterSpec]:
    if not _WILD.search(spec.source):
        return [spec]
    try:
        if user_path(spec.source).exists():
            return [spec]
    except PathError:
        return [spec]
    pattern = user_path(spec.source)
    above = Path(pattern.anchor)
    found = sorted(map(str, above.glob(str(pattern.relative_to(above)))), key=_natural)
    if not found:
        folder = pattern.parent
        near = did_you_mean(pattern.name, (file.name for file in folder.iterdir())) if folder.is_dir() else ""
        raise UnknownAdapterError(f"no file is called {spec.source}{near}")
    if spec.alias and len(found) > 1:
        raise OptionError(f"{spec}: {len(found)} adapters cannot all be called {spec.alias}; leave {spec.alias}= out")
    # A bare file name would be read as one too, but what a pattern finds is never a name of the library.
    return [replace(spec, source=path if re.search(r"[\\/]", path) else f"./{path}") for path in found]


def _spec_text(spec: AdapterSpec) -> str:
    return spec.name if spec.weight is None else f"{spec.name}:{spec.weight:g}"


def _natural(path: str) -> list[tuple[int, str]]:
    """Order file-2 before file-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]


def _require_few(axis: str, count: int) -> None:
    if count > MOST:
        raise OptionError(f"--axis {axis} has more than {MOST} values")
