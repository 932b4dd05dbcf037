"""Whatever stops `lorakit fuse`, what was at the output's place is whole, and the next run clears up."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fused import files, fused, specs
from tests.mounts import mounted

COMMAND = [sys.executable, "-m", "lorakit_cli", "fuse", "--out", "out", "--overwrite", "--quiet"]
KILLS = 6


def start(scale, **options):
    command = [*COMMAND, "--scale", str(scale)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def seconds_of_a_run():
    begin = time.monotonic()
    with start(1) as process:
        process.communicate()
    assert process.returncode == 0
    return time.monotonic() - begin


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_any_moment_the_old_or_the_new_is_there_whole(lorakit, here):
    fused(lorakit, "--scale", 0.25, "--out", "want")
    wanted = {path: data for path, data in files(here / "want").items() if path.endswith(".safetensors")}
    usual = seconds_of_a_run()
    old = {path: data for path, data in files(here / "out").items() if path.endswith(".safetensors")}
    chance = random.Random(1)
    for _ in range(KILLS):
        with start(0.25) as process:
            time.sleep(chance.uniform(0.3, 1.05) * usual)
            process.kill()
            process.communicate()
        found = {path: data for path, data in files(here / "out").items() if path.endswith(".safetensors")}
        assert found in (old, wanted)
        recipe = json.loads((here / "out" / "lorakit.json").read_text())
        assert (recipe["scale"] == 0.25) == (found == wanted)
        assert lorakit("verify", "out").exit_code == 0
    with start(0.25) as process:
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert sorted(path.name for path in here.iterdir()) == ["out", "want"]
    assert {path: files(here / "out")[path] for path in wanted} == wanted


def test_ctrl_c_leaves_nothing(here):
    with start(1, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
        while not list(here.glob(".out.*.part")) and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate()
    # The run may have been over first.
    assert (process.returncode, out, said) in ((130, "", "error: interrupted\n"), (0, "out\n", ""))
    assert [path.name for path in here.iterdir()] == ([] if process.returncode else ["out"])


def test_a_disk_without_room_is_told_before_any_work(lorakit, here):
    with mounted(here / "disk", "size=4m") as disk:
        done = lorakit("fuse", "--out", disk / "out")
        assert done.exit_code == 1
        assert done.stderr == (
            f"error: not enough space in {disk}: 0.01 GB are needed and 0.00 GB free; free some, or write to another "
            "disk\n"
        )
        assert list(disk.iterdir()) == []


def test_a_disk_that_runs_full_on_the_way_keeps_what_was_there(lorakit, here, monkeypatch):
    with mounted(here / "disk", "size=12m") as disk:
        fused(lorakit, "--out", disk / "out")
        before = files(disk / "out")
        # The disk was larger when it was asked.
        monkeypatch.setattr("lorakit_cli.service.fusing.require_space", lambda folder, needed: None)
        done = lorakit("fuse", "--scale", 0.5, "--out", disk / "out", "--overwrite")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "the disk is full" in done.stderr
        assert files(disk / "out") == before
        assert [path.name for path in disk.iterdir()] == ["out"]


def test_a_disk_that_takes_nothing_is_told_before_any_work(lorakit, here):
    with mounted(here / "disk", "size=1m,ro") as disk:
        done = lorakit("fuse", "--out", disk / "out")
        assert done.exit_code == 1
        assert "takes no new files" in done.stderr


def test_two_runs_to_one_output_at_once(lorakit, here):
    from lorakit_cli.core.output_folder import new_folder

    with new_folder(here / "out"):
        code = "import sys; sys.argv[1:] = ['fuse', '--out', 'out']; from lorakit_cli.__main__ import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"another run (process {os.getpid()}) is writing" in done.stderr
    assert (here / "out").is_dir()


def test_what_a_killed_run_left_is_cleared_and_said(lorakit, here):
    stale = here / ".out.999999.part"
    (stale / "unet").mkdir(parents=True)
    (stale / "unet" / "half").write_bytes(b"x" * 100)
    done = lorakit("fuse", "--out", "out")
    assert done.exit_code == 0
    assert "warning: " in done.stderr
    assert ".out.999999.part" in done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["out"]


def test_a_result_that_is_not_what_it_should_be_never_appears(lorakit, here, base, adapters, monkeypatch):
    """A disk that loses a bit, as one stand-in for a broken machine."""
    from lorakit_cli.service import streaming

    real = streaming.write_at

    def flip(file, data, place):
        spoilt = bytearray(data)
        spoilt[-1] ^= 1
        real(file, memoryview(spoilt), place)

    monkeypatch.setattr(streaming, "write_at", flip)
    done = lorakit("fuse", "--base", base, *specs(adapters, "ink.safetensors"), "--out", "out")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is not what it should be" in done.stderr
    assert "and was removed" in done.stderr
    assert list(here.iterdir()) == []


def test_links_in_the_base_become_files(lorakit, here, base, adapters, tmp_path):
    linked = tmp_path / "linked"
    for path in base.rglob("*"):
        target = linked / path.relative_to(base)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    before = files(base)
    fused(lorakit, "--base", linked, *specs(adapters, "ink.safetensors"), "--out", "out")
    assert not [path for path in (here / "out").rglob("*") if path.is_symlink()]
    assert files(base) == before


def test_a_missing_or_wrong_shard_is_told_before_any_work(lorakit, here, base, adapters):
    ink = specs(adapters, "ink.safetensors")
    fused(lorakit, "--base", base, *ink, "--out", "parts", "--max-shard-size", "200KB", "--no-verify")
    parts = sorted((here / "parts" / "unet").glob("*.safetensors"))
    data = parts[1].read_bytes()
    parts[1].unlink()
    done = lorakit("fuse", "--base", "parts", *ink, "--again", "--out", "out")
    assert f"unet is incomplete: {parts[1].name} is missing" in done.stderr
    parts[1].write_bytes(data[:-8])
    done = lorakit("fuse", "--base", "parts", *ink, "--again", "--out", "out")
    assert f"{parts[1].name} is truncated" in done.stderr
    assert not Path("out").exists()
    shutil.rmtree(here / "parts")
