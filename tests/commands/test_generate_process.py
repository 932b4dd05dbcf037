"""`lorakit generate` as a process of its own: pipes, terminals, signals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.conftest import names


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory that is kept to")
def test_too_little_memory_says_what_would_help(base, here):
    # Attention over so many pixels needs far more; imports and weights need a quarter of it.
    huge = ("--width", "8192", "--height", "8192", "--steps", "1", "-q", "x")
    shell = f"ulimit -v 4000000; exec {sys.executable} -m lorakit_cli generate --base '{base}' " + " ".join(huge)
    done = subprocess.run(
        ["sh", "-c", shell], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert (done.returncode, done.stdout, names(here)) == (1, "", [])
    assert done.stderr.splitlines() == [
        "error: there is not enough memory; try --dtype bfloat16, --low-memory or a smaller --width and --height"
    ]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_text_on_any_stdout(program, base, encoding):
    options = ("generate", "--base", base, "--dry-run", "--seed", 1, "日本 ☃")
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    plain = program(*options, env=environment, encoding=encoding)
    assert (plain.returncode, plain.stderr) == (0, "")
    report = program(*options, "--json", env=environment, encoding=encoding)
    assert json.loads(report.stdout)["prompt"] == "日本 ☃"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_an_error(program, base):
    with Path("/dev/full").open("w") as full:
        done = program("list-adapters", stdout=full, capture_output=False, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: cannot write to stdout: No space left on device"]


def test_as_a_program_it_is_quiet_and_stdout_may_be_closed(program, base):
    options = ("generate", "--base", base, "--steps", 1, "--seed", 1)
    done = program(*options, "-q", "x")
    assert (done.returncode, done.stdout, done.stderr) == (0, "x_seed1.png\n", "")
    shell = f"exec {sys.executable} -m lorakit_cli generate --base '{base}' --steps 1 --seed 2 -q x"
    closed = subprocess.run(["sh", "-c", f"{shell} >&-"], capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")
    gone = subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    gone.stdout.close()
    assert (gone.stderr.read(), gone.wait()) == ("", 0)
    assert names(Path.cwd()) == ["x_seed1.png", "x_seed2.png", "x_seed2_2.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_on_a_terminal_a_bar_shows_the_steps(base):
    import pty

    terminal, child = pty.openpty()
    command = [sys.executable, "-m", "lorakit_cli", "generate", "--base", str(base), "--steps", "3", "--seed", "1", "x"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=child, env=os.environ | {"TERM": "xterm"})
    os.close(child)
    seen = b""
    # Reading fails once the program has closed its side.
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 4096):
            seen += part
    os.close(terminal)
    assert (running.stdout.read(), running.wait()) == (b"x_seed1.png\n", 0)
    assert b"denoising" in seen
    assert b"3/3" in seen
    assert seen.strip().endswith(b"seed 1")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_no_half_file_and_says_so(base, here, sent, code):
    options = ["--base", str(base), "--steps", "1", "--seed", "1-9999", "--out", "many/", "x"]
    running = subprocess.Popen(
        [sys.executable, "-m", "lorakit_cli", "generate", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(here.glob("many/*.png")):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(sent)
    stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stdout, stderr) == (code, "", "error: interrupted\n")
    for path in (here / "many").iterdir():
        assert path.suffix == ".png"
        with Image.open(path) as picture:
            picture.load()
