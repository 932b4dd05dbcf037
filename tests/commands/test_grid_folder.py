"""The folder of a grid: taken up where a run stopped, and never somebody's other things."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands.conftest import names


@pytest.fixture
def grid(lorakit, base, adapters):
    def run(*arguments, out="out"):
        lora = ("-l", f"{adapters}/ink.safetensors", "--axis", "ink=0,0.5,1")
        return lorakit("grid", "--base", base, "--steps", 2, "--out", out, *lora, *arguments, "a red heart")

    return run


def files(folder="out"):
    return {path.name: path.stat().st_mtime_ns for path in (Path(folder) / "cells").iterdir()}


def contents(folder="out"):
    return {path.name: path.read_bytes() for path in (Path(folder) / "cells").iterdir()}


def test_what_is_there_is_kept_and_what_is_missing_drawn(grid):
    assert grid().stderr == "drew 3 pictures\n"
    first, bytes_of = files(), contents()
    assert grid().stderr == "drew 0 pictures, kept 3 that were there\n"
    assert files() == first
    (Path("out") / "cells" / "ink=1.png").unlink()
    cut = Path("out") / "cells" / "ink=0.png"
    cut.write_bytes(cut.read_bytes()[:-5])
    assert grid("--dry-run").stdout.splitlines()[2] == "3 cells, 1 of them there already; 3 states of the weights"
    assert grid().stderr == "drew 2 pictures, kept 1 that were there\n"
    assert contents() == bytes_of
    assert files()["ink=0.5.png"] == first["ink=0.5.png"]
    wider = grid("--axis", "seed=0,1")
    assert wider.stderr == "drew 6 pictures\n"
    assert grid().stderr == "drew 0 pictures, kept 3 that were there\n"


def test_changed_settings_adapters_and_bases_are_drawn_anew(grid, lorakit, base, adapters, tmp_path):
    own = shutil.copytree(base, tmp_path / "own")
    shutil.copy(adapters / "ink.safetensors", "x.safetensors")

    def run(*more):
        lora = ("-l", "x.safetensors", "--axis", "x=0,1", "--base", own, "--out", "out")
        return lorakit("grid", "--steps", 2, *lora, *more, "a red heart").stderr

    assert run() == "drew 2 pictures\n"
    before = contents()
    assert run("--guidance", 2) == "drew 2 pictures\n"
    assert all(before[name] != after for name, after in contents().items())
    shutil.copy(adapters / "wash.safetensors", "x.safetensors")
    assert run("--guidance", 2) == "drew 2 pictures\n"
    assert run("--guidance", 2) == "drew 0 pictures, kept 2 that were there\n"
    config = own / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.011"))
    assert run("--guidance", 2) == "drew 2 pictures\n"


def test_overwrite_draws_all_anew_and_only_in_a_grid(grid):
    assert grid("--axis", "seed=1-2").exit_code == 0
    assert grid("--overwrite").stderr == "drew 3 pictures\n"
    assert set(files()) == {"ink=0.png", "ink=0.5.png", "ink=1.png"}
    Path("mine").mkdir()
    (Path("mine") / "index.json").write_text('{"schema": "something/1"}')
    for options in ((), ("--overwrite",), ("--dry-run",)):
        result = grid(*options, out="mine")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "error: mine holds other things than a grid; name a new folder\n"
    assert names(Path("mine")) == ["index.json"]
    Path("file").touch()
    assert grid(out="file").stderr == "error: file is not a folder; a grid is written into one\n"


def test_an_index_that_leads_elsewhere_harms_nothing(grid):
    assert grid().exit_code == 0
    Path("victim.png").write_text("x")
    path = Path("out") / "index.json"
    index = json.loads(path.read_text())
    index["pictures"] = {"../../victim.png": "0", "ink=0.png": 3}
    path.write_text(json.dumps(index))
    assert grid("--overwrite").stderr == "drew 3 pictures\n"
    assert Path("victim.png").read_text() == "x"


def test_ctrl_c_leaves_a_folder_that_is_taken_up_again(base, adapters, here):
    command = [sys.executable, "-m", "lorakit_cli", "grid", "--base", str(base), "-l", f"{adapters}/ink.safetensors"]
    command += ["--axis", "seed=1-200", "--steps", "2", "--out", "out", "x"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    cells = here / "out" / "cells"
    until = time.monotonic() + 90
    while not (cells.is_dir() and len(list(cells.glob("[!.]*.png"))) >= 3):
        assert time.monotonic() < until
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stdout, stderr) == (130, "", "error: interrupted\n")
    there = list(cells.iterdir())
    assert 3 <= len(there) < 200
    assert all(path.name.startswith("seed=") for path in there)
    again = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert f"200 cells, {len(there)} of them there already; 1 states" in again.stdout
    assert names(here) == ["out"]
