"""`lorakit inspect` on several files, folders and the folders of peft."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lorakit_cli.commands._inspect_table import table_lines
from lorakit_cli.service.inspect_report import UnreadableFile
from tests.inspected import FIELDS
from tests.pickles import saved
from tests.tiny import rewrite

UNET_LAYERS = 180


def test_several_files_are_a_table(lorakit, look, base, adapters):
    result = lorakit("inspect", adapters / "ink.safetensors", adapters / "wash.safetensors", "--base", base)
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["FILE", "MADE", "FOR", "LAYOUT", "ALGORITHM", "LAYERS", "RANK", "SIZE", "FITS", "PROBLEM"]
    assert [row.split()[0] for row in rows] == ["ink.safetensors", "wash.safetensors"]
    assert (result.exit_code, result.stderr) == (0, "")
    code, report = look(adapters / "ink.safetensors", adapters / "wash.safetensors")
    assert (code, report.keys(), report["schema"]) == (0, {"schema", "files"}, "lorakit/inspect/1")
    assert [Path(file["path"]).name for file in report["files"]] == ["ink.safetensors", "wash.safetensors"]
    assert all(file.keys() == FIELDS - {"schema"} for file in report["files"])


def test_a_folder_is_all_its_adapter_files_and_one_broken_one_hides_none(lorakit, look, adapters, here):
    rewrite(adapters / "ink.safetensors", here / "a.safetensors", lambda tensors: tensors)
    (here / "b.safetensors").write_bytes(b"<html>")
    (here / "c.pt").write_bytes(saved({"a": torch.ones(2)}))
    (here / "notes.txt").write_text("no adapter")
    (here / "d.safetensors").mkdir()
    result = lorakit("inspect", here)
    rows = result.stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["a.safetensors", "b.safetensors", "c.pt"]
    assert "is a web page" in rows[1]
    assert "is a pickle file" in rows[2]
    assert all(len(row) <= 120 for row in rows)
    assert (result.exit_code, result.stderr) == (1, "error: 2 of 3 files cannot be used as they are\n")
    code, report = look(here)
    assert (code, report["files"][0]["usable"]) == (1, True)
    assert report["files"][1].keys() == {"path", "problem"}


def test_a_table_stays_within_its_width():
    rows = table_lines([UnreadableFile("/x/" + "long-" * 30 + "name.safetensors", "no " * 300)], 120)
    assert all(len(row) <= 120 for row in rows)
    assert rows[1].startswith("long-long-")
    assert "-name.safetensors"[-14:] in rows[1]
    assert rows[1].endswith("…")


def test_a_peft_folder_is_one_adapter(look, adapters, here):
    tensors = load_file(adapters / "ink.safetensors")
    unet = {
        f"base_model.model.{name.removeprefix('unet.')}": value.clone()
        for name, value in tensors.items()
        if name.startswith("unet.")
    }
    save_file(unet, here / "adapter_model.safetensors")
    (here / "adapter_model.bin").write_bytes(saved(unet))
    (here / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 2}))
    code, report = look(here)
    assert (report["dialect"], report["layers"]) == ("peft", UNET_LAYERS)
    assert report["scales"] == [{"value": 0.5, "layers": UNET_LAYERS}]
    assert report["beside"] == ["adapter_config.json"]
    assert code == 0
