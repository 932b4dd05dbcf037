"""`generate --show` on terminals that can do different things; each is a pseudo-terminal that answers as a real one."""

import contextlib
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
# What a terminal says when it is asked what it can do; the 4 stands for sixels.
SIXELS = {b"\x1b[c": b"\x1b[?62;4;22c", b"\x1b[16t": b"\x1b[6;20;10t"}


GENERATE = ("-m", "lorakit_cli", "generate", "--steps", "1", "--seed", "1", "--show")
SHOW = "import sys; from pathlib import Path; from lorakit_cli.commands._preview import show_picture"


def on_terminal(*arguments, answers=None, stdin_too=True, **environment):
    """Run Python on a terminal of 80 by 30; give what it got to show, and its stderr."""
    import fcntl
    import pty
    import struct
    import termios

    terminal, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LINES", "COLUMNS")}
    running = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=child if stdin_too else subprocess.DEVNULL,
        stdout=child,
        stderr=subprocess.PIPE,
        env=variables | {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | environment,
    )
    os.close(child)
    seen, waiting = b"", dict(answers or {})
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65536):
            seen += part
            for question in [question for question in waiting if question in seen]:
                os.write(terminal, waiting.pop(question))
    os.close(terminal)
    assert running.wait() == 0
    return seen, running.stderr.read()


def shown(**options):
    Image.new("RGB", (16, 16), "red").save("x.png")
    seen, said = on_terminal("-c", f"{SHOW}; show_picture(Path('x.png'))", **options)
    assert said == b""
    return seen


def test_half_blocks_in_colour_where_the_terminal_can_do_no_more(base):
    seen, said = on_terminal(*GENERATE, "--base", base, "x")
    assert said == b"seed 1\n"
    assert seen.count("▀".encode()) == 48 * 24
    assert b"\x1b[38;2;" in seen
    path, _, picture = seen.partition(b"\r\n")
    assert path == b"x_seed1.png"
    assert "▀".encode() in picture


def test_without_a_terminal_to_ask_there_are_half_blocks_too():
    seen = shown(stdin_too=False)
    assert seen.count("▀".encode()) == 48 * 24
    assert b"\x1b[c" not in seen


def test_sixels_where_the_terminal_has_them():
    seen = shown(answers=SIXELS)
    assert b"\x1bP" in seen
    assert "▀".encode() not in seen


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_nothing_on_a_terminal_without_colours(environment):
    assert shown(**environment) == b""


def test_nothing_where_it_would_be_in_the_way(draw):
    assert draw("--seed", 1, "--show").stdout == "a-red-heart_seed1.png\n"
    assert json.loads(draw("--seed", 2, "--show", "--json").stdout)["pictures"][0]["seed"] == 2
