import json

from tests.tiny import rewrite, save_adapter


def test_the_library(lorakit, adapters, here):
    (here / "lorakit.toml").write_text(
        f'adapters_dir = "{adapters}"\n[adapters.mine]\nsource = "{adapters}/ink.safetensors"\nweight = 0.5\n'
        'triggers = ["ink style", "ink"]\n[adapters.gone]\nsource = "./gone.safetensors"\n'
    )
    report = json.loads(lorakit("list-adapters", "--json").stdout)
    assert report.keys() == {"schema", "base", "adapters"}
    assert (report["schema"], report["base"]) == ("lorakit/list-adapters/1", None)
    rows = {row["name"]: row for row in report["adapters"]}
    assert list(rows) == ["gone", "ink", "mine", "pixel", "toy", "wash"]
    assert rows["ink"].keys() == {
        "name", "source", "origin", "architecture", "algorithms", "ranks", "weight", "triggers", "size", "layers",
        "touches", "problem",
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
    rows = {row["name"]: row for row in json.loads(lorakit("list-adapters", "-b", base, "--json").stdout)["adapters"]}
    assert rows["ink"]["touches"] == {"text_encoder": 8, "unet": 180}
    assert rows["wash"]["touches"] == {"unet": 132}
    assert rows["other"]["touches"] == {}
    assert "this adapter is for lorakit demo" in rows["other"]["problem"]
    lines = lorakit("list-adapters", "--base", base).stdout.splitlines()
    assert "text_encoder 8, unet 180" in lines[1]
    assert "nothing" in lines[2]


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
