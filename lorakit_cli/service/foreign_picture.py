"""Take over what the A1111 web UI, or a program that writes as it does, says about a picture, as far as that goes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lorakit_cli.core.adapter_spec import AdapterSpec, name_from
from lorakit_cli.core.generation import Settings
from lorakit_cli.core.infotext import Infotext, parse_infotext
from lorakit_cli.core.numbers import finite
from lorakit_cli.core.option_values import options_from
from lorakit_cli.core.prompt_tags import split_foreign_tags
from lorakit_cli.core.schedulers import from_web_ui
from lorakit_cli.core.seeds import LARGEST
from lorakit_cli.core.shown import shown
from lorakit_cli.errors import LorakitError, RecipeError
from lorakit_cli.service.adapter_digests import auto_v3_of
from lorakit_cli.sources.library import Library
from lorakit_cli.sources.local import find_adapter

# Written by every program, and nothing that a picture depends on, or read here.
_SILENT = ("Version", "Lora hashes", "Model", "Model hash", "Schedule type", "Hashes", "TI hashes", "User")
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
_WHOLE = re.compile(r"\d{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ForeignPicture:
    """What could be taken over, and in `warnings` what could not."""

    prompt: str
    negative: str | None
    seed: int | None
    settings: Settings
    adapters: tuple[AdapterSpec, ...]
    warnings: tuple[str, ...]


def recall_foreign(text: str, given: Sequence[AdapterSpec], library: Library, beside: Path) -> ForeignPicture:
    """Read such a text. Its tags are looked for in the library, then by hash and by name around; `given` replace them.

    Raises RecipeError for a text that cannot be read.
    """
    try:
        said = parse_infotext(text)
    except ValueError as error:
        raise RecipeError(f"what the picture says about how it was made {error}") from error
    prompt, tags = split_foreign_tags(said.prompt)
    warnings: list[str] = []
    adapters = tuple(given)
    if not given:
        hashes = _hashes(said.parameters.get("Lora hashes", ""))
        found = [(name, _adapter(name, weight, hashes, library, beside)) for name, weight in tags]
        adapters = tuple(spec for _, spec in found if spec)
        warnings += [
            f"there is no adapter {shown(name)!r} in the library or around; it is left out, --lora PATH:WEIGHT adds it"
            for name, spec in found
            if spec is None
        ]
    values, rest = _settings(said)
    model = said.parameters.get("Model") or said.parameters.get("Model hash")
    if model:
        warnings.append(f"it was made with the model {shown(model)!r}; --base chooses what is drawn with")
    if rest:
        warnings.append(f"not taken over: {', '.join(shown(f'{name} {value}', 80) for name, value in rest.items())}")
    seed = said.parameters.get("Seed", "")
    return ForeignPicture(
        prompt,
        said.negative or None,
        int(seed) if _WHOLE.fullmatch(seed) and int(seed) <= LARGEST else None,
        options_from(Settings, values),
        adapters,
        tuple(warnings),
    )


def _settings(said: Infotext) -> tuple[dict[str, Any], dict[str, str]]:
    """Give the parameters as values of settings, and those that cannot be."""
    values: dict[str, Any] = {}
    rest: dict[str, str] = {}
    for name, text in said.parameters.items():
        taken = name in _SILENT or (name == "Seed" and _WHOLE.fullmatch(text)) or (name == "Clip skip" and text == "1")
        with suppress(ValueError):
            for value in _values(name, text, said.parameters):
                _require(value)
                values |= value
                taken = True
        if not taken:
            rest[name] = text
    return values, rest


def _values(name: str, text: str, parameters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield what a parameter means for settings. Raises ValueError."""
    if name == "Steps":
        yield {"steps": int(text)}
    elif name == "CFG scale":
        yield {"guidance": finite(float(text))}
    elif name == "Size" and (size := _SIZE.fullmatch(text)):
        yield {"width": int(size[1]), "height": int(size[2])}
    elif name == "Clip skip" and int(text) > 1:
        yield {"clip_skip": int(text)}
    elif name == "Sampler" and (sampler := from_web_ui(text, parameters.get("Schedule type", ""))):
        value: dict[str, Any] = {"scheduler": sampler.class_name}
        yield value | ({"scheduler_options": dict(sampler.options)} if sampler.options else {})


def _require(values: Mapping[str, Any]) -> None:
    """Raise ValueError for values that settings do not have."""
    known = {field.name for field in fields(Settings)}
    if not known.issuperset(values):
        raise ValueError
    options_from(Settings, values)


def _hashes(text: str) -> dict[str, str]:
    """Read `name: hash, name: hash`."""
    pairs = (entry.rpartition(":") for entry in text.split(","))
    return {name.strip(): digest.strip().lower() for name, _, digest in pairs if name}


def _adapter(name: str, weight: float, hashes: Mapping[str, str], library: Library, beside: Path) -> AdapterSpec | None:
    """Find the adapter of a tag, None where it is not to be found."""
    plain = name_from(name + ".safetensors")
    if name in library.entries:
        return AdapterSpec(name, weight)
    wanted = hashes.get(name)
    files = {entry: path for entry in library.entries for path in _file(entry, library)}
    folders = dict.fromkeys((beside, Path().absolute()))
    around = [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]
    for file in (*files.values(), *around):
        with suppress(LorakitError):
            if wanted and auto_v3_of(file)[: len(wanted)] == wanted and len(wanted) >= 8:
                return AdapterSpec(str(file), weight, plain)
    for file in (*files.values(), *around):
        if file.stem == name:
            return AdapterSpec(str(file), weight, plain)
    return AdapterSpec(plain, weight) if plain in library.entries else None


def _file(name: str, library: Library) -> Iterator[Path]:
    with suppress(LorakitError):
        yield find_adapter(AdapterSpec(name), library).path
