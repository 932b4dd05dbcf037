"""Write the tables into this folder from what the libraries build, or with `--check` see that they are current.

Run as `python -m lorakit_cli.architectures.tables.write`. The models are built without their weights.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping

import diffusers
import torch
import transformers

from lorakit_cli.architectures.tables import HERE, TEXT_ENCODERS, WIDTHS, published
from lorakit_cli.core.architecture import Shape, expand, row_widths

_NUMBER = re.compile(r"\d+")


def tensors(model: published.Model) -> dict[str, Shape]:
    """Name the floating tensors that the model saves; one that has two names goes by its first."""
    with torch.device("meta"):
        if hasattr(diffusers, model.class_name):
            built = getattr(diffusers, model.class_name)(**model.config)
        else:
            kind = getattr(transformers, model.class_name)
            built = kind(kind.config_class(**model.config))
    seen: dict[int, str] = {}
    saved = built.state_dict(keep_vars=True)
    return {
        name: tuple(tensor.shape)
        for name, tensor in saved.items()
        if tensor.is_floating_point() and seen.setdefault(id(tensor), name) == name
    }


def compress(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Write runs of numbered modules that are alike as one name, so that `expand` gives the names back."""
    table = {tuple(name.split(".")): shape for name, shape in shapes.items()}
    for place in reversed(range(max(map(len, table)))):
        table = dict(_join(table, place))
    return {".".join(parts): shape for parts, shape in table.items()}


def _join(table: Mapping[tuple[str, ...], Shape], place: int) -> Iterator[tuple[tuple[str, ...], Shape]]:
    """Join the names that differ only in their number at a place, where the numbers follow one another."""
    alike: dict[object, list[tuple[str, ...]]] = {}
    for parts, shape in table.items():
        numbered = len(parts) > place and _NUMBER.fullmatch(parts[place])
        group = (parts[:place], parts[place + 1 :], shape) if numbered else parts
        alike.setdefault(group, []).append(parts)
    for names in alike.values():
        if len(names) == 1:
            yield names[0], table[names[0]]
            continue
        numbers = sorted(int(parts[place]) for parts in names)
        for first, last in _runs(numbers):
            text = f"{{{first}-{last}}}" if last > first else str(first)
            yield (*names[0][:place], text, *names[0][place + 1 :]), table[names[0]]


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    first = last = numbers[0]
    for number in numbers[1:]:
        if number > last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


def tables() -> Iterator[tuple[str, str]]:
    """Make every file: its name without ending, and its text."""
    shared = {name: _table(model) for name, model in published.TEXT_ENCODERS.items()}
    yield TEXT_ENCODERS, _text(shared)
    widths: dict[str, dict[str, list[int]]] = {}
    for name, sizes in published.ARCHITECTURES.items():
        # A shared text encoder is told by its name.
        written = {
            size: {part: model if isinstance(model, str) else _table(model) for part, model in parts.items()}
            for size, parts in sizes.items()
        }
        yield name, _text(written)
        widths[name] = {
            size: sorted(row_widths({p: shared[t] if isinstance(t, str) else t for p, t in parts.items()}))
            for size, parts in written.items()
        }
    yield WIDTHS, _text(widths)


def _table(model: published.Model) -> dict[str, Shape]:
    """Make the table of a model."""
    shapes = tensors(model)
    table = compress(shapes)
    if expand(table) != shapes:
        raise RuntimeError(f"{model.class_name} is not what its table says")
    return table


def _text(value: object, indent: str = "") -> str:
    """Write JSON with a line for every tensor."""
    if not isinstance(value, dict):
        return json.dumps(value)
    inner = indent + " "
    lines = (f"{inner}{json.dumps(key)}: {_text(part, inner)}" for key, part in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}" + ("" if indent else "\n")


def main() -> None:
    """Write the tables; with --check only compare."""
    for name, text in tables():
        path = HERE / f"{name}.json"
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.name} is not current; run `make tables`")


if __name__ == "__main__":
    main()
