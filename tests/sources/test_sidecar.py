import json
import os
import time

import pytest

from lorakit_cli.core.stated import CARD, CIVITAI, LONGEST_JSON, MANAGER, PEFT_CONFIG, WEBUI
from lorakit_cli.sources.sidecar import read_side_files

FRONT = """---
base_model: black-forest-labs/FLUX.1-dev
license: other
tags:
- text-to-image
- lora
widget:
  - text: 'instance_prompt: not this one'
    output:
      url: images/a.png
instance_prompt: "a photo of \\"TOK\\", dog"   # what to write
---
# A card
instance_prompt: nor this one
"""


def card(here, text):
    (here / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    side = read_side_files(here / "a.safetensors")
    return side.contents.get(CARD), side.problems


def test_nothing_beside(here):
    side = read_side_files(here / "a.safetensors")
    assert (side.contents, side.problems) == ({}, ())


def test_each_file_is_found_by_the_adapter_s_name(here):
    name = "a.v2.b"
    for suffix, content in ((CIVITAI, {"id": 1}), (WEBUI, {"id": 2}), (MANAGER, {"id": 3})):
        (here / f"{name}{suffix}").write_text(json.dumps(content))
        (here / f"other{suffix}").write_text("{")
    (here / PEFT_CONFIG).write_text("{")
    side = read_side_files(here / f"{name}.safetensors")
    assert side.contents == {CIVITAI: {"id": 1}, WEBUI: {"id": 2}, MANAGER: {"id": 3}}
    assert side.problems == ()


def test_peft_s_config_belongs_to_peft_s_name(here):
    (here / PEFT_CONFIG).write_text('{"r": 8}')
    assert read_side_files(here / "adapter_model.safetensors").contents == {PEFT_CONFIG: {"r": 8}}


def test_the_front_matter_of_a_card(here):
    assert card(here, FRONT) == (
        {
            "base_model": "black-forest-labs/FLUX.1-dev",
            "license": "other",
            "tags": ["text-to-image", "lora"],
            "instance_prompt": 'a photo of "TOK", dog',
        },
        (),
    )
    assert card(here, "\ufeff" + FRONT.replace("\n", "\r\n"))[0]["instance_prompt"] == 'a photo of "TOK", dog'


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("", None),
        ("null", None),
        ("~", None),
        ("'null'", "null"),
        ("123", "123"),
        ("yes", "yes"),
        (">-\n  two\n  lines", "two lines"),
        ("[a, b, [c]]", ["a", "b"]),
        ("{a: b}", None),
        ("!!python/object/apply:os.system ['touch x']", ["touch x"]),
        ("&a {<<: [*a, *a, *a]}", None),
    ],
)
def test_values_in_a_card(here, value, read):
    content, problems = card(here, f"---\ninstance_prompt: {value}\nother: 1\n---\n")
    assert (content, problems) == ({"instance_prompt": read}, ())
    assert sorted(path.name for path in here.iterdir()) == ["README.md"]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("instance_prompt: [a", "cannot be read: "),
        ("instance_prompt: *elsewhere", "cannot be read: "),
        ("instance_prompt: a\x00b", "cannot be read: "),
        ("\n".join(["instance_prompt: [a"] * 9000), "cannot be read: "),
        ("instance_prompt: " + "[" * 8000, "has too many brackets"),
        ("instance_prompt:\n  " + "- " * 3000, "is nested too deeply"),
        ("instance_prompt: " + "x" * 20_000, "is longer than 8 kB"),
    ],
)
def test_a_broken_entry_of_a_card_is_told_once_and_the_others_are_read(here, entry, problem):
    start = time.perf_counter()
    content, problems = card(here, f"---\n{entry}\nlicense: mit\n---\n")
    assert time.perf_counter() - start < 5
    assert content == {"instance_prompt": None, "license": "mit"}
    (told,) = problems
    assert told.startswith(f"README.md: its instance_prompt {problem}")


def test_cards_without_a_front_matter(here):
    assert card(here, "instance_prompt: x\n") == ({}, ())
    assert card(here, "---\ninstance_prompt: x\n" + "y\n" * 500_000) == ({}, ())
    assert card(here, b"---\ninstance_prompt: \xff\n---\n") == ({"instance_prompt": "\N{REPLACEMENT CHARACTER}"}, ())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "a.civitai.info is not JSON: "),
        (b"[]", "a.civitai.info is not a JSON object"),
        (b"[" * 100_000, "a.civitai.info is nested too deeply"),
        (b'{"a": "\xff"}', "a.civitai.info is not UTF-8 text"),
        (b" " * LONGEST_JSON + b"{}", "a.civitai.info is longer than 4 MB"),
    ],
)
def test_broken_json(here, content, problem):
    (here / "a.civitai.info").write_bytes(content)
    (told,) = read_side_files(here / "a.safetensors").problems
    assert told.startswith(problem)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_left_alone(here):
    os.mkfifo(here / "a.civitai.info")
    (here / "a.json").mkdir()
    (here / "README.md").symlink_to("/dev/zero")
    side = read_side_files(here / "a.safetensors")
    assert (side.contents, side.problems) == ({}, ())
