import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.tiny import rewrite, save_adapter


def test_the_library(lorakit, adapters, here):
    (here / "lorakit.toml").write_text(
        f'adapters_dir = "{adapters}"\n[adapters.mine]\nsource = "{adapters}/ink.safetensors"\nweight = 0.5\n'
        'triggers = ["ink style", "ink"]\n[adapters.gone]\nsource = "./gone.safetensors"\n'
    )
    report = json.loads(lorakit("list-adapters", "--json").stdout)
    assert report.keys() == {"schema", "base", "adapters", "components"}
    assert (report["schema"], report["base"], report["components"]) == ("lorakit/list-adapters/1", None, None)
    rows = {row["name"]: row for row in report["adapters"]}
    assert list(rows) == ["gone", "ink", "mine", "pixel", "toy", "wash"]
    assert rows["ink"].keys() == {
        "name", "source", "origin", "architecture", "algorithms", "ranks", "weight", "triggers", "size", "layers",
        "touches", "problem", "cached", "few_step",
    }  # fmt: skip
    mine = rows["mine"]
    assert (mine["origin"], mine["weight"], mine["triggers"]) == (str(here / "lorakit.toml"), 0.5, ["ink style", "ink"])
    assert (mine["ranks"], mine["algorithms"], mine["layers"], mine["touches"]) == ([4], ["lora"], 188, None)
    assert mine["size"] == (adapters / "ink.safetensors").stat().st_size
    assert (rows["wash"]["origin"], rows["toy"]["origin"]) == (str(adapters), "embedded")
    assert "there is no adapter file" in rows["gone"]["problem"]
    text = lorakit("list-adapters").stdout.splitlines()
    assert text[0].split() == ["NAME", "MADE", "FOR", "ALGORITHM", "RANK", "SIZE", "TRIGGERS", "FROM", "SOURCE"]
    assert [line.split()[0] for line in text[1:]] == list(rows)
    assert "ink style, ink" in text[3]


def test_what_each_touches_in_a_base(lorakit, base, adapters, here, tmp_path):
    save_adapter(tmp_path / "other.safetensors", seed=1, width=96, targets=["attn2.to_k"], text=False)
    (here / "lorakit.toml").write_text(
        f'adapters_dir = "{adapters}"\n[adapters.other]\nsource = "{tmp_path}/other.safetensors"\n'
    )
    report = json.loads(lorakit("list-adapters", "-b", base, "--json").stdout)
    # The embedded adapters fit no other base.
    assert report["components"] == {"text_encoder": ["ink"], "unet": ["ink", "wash"]}
    rows = {row["name"]: row for row in report["adapters"]}
    assert rows["ink"]["touches"] == {"text_encoder": 8, "unet": 180}
    assert rows["wash"]["touches"] == {"unet": 132}
    assert rows["other"]["touches"] == {}
    assert "this adapter is for lorakit demo" in rows["other"]["problem"]
    lines = lorakit("list-adapters", "--base", base).stdout.splitlines()
    assert "text_encoder 8, unet 180" in lines[1]
    assert "nothing" in lines[2]
    assert lines[-2:] == ["text_encoder: ink", "unet: ink, wash"]


def test_only_those_named(lorakit, base, adapters):
    result = lorakit("list-adapters", "--base", base, "--lora", f"x={adapters}/wash.safetensors:0.5", "--json")
    (row,) = json.loads(result.stdout)["adapters"]
    assert (row["name"], row["weight"], row["touches"], row["origin"]) == ("x", 0.5, {"unet": 132}, "file")


def test_errors(lorakit, here):
    result = lorakit("list-adapters", "--lora", "pixl")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no adapter is called 'pixl'; did you mean pixel")
    (here / "lorakit.toml").write_text("[adapters.a]\nsource = 3\n")
    result = lorakit("list-adapters")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "lorakit.toml, line 2: adapters.a.source: must be text, not 3" in result.stderr


def test_hostile_metadata_does_not_reach_the_terminal(lorakit, here):
    import torch
    from safetensors.torch import save_file

    tensors = {"unet.a.lora_A.weight": torch.ones(1, 2), "unet.a.lora_B.weight": torch.ones(2, 1)}
    save_file(tensors, here / "a.safetensors", {"modelspec.trigger_phrase": "\x1b[31mred\x07"})
    (here / "lorakit.toml").write_text('adapters_dir = "."')
    result = lorakit("list-adapters")
    assert "\x1b" not in result.stdout
    assert "[31mred" in result.stdout


def test_triggers_of_files_beside_an_adapter_are_shown(lorakit, adapters, here):
    rewrite(adapters / "ink.safetensors", here / "a.safetensors", lambda tensors: tensors)
    (here / "a.civitai.info").write_text(json.dumps({"trainedWords": ["civ word"]}))
    (here / "lorakit.toml").write_text('adapters_dir = "."')
    rows = {row["name"]: row for row in json.loads(lorakit("list-adapters", "--json").stdout)["adapters"]}
    assert rows["a"]["triggers"] == ["civ word"]


@pytest.fixture
def remote(hub, adapters, here):
    """A library with adapters on the Hub, of which none is here."""
    (here / "one").mkdir()
    shutil.copy(adapters / "ink.safetensors", here / "one")
    hub.commit = hub.add("someone/ink", here / "one")
    hub.add("someone/many", adapters)
    (here / "lorakit.toml").write_text(
        '[adapters.ink]\nsource = "someone/ink"\nweight = 0.5\ntriggers = ["ink"]\n'
        '[adapters.wash]\nsource = "someone/many/wash.safetensors"\n'
        '[adapters.any]\nsource = "hf:someone/many@main"\n'
        '[adapters.page]\nsource = "https://host/a.safetensors"\n'
    )


def test_what_is_elsewhere_is_listed_and_not_asked_for(lorakit, hub, base, remote):
    def rows(*options):
        return {row["name"]: row for row in json.loads(lorakit("list-adapters", *options, "--json").stdout)["adapters"]}

    for options in ((), ("--base", base)):
        before = rows(*options)
        assert {name: row["cached"] for name, row in before.items()} == {
            "any": False, "ink": False, "page": False, "pixel": None, "toy": None, "wash": False,
        }  # fmt: skip
        assert (before["ink"]["source"], before["ink"]["size"], before["ink"]["problem"]) == ("someone/ink", None, None)
        assert (before["ink"]["weight"], before["ink"]["triggers"], before["ink"]["touches"]) == (0.5, ["ink"], None)
    line = next(line for line in lorakit("list-adapters").stdout.splitlines() if line.startswith("ink "))
    assert "not downloaded" in line
    assert hub.requests == []
    # Named, it is fetched, and from then on all of it is known without a request.
    report = json.loads(lorakit("list-adapters", "--base", base, "--lora", "ink", "--json").stdout)
    assert report["adapters"][0]["touches"] == {"text_encoder": 8, "unet": 180}
    hub.requests.clear()
    after = rows("--base", base)
    assert hub.requests == []
    assert (after["ink"]["cached"], after["wash"]["cached"]) == (True, False)
    assert after["ink"]["source"] == f"hf:someone/ink@{hub.commit}/ink.safetensors"
    assert after["ink"]["touches"] == {"text_encoder": 8, "unet": 180}
    assert f" hf:someone/ink@{hub.commit[:7]}/ink.safetensors" in lorakit("list-adapters").stdout


def test_where_several_were_seen_it_says_so(lorakit, hub, remote):
    lorakit("inspect", "someone/many/ink.safetensors")
    hub.requests.clear()
    report = json.loads(lorakit("list-adapters", "--json").stdout)
    problems = {row["name"]: row["problem"] for row in report["adapters"]}
    assert "several adapters, name one: hf:someone/many@main/ink.safetensors" in problems["any"]
    assert hub.requests == []


def test_a_terminal_gets_a_table_that_fits(adapters):
    reading, writing = pytest.importorskip("pty").openpty()
    command = [sys.executable, "-m", "lorakit_cli", "list-adapters"]
    variables = os.environ | {"LORAKIT_ADAPTERS": str(adapters), "COLUMNS": "100", "TERM": "xterm"}
    done = subprocess.Popen(command, stdout=writing, env=variables)
    os.close(writing)
    text = b""
    try:
        while piece := os.read(reading, 65536):
            text += piece
    except OSError:
        # The other side is closed.
        pass
    assert done.wait() == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()
    assert all(len(line) <= 100 for line in plain)
    assert plain[0].split()[0] == "NAME"
    assert {line.split()[0] for line in plain[1:] if line[:1].strip()} == {"ink", "pixel", "toy", "wash"}
