"""Read the files that other programs leave beside an adapter: what CivitAI knows, notes of a web UI, a model card."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakit_cli.core.late import late
from lorakit_cli.core.stated import BESIDE, CARD, LONGEST_JSON, PEFT_CONFIG, SideFiles, capped, parse_json

_LONGEST_CARD = 256 * 1024
_LONGEST_ENTRY = 8 * 1024
_MOST_BRACKETS = 200
_FRONT_MATTER = late(r"---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
# The part of a card that is of use here; the widget's pictures and prompts are most of the rest.
_CARD_KEYS = ("instance_prompt", "base_model", "license", "tags")
_CARD_ENTRY = late(rf"^({'|'.join(_CARD_KEYS)})[ \t]*:.*(?:\n(?:[ \t-].*)?$)*", re.MULTILINE)


def read_side_files(path: Path) -> SideFiles:
    """Read what lies beside an adapter file, each up to a few megabytes. Never raises.

    These are `<name>.civitai.info`, `<name>.metadata.json` and `<name>.json` beside `<name>.safetensors`; the README.md
    of its folder, of which the front matter counts; and peft's adapter_config.json where the adapter has peft's name.
    """
    contents: dict[str, Mapping[str, object]] = {}
    problems: list[str] = []
    for kind in BESIDE:
        beside = path.parent / (kind if kind in (CARD, PEFT_CONFIG) else path.stem + kind)
        if kind == PEFT_CONFIG and path.stem != "adapter_model":
            continue
        try:
            # Anything but a file could block, or never end.
            if not beside.is_file():
                continue
            content = _card(beside, problems) if kind == CARD else _json_object(beside)
        except OSError as error:
            problems.append(f"{beside.name} cannot be read: {error.strerror or error}")
        except ValueError as error:
            problems.append(f"{beside.name} {error}")
        else:
            contents[kind] = content
    return SideFiles(contents, tuple(problems))


def read_card(path: Path) -> Mapping[str, object]:
    """Read the front matter of a model card, what of it can be read. Never raises."""
    try:
        return _card(path, []) if path.is_file() else {}
    except OSError:
        return {}


def _json_object(path: Path) -> Mapping[str, object]:
    with path.open("rb") as file:
        data = file.read(LONGEST_JSON + 1)
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def _card(path: Path, problems: list[str]) -> Mapping[str, object]:
    """Read the front matter of a model card; entries that cannot be read are left out and told.

    https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    with path.open("rb") as file:
        text = file.read(_LONGEST_CARD).decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    front = _FRONT_MATTER.match(text)
    if not front:
        return {}
    entries: dict[str, object] = {}
    for entry in _CARD_ENTRY.finditer(front[1]):
        if entry[1] in entries:
            continue
        entries[entry[1]] = None
        try:
            entries[entry[1]] = _yaml_value(entry[0])
        except ValueError as error:
            problems.append(f"{CARD}: its {entry[1]} {error}")
    return entries


def _yaml_value(entry: str) -> object:
    """Read one `key: value` of YAML whose value is text, a list of texts or nothing.

    Each entry is read on its own and without building objects from it: an alias to what stands elsewhere, and a
    merge that multiplies itself, have nothing to take hold of.
    """
    import yaml

    if len(entry) > _LONGEST_ENTRY:
        raise ValueError(f"is longer than {_LONGEST_ENTRY // 1024} kB")
    # PyYAML looks far ahead of each bracket that stays open.
    if entry.count("[") + entry.count("{") > _MOST_BRACKETS:
        raise ValueError("has too many brackets")
    try:
        node: Any = yaml.compose(entry, Loader=yaml.SafeLoader)
        value = node.value[0][1]
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or "is no YAML"
        raise ValueError(f"cannot be read: {capped(str(reason), 80)}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if isinstance(value, yaml.SequenceNode):
        return [item.value for item in value.value if isinstance(item, yaml.ScalarNode)]
    is_text = isinstance(value, yaml.ScalarNode) and not value.tag.endswith(":null")
    return value.value if is_text else None
