"""Runs that are killed or interrupted anywhere: what stands is wholly old or wholly new, and the next run succeeds."""

import errno
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from lorakit_cli.core import exchange
from lorakit_cli.core.leftovers import recover
from lorakit_cli.core.output_folder import new_folder
from tests.children import start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

OUT = Path("out")
FILES = 5
WRITE = f"""
import errno, itertools, os, signal, sys
from pathlib import Path
from lorakit_cli.core import exchange, output_folder
from lorakit_cli.core.output_file import new_file
from lorakit_cli.core.output_folder import new_folder

def write(generation):
    with new_folder(Path("out"), overwrite=True) as folder:
        (folder / "inner").mkdir()
        for number in range({FILES}):
            with (folder / "inner" / str(number)).open("w") as file:
                for _ in range(20):
                    file.write(generation)
                    file.flush()
"""
TWO_STEPS = "exchange._system_exchange = lambda: lambda first, second: errno.ENOSYS\n"
# The process kills itself before the step of that number on its way through the file system.
STEPS = """
last, steps = int(sys.argv[1]), itertools.count(1)
def step():
    if next(steps) == last:
        os.kill(os.getpid(), signal.SIGKILL)
def hook(event, arguments):
    if event in ("os.remove", "os.rmdir", "os.rename", "os.mkdir", "os.link", "os.truncate") or (
        event == "open" and "out" in str(arguments[0])
    ):
        step()
def exchanged(*paths, swap=exchange.exchange):
    step()
    done = swap(*paths)
    step()
    return done
output_folder.exchange = exchanged
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def generation(folder):
    """Give the generation that a folder is of, and see that all of it is."""
    found = {path.read_text() for path in (folder / "inner").iterdir()}
    assert names(folder / "inner") == [str(number) for number in range(FILES)]
    (text,) = found
    assert text == text[0] * 20
    return text[0]


def write(name):
    said = []
    with new_folder(OUT, overwrite=True, remark=said.append) as folder:
        (folder / "inner").mkdir()
        for number in range(FILES):
            (folder / "inner" / str(number)).write_text(name * 20)
    return said


def see_what_a_kill_left(here, old, new, two_steps):
    """See that old or new stands, and that the next run makes good what is left."""
    for aside in here.glob(".out.*.old"):
        assert generation(aside) in old
    if two_steps and not OUT.exists():
        said = []
        recover(OUT, said.append)
        assert said[0] == "put back out, which an interrupted run had moved aside"
        assert generation(OUT) in old
    assert generation(OUT) in old + new
    left = [name for name in names(here) if name.endswith((".part", ".old"))]
    assert len(write("n")) == len(left)
    assert (generation(OUT), names(here)) == ("n", ["out"])


@pytest.mark.parametrize("two_steps", [False, True])
def test_killed_before_every_step(here, two_steps):
    code = WRITE + (TWO_STEPS if two_steps else "") + STEPS + "sys.addaudithook(hook)\nwrite('b')\n"
    write("a")
    for last in range(1, 200):
        with start(code, last) as child:
            pass
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        see_what_a_kill_left(here, "a", "b", two_steps)
        write("a")
    assert child.returncode == 0
    assert last > 20
    assert (generation(OUT), names(here)) == ("b", ["out"])


@pytest.mark.parametrize("two_steps", [False, True])
def test_killed_at_any_moment(here, two_steps):
    code = WRITE + (TWO_STEPS if two_steps else "")
    code += "print('writing', flush=True)\nfor name in itertools.cycle('abcdefgh'): write(name)\n"
    chance = random.Random(7)
    write("n")
    for _ in range(25):
        with start(code) as child:
            assert child.stdout.readline() == "writing\n"
            time.sleep(chance.uniform(0, 0.02))
            child.kill()
        see_what_a_kill_left(here, "nabcdefgh", "abcdefgh", two_steps)


@pytest.mark.skipif(exchange._system_exchange() is None, reason="this system replaces folders in two steps")
def test_the_name_is_never_missing(here):
    write("n")
    for name in ("x", "y"):
        Path(name).mkdir()
    if not exchange.exchange(Path("x"), Path("y")):
        pytest.skip("this file system replaces folders in two steps")
    with start(WRITE + "for _ in range(30): write('a'); write('b')\n") as child:
        seen = 0
        while child.poll() is None:
            assert OUT.is_dir()
            seen += 1
    assert child.returncode == 0
    assert seen
    assert generation(OUT) == "b"


FILE = """
def write(generation):
    with new_file(Path("out"), overwrite=True) as file:
        for _ in range(20):
            file.write(generation.encode())
            file.flush()
sys.addaudithook(hook)
write("b")
"""


def test_a_file_killed_before_every_step(here):
    for last in range(1, 200):
        OUT.write_text("a" * 20)
        with start(WRITE + STEPS + FILE, last) as child:
            pass
        assert OUT.read_text() in ("a" * 20, "b" * 20)
        recover(OUT)
        assert set(names(here)) <= {"out", ".out.lock"}
        if child.returncode == 0:
            break
    assert child.returncode == 0
    assert last > 3
    assert (OUT.read_text(), names(here)) == ("b" * 20, ["out"])


INTERRUPTED = """
# A shell may have told its background processes to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
path = Path(sys.argv[1])
with {function}(path, overwrite=True, parents=True) as made:
    if {function} is new_folder:
        (made / "file").write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("function", ["new_folder", "new_file"])
@pytest.mark.parametrize("path", ["out", "deep/er/out"])
def test_ctrl_c_leaves_nothing(here, function, path):
    for old in (False, True):
        if old:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).mkdir() if function == "new_folder" else Path(path).touch()
        before = sorted(here.rglob("*"))
        with start(WRITE + INTERRUPTED.format(function=function), path, stderr=-1) as child:
            assert child.stdout.readline() == "writing\n"
            assert sorted(here.rglob("*")) != before
            child.send_signal(signal.SIGINT)
            assert child.stderr.read().splitlines()[-1] == "KeyboardInterrupt"
        assert sorted(here.rglob("*")) == before


def test_a_kill_while_the_old_one_is_removed_does_not_bring_it_back(here, monkeypatch):
    """By halves, after its owner has removed the new one."""
    monkeypatch.setattr(exchange, "_system_exchange", lambda: lambda first, second: errno.ENOSYS)
    code = WRITE + TWO_STEPS + "import shutil\n"
    code += "shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\nwrite('b')\n"
    write("a")
    with start(code) as child:
        pass
    assert generation(OUT) == "b"
    OUT.rename("mine")
    recover(OUT)
    assert names(here) == ["mine"]
    assert child.returncode == -signal.SIGKILL
    assert not os.path.lexists(OUT)
